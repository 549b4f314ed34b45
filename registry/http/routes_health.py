"""Routes for whoever watches the process; the only ones without a token."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Response

from nodeagent.contract.errors import Unavailable
from nodeagent.infra.database import ping
from registry.http.answers_live import Alive, Ready
from registry.http.parts import Parts, PartsHere

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> Alive:
    """Whether the process lives: it answers while all else waits for a database."""
    return Alive()


@router.get("/readyz", responses={int(HTTPStatus.SERVICE_UNAVAILABLE): {"model": Ready}})
def readyz(parts: PartsHere, response: Response) -> Ready:
    """Whether this registry can serve: its database, its Redis, and somebody who leads."""
    core = parts.core.readiness()
    database = _database(parts)
    leader = "" if core.leader else "no registry is known to lead"
    ready = not (database or core.state or leader)
    if not ready:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Ready(ready=ready, database=database, state=core.state, leader=leader)


def _database(parts: Parts) -> str:
    try:
        ping(parts.engine)
    except Unavailable as exc:
        return str(exc)
    return ""
