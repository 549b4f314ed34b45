"""Routes that answer in JSON: what there is of a camera, and what there is not."""

from __future__ import annotations

from itertools import islice
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Response

from nodeagent.capture.endpoint.access import Scope, query_of
from nodeagent.capture.endpoint.answers import (
    CameraRow,
    Cameras,
    ClipRow,
    Clips,
    GapRow,
    Gaps,
    Health,
    Link,
    SpanRow,
    Timeline,
)
from nodeagent.capture.endpoint.parts import (
    PRIVATE,
    Caller,
    CameraPath,
    FromQuery,
    PartsHere,
    SpanQuery,
    StreamQuery,
    ToQuery,
    camera_here,
)
from nodeagent.capture.endpoint.problems import bad_request
from nodeagent.contract.clip import StreamName
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.clip_folders import StoredClip
from nodeagent.infra.gaps import Gap

#: Prefix of every route.
PREFIX = "/api/v1"
#: Clips on a page: as many as asked for, this many at most, and when nothing is said; their sizes are looked up.
PAGE_MOST, PAGE = 5000, 1000
#: How long a link is good, seconds: least, when nothing is said, and most.
LINK_LEAST_S, LINK_S, LINK_MOST_S = 30, 3600, 86_400


async def _private(response: Response) -> None:
    """Nobody on the way keeps what a token showed."""
    response.headers.update(PRIVATE)


router = APIRouter(prefix=PREFIX, dependencies=[Depends(_private)])


@router.get("/health")
async def health() -> Health:
    """Whether the endpoint serves.  The one route without a token."""
    return Health()


@router.get("/cameras")
def cameras(parts: PartsHere, _caller: Caller) -> Cameras:
    """Cameras that have recordings here, or should have."""
    rows = tuple(CameraRow(camera_id=name, wanted=now) for name, now in parts.recordings.cameras().items())
    return Cameras(node_id=parts.node_id, cameras=rows)


@router.get("/cameras/{camera_id}/clips")
def clips(
    parts: PartsHere,
    _caller: Caller,
    camera_id: CameraPath,
    span: SpanQuery,
    stream: StreamQuery = "record",
    after_ns: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Annotated[int, Query(ge=1, le=PAGE_MOST)] = PAGE,
) -> Clips:
    """Finished clips that overlap a time range."""
    camera_here(parts, camera_id)
    found = parts.recordings.clips(camera_id, span.from_ns, span.to_ns, stream, after_ns)
    page = list(islice(found, limit))
    rows = [row for stored in page if (row := _row(stored, stream)) is not None]
    more = len(page) == limit
    return Clips(clips=tuple(rows), next=_next(camera_id, span, stream, page[-1], limit) if more else None)


def _row(stored: StoredClip, stream: StreamName) -> ClipRow | None:
    """None when retention took the clip meanwhile."""
    clip = stored.clip
    try:
        size = stored.path.stat().st_size
    except FileNotFoundError:
        return None
    return ClipRow(
        camera_id=clip.camera_id,
        epoch=clip.epoch,
        start_ns=clip.start_ns,
        duration_ns=stored.duration_ns,
        stream=stream,
        bytes=size,
        url=f"{PREFIX}/cameras/{clip.camera_id}/clips/{clip.epoch}/{clip.start_ns}.mp4?stream={stream}",
    )


def _next(camera_id: str, span: SpanQuery, stream: StreamName, last: StoredClip, limit: int) -> str:
    fields = {"from": span.from_ns, "to": span.to_ns, "stream": stream, "after_ns": last.clip.start_ns, "limit": limit}
    return f"{PREFIX}/cameras/{camera_id}/clips?{urlencode(fields)}"


@router.get("/cameras/{camera_id}/gaps")
def gaps(parts: PartsHere, _caller: Caller, camera_id: CameraPath, span: SpanQuery) -> Gaps:
    """What was not recorded of the main stream, and why."""
    camera_here(parts, camera_id)
    return Gaps(gaps=_gap_rows(parts.recordings.gaps(camera_id, span.from_ns, span.to_ns)))


@router.get("/cameras/{camera_id}/timeline")
def timeline(
    parts: PartsHere, _caller: Caller, camera_id: CameraPath, span: SpanQuery, stream: StreamQuery = "record"
) -> Timeline:
    """When the camera was recorded, and the gaps of its main stream."""
    camera_here(parts, camera_id)
    spans = parts.recordings.timeline(camera_id, span.from_ns, span.to_ns, stream)
    return Timeline(
        recorded=tuple(SpanRow(from_ns=s.from_ns, to_ns=s.to_ns) for s in spans),
        gaps=_gap_rows(parts.recordings.gaps(camera_id, span.from_ns, span.to_ns)),
    )


def _gap_rows(found: list[Gap]) -> tuple[GapRow, ...]:
    return tuple(GapRow.model_validate(gap.model_dump()) for gap in found)


@router.post("/cameras/{camera_id}/links")
def link(
    parts: PartsHere,
    caller: Caller,
    camera_id: CameraPath,
    from_ns: FromQuery = None,
    to_ns: ToQuery = None,
    stream: StreamQuery = "record",
    valid_s: Annotated[int, Query(ge=LINK_LEAST_S, le=LINK_MOST_S)] = LINK_S,
) -> Link:
    """A link for a player that cannot set a header: this camera, stream and range, for a while."""
    camera_here(parts, camera_id)
    if from_ns is None:
        raise bad_request("from", "required, but missing")
    if to_ns is not None and to_ns <= from_ns:
        raise bad_request("to", "expected a time after `from`")
    scope = Scope(camera_id, stream, from_ns, to_ns)
    ticket = parts.doorkeeper.ticket(caller, scope, parts.clock.wall_ns() // NS_PER_S + valid_s)
    query = query_of(scope, ticket)
    return Link(
        playlist=f"{PREFIX}/cameras/{camera_id}/playlist.m3u8?{query}",
        query=query,
        expires_ns=ticket.expires_s * NS_PER_S,
    )
