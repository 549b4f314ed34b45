"""Routes that answer with video: clips by identity, whole or in the parts that players want, and playlists of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request, Response

from nodeagent.capture.endpoint import playlist as hls
from nodeagent.capture.endpoint.access import Scope, query_of
from nodeagent.capture.endpoint.byte_ranges import Slice, http_date, same, slice_of, unchanged
from nodeagent.capture.endpoint.fragmented import layout_of
from nodeagent.capture.endpoint.gate import CALLER, too_many
from nodeagent.capture.endpoint.parts import (
    PRIVATE,
    CameraPath,
    EpochPath,
    FromQuery,
    Parts,
    PartsHere,
    StartPath,
    StreamQuery,
    TicketQuery,
    ToQuery,
    admit,
    camera_here,
)
from nodeagent.capture.endpoint.problems import bad_request
from nodeagent.capture.endpoint.recordings import OpenClip
from nodeagent.capture.endpoint.routes_lists import LINK_LEAST_S, LINK_MOST_S, LINK_S, PREFIX
from nodeagent.capture.endpoint.transfer import PacedResponse, Stamps, Transfers
from nodeagent.contract.clip import ClipId, StreamName
from nodeagent.contract.errors import BadMedia
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.web.problems import Problem

#: Longest time range of one playlist, ns: a day of clips is a list of some megabytes.
PLAYLIST_MOST_NS = 24 * 3600 * NS_PER_S
#: Seconds that a client waits when all places of transfers are taken: a clip takes about that long.
RETRY_S = 1.0
#: Clips never change: whoever may see one may keep it.
_FOREVER = "private, max-age=86400, immutable"
_BOTH = ["GET", "HEAD"]
_CLIP = "/cameras/{camera_id}/clips/{epoch}/{start_ns}"

#: What is asked of a clip: all of its file, its head, or its fragments.
Part = Literal["whole", "init", "media"]

router = APIRouter(prefix=PREFIX)


@router.get("/cameras/{camera_id}/playlist.m3u8")
async def playlist(
    request: Request,
    parts: PartsHere,
    camera_id: CameraPath,
    ticket: TicketQuery,
    from_ns: FromQuery = None,
    to_ns: ToQuery = None,
    stream: StreamQuery = "record",
    valid_s: Annotated[int, Query(ge=LINK_LEAST_S, le=LINK_MOST_S)] = LINK_S,
) -> Response:
    """HLS playlist of a time range; without `to` it grows as clips are recorded."""
    scope = None if from_ns is None else Scope(camera_id, stream, from_ns, to_ns)
    admit(request, parts, ticket, scope)
    now_ns = parts.clock.wall_ns()
    if scope is None:
        raise bad_request("from", "required, but missing")
    end_ns = now_ns if scope.to_ns is None else scope.to_ns
    if end_ns - scope.from_ns > PLAYLIST_MOST_NS or (scope.to_ns is not None and end_ns <= scope.from_ns):
        raise bad_request("to", "expected a time after `from`, at most 24 h; left out: now, at most 24 h after `from`")
    if (caller := request.scope[CALLER]) is not None:
        ticket = parts.doorkeeper.ticket(caller, scope, now_ns // NS_PER_S + valid_s)
    if ticket is None:
        raise Problem(HTTPStatus.UNAUTHORIZED, "expected a token or a link")
    return await _sent(parts.playlists, partial(_playlist, parts, scope, query_of(scope, ticket), now_ns))


def _playlist(parts: Parts, scope: Scope, query: str, now_ns: int) -> Response:
    """The playlist, in a file in memory.

    Raises:
        Problem: the camera is not known.
    """
    camera_here(parts, scope.camera_id)
    end_ns = now_ns if scope.to_ns is None else scope.to_ns
    # What ends in the future grows until then.
    ended = scope.to_ns is not None and scope.to_ns <= now_ns
    clips_after = partial(parts.recordings.clips, scope.camera_id, scope.from_ns, end_ns, scope.stream)
    rows = parts.growing.rows(scope, clips_after, ended=ended)
    text = hls.playlist(rows, query, parts.clip_s, ended=ended).encode()
    fd = os.memfd_create("playlist")
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(text)
        headers = {"Content-Type": hls.MEDIA_TYPE, **PRIVATE}
        return PacedResponse(fd, Slice(0, len(text)), parts.playlists, HTTPStatus.OK, headers)
    except BaseException:
        os.close(fd)
        raise


@dataclass(frozen=True, slots=True)
class Asked:
    """A clip that somebody may see.

    Attributes:
        clip: its identity.
        stream: of which stream.
        within: the range that a link is for; None for who shows a token.
    """

    clip: ClipId
    stream: StreamName
    within: Scope | None


async def _asked(
    request: Request,
    parts: PartsHere,
    camera_id: CameraPath,
    epoch: EpochPath,
    start_ns: StartPath,
    ticket: TicketQuery,
    from_ns: FromQuery = None,
    to_ns: ToQuery = None,
    stream: StreamQuery = "record",
) -> Asked:
    scope = None if from_ns is None else Scope(camera_id, stream, from_ns, to_ns)
    admit(request, parts, ticket, scope)
    within = scope if request.scope[CALLER] is None else None
    return Asked(ClipId(camera_id=camera_id, epoch=epoch, start_ns=start_ns), stream, within)


AskedClip = Annotated[Asked, Depends(_asked)]


@router.api_route(_CLIP + ".init.mp4", methods=_BOTH)
async def head_of_clip(request: Request, parts: PartsHere, asked: AskedClip) -> Response:
    """The head of a clip, for `EXT-X-MAP`."""
    return await _sent(parts.transfers, partial(_answer, request, parts, asked, "init"))


@router.api_route(_CLIP + ".m4s", methods=_BOTH)
async def fragments_of_clip(request: Request, parts: PartsHere, asked: AskedClip) -> Response:
    """The fragments of a clip, with decode times in UTC: a segment of a playlist."""
    return await _sent(parts.transfers, partial(_answer, request, parts, asked, "media"))


@router.api_route(_CLIP + ".mp4", methods=_BOTH)
async def whole_clip(request: Request, parts: PartsHere, asked: AskedClip) -> Response:
    """A clip, byte for byte as it lies on the disk."""
    return await _sent(parts.transfers, partial(_answer, request, parts, asked, "whole"))


async def _sent(transfers: Transfers, make: Callable[[], Response]) -> Response:
    """What `make` answers, with a place among the transfers that it gives back at its end."""
    if not transfers.begin():
        raise too_many(RETRY_S, "all places for transfers are taken")
    try:
        answer = await to_thread.run_sync(make)
    except BaseException:
        transfers.end()
        raise
    if not isinstance(answer, PacedResponse):
        transfers.end()
    return answer


def _answer(request: Request, parts: Parts, asked: Asked, part: Part) -> Response:
    """Open the clip and say what to send of it.

    Raises:
        Problem: it is not here, the link does not show it, or the range lies behind its end.
    """
    opened = _open(parts, asked)
    try:
        whole, stamps = _bounds(opened, part)
        etag, modified = _etag(opened, part), http_date(opened.changed_ns)
        headers = {"ETag": etag, "Last-Modified": modified, "Accept-Ranges": "bytes", "Cache-Control": _FOREVER}
        given = request.headers
        if unchanged(given.get("if-none-match"), given.get("if-modified-since"), etag, modified):
            os.close(opened.fd)
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        size = whole.end - whole.first
        asked_range = given.get("range") if same(given.get("if-range"), etag, modified) else None
        found = slice_of(asked_range, size)
        if found is None:
            unsatisfied = {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
            raise Problem(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"the clip has {size} bytes", headers=unsatisfied)
        headers["Content-Type"] = "video/iso.segment" if part == "media" else "video/mp4"
        status = HTTPStatus.OK
        if found != (0, size):
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {found.first}-{found.end - 1}/{size}"
        place = Slice(whole.first + found.first, whole.first + found.end)
        return PacedResponse(opened.fd, place, parts.transfers, status, headers, stamps)
    except BaseException:
        os.close(opened.fd)
        raise


def _open(parts: Parts, asked: Asked) -> OpenClip:
    try:
        opened = parts.recordings.open(asked.clip, asked.stream)
    except OSError as exc:
        detail = f"the disk of clip {asked.clip} does not answer: {exc.strerror}"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "10"}) from None
    if opened is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"no finished clip {asked.clip} of stream {asked.stream} on this node")
    if asked.within is not None and not asked.within.covers(asked.clip.start_ns, opened.stored.end_ns):
        os.close(opened.fd)
        raise Problem(HTTPStatus.FORBIDDEN, "the link is for another time")
    return opened


def _bounds(opened: OpenClip, part: Part) -> tuple[Slice, Stamps]:
    """Which bytes of the file a part is, and what in them is sent differently.

    Raises:
        Problem: the file cannot be taken apart.
    """
    if part == "whole":
        return Slice(0, opened.size), ()
    try:
        layout = layout_of(opened.fd, opened.stored.clip.start_ns)
    except (BadMedia, OSError) as exc:
        raise Problem(HTTPStatus.INTERNAL_SERVER_ERROR, f"clip {opened.stored.clip}: {exc}") from None
    return (Slice(0, layout.head), ()) if part == "init" else (Slice(layout.head, layout.end), layout.stamps)


def _etag(opened: OpenClip, part: Part) -> str:
    clip = opened.stored.clip
    return f'"{clip.epoch}-{clip.start_ns}-{opened.size}-{opened.changed_ns}-{part}"'
