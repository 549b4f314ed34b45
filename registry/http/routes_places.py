"""Routes of assignments: where cameras are, were, and may go."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request

from nodeagent.contract.ids import NodeId
from nodeagent.contract.ownership import Owner, TaskPhase
from registry.http.answers_live import Move, PastPlace, PastPlaces, Place, Places, Why
from registry.http.body import JsonBody
from registry.http.paging import ROWS, ROWS_MOST, After, Below, Limit, next_part
from registry.http.parts import PREFIX, Allowed, CameraPath, PartsHere, Reader, private
from registry.http.ports import Contradicted
from registry.tokens import Bearer, Deed

#: Nodes in an explanation when nobody says how many.
CONSIDERED: Final = 20

Mover = Annotated[Bearer, Depends(Allowed(Deed.MOVE))]

router = APIRouter(prefix=PREFIX, dependencies=[Depends(private)], tags=["assignments"])


@router.get("/assignments")
def assignments(
    request: Request,
    parts: PartsHere,
    _caller: Reader,
    node_id: Annotated[NodeId | None, Query(description="Only cameras of this node.")] = None,
    phase: Annotated[TaskPhase | None, Query(description="Only cameras in this phase.")] = None,
    after: After = "",
    limit: Limit = ROWS,
) -> Places:
    """Where cameras are now, by id."""
    found = parts.core.assignments(after, limit + 1, node_id, phase)
    rows = tuple(Place.of(one) for one in found[:limit])
    more = rows[-1].camera_id if len(found) > limit else None
    return Places(assignments=rows, next=next_part(request, "after", more))


@router.get("/cameras/{camera_id}/assignments")
def history(
    request: Request,
    parts: PartsHere,
    _caller: Reader,
    camera_id: CameraPath,
    below: Below = None,
    limit: Limit = ROWS,
) -> PastPlaces:
    """Owners of a camera, newest first; `below` is an epoch.  The newest may be missing for a few seconds."""
    found = parts.assignments.history(camera_id, below, limit)
    if not found and below is None:
        # One that was never placed has no history, one that never was is an error.
        parts.cameras.get(camera_id)
    more = found[-1].grant.owner.epoch if len(found) == limit else None
    rows = tuple(PastPlace.of(one) for one in found)
    return PastPlaces(camera_id=camera_id, assignments=rows, next=next_part(request, "below", more))


@router.get("/cameras/{camera_id}/explain")
def explain(
    parts: PartsHere,
    _caller: Reader,
    camera_id: CameraPath,
    limit: Annotated[int, Query(ge=1, le=ROWS_MOST, description="Nodes at most.")] = CONSIDERED,
) -> Why:
    """Why a camera is where it is, and what else was considered."""
    return Why.of(parts.core.explain(camera_id), limit)


@router.post("/cameras/{camera_id}/move")
def move(
    parts: PartsHere, caller: Mover, camera_id: CameraPath, where: Annotated[Move, Depends(JsonBody(Move))]
) -> Owner:
    """Give a camera to a node by hand; answers with its new owner."""
    if not parts.cameras.get(camera_id).enabled:
        raise Contradicted(f"camera {camera_id} is not enabled: no node serves it")
    return parts.core.move(camera_id, where.node_id, caller.name)
