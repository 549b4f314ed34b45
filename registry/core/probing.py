"""Probes of cameras: a registry reaches no camera itself, so a node that reports here looks at it.

The order goes out with the answers to the node's reports until a result comes back with one.  Orders are in this
process only: they hold stream credentials, and whoever asked is gone when it is killed.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from nodeagent.contract.camera import REVEAL, StreamSpec
from nodeagent.contract.clip import StreamName
from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import NodeId
from nodeagent.contract.ownership import LEASE_S, AgentReport
from nodeagent.contract.probe import ProbeOrder, ProbeResult
from registry.http.ports import Unanswered

#: Probes that may be waited for at a time: each holds a thread of the web server.
AT_ONCE: Final = 8
#: Seconds that a node has for its result: a report, a slow camera, and a report.
ANSWER_S: Final = 25.0

#: A node in one life of its agent.
Life = tuple[NodeId, str]


@dataclass(frozen=True, slots=True)
class _Waiting:
    life: Life
    #: As the answer to a report holds it.
    order: dict[str, Any] = field(repr=False)
    result: Future[ProbeResult] = field(default_factory=Future)


class Probes:
    """Orders that wait for a result; any thread."""

    def __init__(self, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._waiting: dict[str, _Waiting] = {}
        #: The life that reported last to this registry, and when, monotonic seconds.
        self._heard: dict[NodeId, tuple[str, float]] = {}

    def swap(self, report: AgentReport, now_s: float) -> tuple[dict[str, Any], ...]:
        """Take a report's results; returns the orders for its node.  Waits for nobody."""
        life = (report.report.node_id, report.incarnation)
        self._heard[report.report.node_id] = (report.incarnation, now_s)
        for result in report.probes:
            waiting = self._waiting.get(result.probe_id)
            # Only the node that was asked is believed.
            if waiting is not None and waiting.life == life and not waiting.result.done():
                waiting.result.set_result(result)
        return tuple(
            each.order for each in list(self._waiting.values()) if each.life == life and not each.result.done()
        )

    def hears(self, life: Life, now_s: float) -> bool:
        """Whether this life of a node reports to this registry, and to no other."""
        incarnation, at_s = self._heard.get(life[0], ("", 0.0))
        return incarnation == life[1] and now_s - at_s < LEASE_S

    def ask(self, life: Life, streams: Mapping[StreamName, StreamSpec]) -> ProbeResult:
        """Have a node look at these streams, and wait.

        Raises:
            Unanswered: it does not say in time.
            Unavailable: too many wait already.
        """
        if len(self._waiting) >= AT_ONCE:
            raise Unavailable(f"{AT_ONCE} probes are under way: ask again in a few seconds")
        order = ProbeOrder(probe_id=secrets.token_hex(8), streams=dict(streams))
        waiting = self._waiting[order.probe_id] = _Waiting(life, order.model_dump(mode="json", context=REVEAL))
        try:
            return waiting.result.result(self._answer_s)
        except TimeoutError:
            raise Unanswered(
                f"node {life[0]} did not say within {self._answer_s:g} s what the camera answers: it was lost, or its "
                "agent is of an older version"
            ) from None
        finally:
            del self._waiting[order.probe_id]
