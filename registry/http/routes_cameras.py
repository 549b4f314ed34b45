"""Routes of cameras: what is wanted of each.  Where they are is told in `routes_places`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import StringConstraints

from nodeagent.infra.web.problems import Problem
from registry.http.answers_kept import Camera, CameraChange, CameraHistory, Cameras, ImportDraft, Imported
from registry.http.body import JsonBody
from registry.http.paging import ROWS, After, Below, Limit, next_part
from registry.http.parts import PREFIX, Allowed, CameraPath, PartsHere, Reader, private
from registry.http.problems import wrong
from registry.http.versions import Seen, tagged
from registry.store.camera_record import CameraDraft, CameraFilter, Group
from registry.tokens import Bearer, Deed

#: Largest import, bytes: ten thousand cameras with some rules each.
IMPORT_BYTES: Final = 32_000_000
#: Longest text that is searched for, characters.
TEXT_MAX: Final = 100
#: Most labels that are filtered by.
LABELS_MAX: Final = 8
_LABEL: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}=[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"

Draft = Annotated[CameraDraft, Depends(JsonBody(CameraDraft))]
Changer = Annotated[Bearer, Depends(Allowed(Deed.CHANGE_CAMERA))]
Deleter = Annotated[Bearer, Depends(Allowed(Deed.DELETE_CAMERA))]
Importer = Annotated[Bearer, Depends(Allowed(Deed.IMPORT))]
LabelText = Annotated[str, StringConstraints(pattern=_LABEL)]
Labels = Annotated[
    tuple[LabelText, ...], Query(max_length=LABELS_MAX, description="Those that carry this `name=value`.")
]

router = APIRouter(prefix=PREFIX, dependencies=[Depends(private)], tags=["cameras"])


async def _filter(
    enabled: Annotated[bool | None, Query(description="Only those that are, or are not, enabled.")] = None,
    group: Annotated[Group, Query(description="Those at this place of the tree, or below it.")] = "",
    label: Labels = (),
    text: Annotated[str, Query(max_length=TEXT_MAX, description="Part of id or name, in whatever case.")] = "",
) -> CameraFilter:
    labels: dict[str, str] = {}
    for word in label:
        name, _, value = word.partition("=")
        if labels.setdefault(name, value) != value:
            raise wrong("label", f"expected one value of {name}: no camera has two")
    return CameraFilter(enabled=enabled, group=group, labels=labels, text=text)


Which = Annotated[CameraFilter, Depends(_filter)]


@router.get("/cameras")
def cameras(
    request: Request, parts: PartsHere, _caller: Reader, which: Which, after: After = "", limit: Limit = ROWS
) -> Cameras:
    """Cameras, by id."""
    page = parts.cameras.page(after or None, limit, which)
    rows = tuple(Camera.of(row) for row in page.rows)
    return Cameras(cameras=rows, next=next_part(request, "after", page.after))


@router.post("/cameras", status_code=HTTPStatus.CREATED)
def make_camera(parts: PartsHere, caller: Changer, draft: Draft, response: Response) -> Camera:
    """Make a camera.  It is placed on a node within seconds, if it is enabled."""
    row = parts.cameras.make(draft, parts.writer(caller))
    parts.core.changed([row.camera_id])
    response.headers["Location"] = f"{PREFIX}/cameras/{row.camera_id}"
    tagged(response, row.version)
    return Camera.of(row)


@router.get("/cameras/{camera_id}")
def camera(parts: PartsHere, _caller: Reader, camera_id: CameraPath, response: Response) -> Camera:
    """One camera."""
    row = parts.cameras.get(camera_id)
    tagged(response, row.version)
    return Camera.of(row)


@router.put("/cameras/{camera_id}")
def change_camera(
    parts: PartsHere, caller: Changer, camera_id: CameraPath, seen: Seen, draft: Draft, response: Response
) -> Camera:
    """Replace a camera, rules included.  What changes nothing leaves its version as it is."""
    if draft.camera_id != camera_id:
        raise wrong("spec.camera_id", "expected the camera of the address")
    row = parts.cameras.change(draft, seen, parts.writer(caller))
    if row.version != seen:
        parts.core.changed([camera_id])
    tagged(response, row.version)
    return Camera.of(row)


@router.delete("/cameras/{camera_id}", status_code=HTTPStatus.NO_CONTENT)
def delete_camera(parts: PartsHere, caller: Deleter, camera_id: CameraPath, seen: Seen) -> None:
    """Delete a camera and, for good, its stream credentials.  Its clips and alarms stay."""
    parts.cameras.delete(camera_id, seen, parts.writer(caller))
    parts.core.changed([camera_id])


@router.get("/cameras/{camera_id}/history")
def camera_history(
    request: Request,
    parts: PartsHere,
    _caller: Reader,
    camera_id: CameraPath,
    below: Below = None,
    limit: Limit = ROWS,
) -> CameraHistory:
    """Versions of a camera, newest first: who changed what, and when.  A deleted one has some too."""
    found = parts.cameras.history(camera_id, below, limit)
    if not found and below is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"camera {camera_id}: there is none, and never was")
    more = found[-1].version if len(found) == limit else None
    changes = tuple(CameraChange.of(version) for version in found)
    return CameraHistory(versions=changes, next=next_part(request, "below", more))


@router.post("/import")
def import_cameras(
    parts: PartsHere,
    caller: Importer,
    draft: Annotated[ImportDraft, Depends(JsonBody(ImportDraft, IMPORT_BYTES))],
) -> Imported:
    """Write many cameras in one transaction: all of them or none.  Those that are as in the file are left alone."""
    done = parts.cameras.bring_in(draft.cameras, draft.overwrite, parts.writer(caller))
    parts.core.changed([*done.made, *done.changed])
    return Imported(made=len(done.made), changed=len(done.changed), same=len(done.same))
