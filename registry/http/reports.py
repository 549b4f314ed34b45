"""Reports of agents: one from every node every second, so all that is done with one stands here.

It is answered by the event loop itself: without a thread, a database, or the framework, which takes longer to find out
what to call than a report takes to be read and judged.
"""

from __future__ import annotations

import logging
import re
from math import isfinite
from typing import Final

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from nodeagent.contract.errors import AgentError
from nodeagent.contract.ids import NS_PER_MS
from nodeagent.contract.ownership import AgentReport, ReportAnswer
from nodeagent.infra.web.problems import answer_of
from registry.http.body import JsonBody, whole
from registry.http.parts import JSON, PREFIX, PRIVATE, Allowed, NodePath, Parts
from registry.http.problems import SAID, problem_of, wrong
from registry.tokens import Deed

log = logging.getLogger(__name__)

#: How far beyond the clock an epoch may be that a report tells of, ms: a hundred years.  Epochs count on from Redis'
#: clock in ms, so none of ours is there whichever clock is wrong; believed, a higher one would leave none for the next
#: owner.
EPOCH_AHEAD_MS: Final = 100 * 365 * 86_400_000
#: Largest report, bytes: a node of a thousand cameras has a quarter of it.
REPORT_BYTES: Final = 4_000_000
_PATH: Final = re.compile(rf"{PREFIX}/nodes/([^/]+)/report")
_MAY: Final = Allowed(Deed.REPORT)
_BODY: Final = JsonBody(AgentReport, REPORT_BYTES)

#: Describes the route; nothing is routed by it.
described = APIRouter(prefix=PREFIX, tags=["agents"])


@described.post("/nodes/{node_id}/report", response_model=ReportAnswer, dependencies=[Depends(_MAY), Depends(_BODY)])
async def report(request: Request, node_id: NodePath) -> Response:
    """Take an agent's report: one for all of its children, once a second."""
    parts: Parts = request.app.state.parts
    await _MAY(request)
    # Decoded here whatever its size: threads may all wait for a database.
    told: AgentReport = _BODY.decoded(await whole(request, REPORT_BYTES))
    if told.report.node_id != node_id:
        raise wrong("report.node_id", "expected the node of the address, which is the token's")
    # An age that is no number would be compared with others, and be neither older nor younger.
    if not all(row.beat_age_s is None or isfinite(row.beat_age_s) for row in told.report.rows):
        raise wrong("report.rows", "expected a finite beat_age_s in each")
    told, warnings = _believed(told, parts)
    answer = parts.core.report(told)
    if warnings:
        answer = answer.model_copy(update={"warnings": (*answer.warnings, *warnings)})
    return Response(answer.model_dump_json(), headers=PRIVATE, media_type=JSON)


def _believed(told: AgentReport, parts: Parts) -> tuple[AgentReport, tuple[str, ...]]:
    """The report without holds of epochs that cannot be, and sentences on these.  The rest of it counts: a node whose
    reports were refused would be dead.
    """
    most = parts.clock.wall_ns() // NS_PER_MS + EPOCH_AHEAD_MS
    holds = tuple(hold for hold in told.holds if hold.epoch <= most)
    if len(holds) == len(told.holds):
        return told, ()
    node_id = told.report.node_id
    wild = next(hold for hold in told.holds if hold.epoch > most)
    warning = f"report.holds: camera {wild.camera_id}: epoch {wild.epoch} is left out, expected at most {most}"
    if parts.told.first(("epoch", node_id)):
        log.error("node %s: %s", node_id, warning, extra={"event": "epoch_unbelievable", "node": node_id})
    return told.model_copy(update={"holds": holds}), (warning,)


class Reports:
    """An ASGI application that takes reports, and hands all else on."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        found = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["app"], scope["path_params"] = self._app, {"node_id": found[1]}
        try:
            answer = await report(Request(scope, receive), found[1])
        except AgentError as exc:
            problem = problem_of(exc, conditional=False)
            scope[SAID] = problem.detail
            answer = answer_of(problem)
        await answer(scope, receive, send)
