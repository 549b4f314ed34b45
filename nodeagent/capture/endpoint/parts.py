"""What the routes share: the endpoint's parts, and what they read of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Path, Query, Request
from pydantic import BeforeValidator

from nodeagent.capture.endpoint.access import Doorkeeper, Scope, Ticket
from nodeagent.capture.endpoint.gate import CALLER, LINK
from nodeagent.capture.endpoint.growing import Growing
from nodeagent.capture.endpoint.moments import parse_moment
from nodeagent.capture.endpoint.problems import bad_request
from nodeagent.capture.endpoint.recordings import Recordings
from nodeagent.capture.endpoint.transfer import Transfers
from nodeagent.contract.clip import StreamName
from nodeagent.contract.ids import NS_PER_S, CameraId, Epoch, ModelName, UtcNs
from nodeagent.infra.clock import Clock
from nodeagent.infra.spans import Span
from nodeagent.infra.web.problems import Problem, stranger

#: Longest time range of a request, ns: a year.
LONGEST_NS = 366 * 24 * 3600 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Parts:
    """The endpoint's parts.

    Attributes:
        node_id: this node.
        clip_s: length that clips aim at, seconds.
        transfers: of clips.
        playlists: of playlists: one of a day has megabytes, and so many are in memory at most.
    """

    node_id: str
    clip_s: float
    recordings: Recordings
    doorkeeper: Doorkeeper
    transfers: Transfers
    playlists: Transfers
    growing: Growing
    clock: Clock


# What FastAPI calls before a route is `async`, as it asks no disk: else it would wait for one of the few threads, and
# all of them may hang in a disk.
async def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


async def _caller(request: Request) -> str:
    """Name of the token that asks.

    Raises:
        Problem: none was shown.
    """
    caller: str | None = request.scope[CALLER]
    if caller is None:
        raise stranger()
    return caller


PartsHere = Annotated[Parts, Depends(_parts)]
Caller = Annotated[str, Depends(_caller)]
Moment = Annotated[int, BeforeValidator(parse_moment)]
CameraPath = Annotated[CameraId, Path()]
EpochPath = Annotated[Epoch, Path()]
StartPath = Annotated[UtcNs, Path()]
FromQuery = Annotated[Moment | None, Query(alias="from")]
ToQuery = Annotated[Moment | None, Query(alias="to")]
StreamQuery = Annotated[StreamName, Query()]


async def _ticket(
    key: Annotated[ModelName | None, Query()] = None,
    expires: Annotated[int | None, Query(ge=0, lt=2**33)] = None,
    signature: Annotated[str | None, Query()] = None,
) -> Ticket | None:
    """The ticket in an address, if there is one."""
    if key is None or expires is None or signature is None:
        return None
    return Ticket(key, expires, signature)


TicketQuery = Annotated[Ticket | None, Depends(_ticket)]


def span_of(from_ns: int | None, to_ns: int | None) -> Span:
    """A range with both ends.

    Raises:
        Problem: one is missing, or they are no range.
    """
    if from_ns is None or to_ns is None:
        raise bad_request("from" if from_ns is None else "to", "required, but missing")
    if not from_ns < to_ns <= from_ns + LONGEST_NS:
        raise bad_request("to", "expected a time after `from`, at most 366 days")
    return Span(from_ns, to_ns)


async def _span(from_ns: FromQuery = None, to_ns: ToQuery = None) -> Span:
    return span_of(from_ns, to_ns)


SpanQuery = Annotated[Span, Depends(_span)]


def admit(request: Request, parts: Parts, ticket: Ticket | None, scope: Scope | None) -> None:
    """Let in who shows a token, or a ticket for this scope.

    Raises:
        Problem: neither.
    """
    if request.scope[CALLER] is not None:
        return
    if ticket is None or scope is None:
        raise stranger()
    why = parts.doorkeeper.admits(ticket, scope, parts.clock.wall_ns())
    if why:
        raise Problem(HTTPStatus.FORBIDDEN, why)
    request.scope[LINK] = ticket.key


def camera_here(parts: Parts, camera_id: str) -> None:
    """Tell a camera that is not known here from one without clips.

    Raises:
        Problem: it is not known.
    """
    if camera_id not in parts.recordings.cameras():
        raise Problem(HTTPStatus.NOT_FOUND, f"no camera {camera_id} on this node")


#: Answers are not kept by caches on the way: what a token showed is not for others.
PRIVATE: Mapping[str, str] = {"Cache-Control": "private, no-store"}
