"""Routes at which an agent fetches the cameras that it owns, with credentials, and asks who owns others.

They have threads of their own: the others may all wait for a database, which nothing here needs as a rule.  An agent's
reports are taken in `reports`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Response

from nodeagent.contract.camera import REVEAL
from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import Incarnation
from registry.http.answers_live import NodeCamera, Whereabouts
from registry.http.parts import (
    JSON,
    PREFIX,
    PRIVATE,
    Allowed,
    AnyCaller,
    CameraPath,
    NodePath,
    Parts,
    PartsHere,
    private,
)
from registry.store.camera_record import CameraRow
from registry.tokens import Bearer, Deed

log = logging.getLogger(__name__)

Anybody = Annotated[Bearer, Depends(AnyCaller())]
Fetcher = Annotated[Bearer, Depends(Allowed(Deed.FETCH))]

router = APIRouter(prefix=PREFIX, tags=["agents"])


@router.get("/nodes/{node_id}/cameras", response_model=tuple[NodeCamera, ...])
async def own_cameras(
    parts: PartsHere,
    _caller: Fetcher,
    node_id: NodePath,
    incarnation: Annotated[Incarnation, Query(description="The life of the agent that asks.")],
    strategy: Annotated[
        Literal["broadcast", "claim"], Query(description="`claim`: with those that nodes of this site may claim.")
    ] = "broadcast",
) -> Response:
    """The cameras that this life of the node owns, with their credentials.  Its own token alone opens it."""
    claims = strategy == "claim"
    listed = await to_thread.run_sync(_list, parts, node_id, incarnation, claims, limiter=parts.for_agents)
    return Response(listed, headers=PRIVATE, media_type=JSON)


@router.get("/cameras/{camera_id}/owner", dependencies=[Depends(private)])
async def owner(parts: PartsHere, _caller: Anybody, camera_id: CameraPath) -> Whereabouts:
    """Who owns a camera.  That there is no such camera, or a disabled one, is an answer, too; nodes ask as well."""
    return await to_thread.run_sync(_whereabouts, parts, camera_id, limiter=parts.for_agents)


def _whereabouts(parts: Parts, camera_id: CameraId) -> Whereabouts:
    found = parts.core.owner(camera_id)
    known = _is_wanted(parts.core.configurations([camera_id]), camera_id)
    # Nobody may take it for unknown because it was made, or enabled, a moment ago.
    return Whereabouts(known=known or _is_wanted(parts.cameras.get_many([camera_id]), camera_id), owner=found)


def _is_wanted(rows: Mapping[CameraId, CameraRow], camera_id: CameraId) -> bool:
    """Whether a node is to serve a camera.  Of a disabled one its node has to hear that it is not, as of a deleted."""
    return camera_id in rows and rows[camera_id].enabled


def _list(parts: Parts, node_id: NodeId, incarnation: str, claims: bool) -> str:
    owned = parts.core.owned(node_id, incarnation)
    epochs = {camera_id: owner.epoch for camera_id, owner in owned.items()}
    if claims:
        epochs = dict.fromkeys(parts.core.claimable(), 0) | epochs
    return f"[{','.join(_listed(row, epochs[row.camera_id]) for row in _rows(parts, epochs) if _usable(parts, row))}]"


def _rows(parts: Parts, camera_ids: Mapping[CameraId, int]) -> list[CameraRow]:
    """These cameras, by id, without those that are disabled: out of memory, since many nodes may ask at
    once, and while the database is away, too; what was made a moment ago out of the database.  What is missing its
    node asks for again.
    """
    rows = dict(parts.core.configurations(camera_ids))
    if missing := camera_ids.keys() - rows.keys():
        with suppress(Unavailable):
            rows |= parts.cameras.get_many(missing, reveal=True)
    return [rows[camera_id] for camera_id in sorted(rows) if rows[camera_id].enabled]


def _usable(parts: Parts, row: CameraRow) -> bool:
    """Whether its credentials could be decrypted.  If not it is left out: its node goes on with those that it has."""
    if row.trouble and parts.told.first(row.trouble):
        log.error("%s", row.trouble, extra={"event": "credentials_unreadable", "camera": row.camera_id})
    return not row.trouble


def _listed(row: CameraRow, epoch: int) -> str:
    camera = NodeCamera.model_construct(camera=row.spec, version=row.version, epoch=epoch)
    return camera.model_dump_json(context=REVEAL)
