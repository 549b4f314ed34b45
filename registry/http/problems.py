"""What the registry says when something is wrong, with a request or with what it needs.

The easy mistake: to show what was sent.  It may be a password, also as the name of a field or where a word was
expected, so a fault names its field and what belongs there, and never what stands there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from itertools import islice
from typing import cast

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from nodeagent.contract.errors import AgentError, Fault, Fenced, Unavailable
from nodeagent.infra.settings.faults import RULE_KINDS, faults_of
from nodeagent.infra.web.problems import Problem, answer_of, errors_in, no_route
from registry.http.ports import Contradicted
from registry.store.camera_record import CameraDraft
from registry.store.errors import Invalid, Stale, Unknown

#: Where the sentence of a problem is left for the log.
SAID = "registry.said"
#: Most faults in one answer: a list of thousands helps nobody.
FAULTS_MOST = 50
#: Seconds after which a client asks again when something is away: a leader is elected, a server back, in a few.
RETRY_S = 2
#: Where a body is wrong as a whole.
BODY = "body"
#: Names of fields that are shown; what else stands in a name's place was made up by whoever sent it.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
#: Errors that `faults_of` leaves to the check of a whole configuration, which a request does not get.
_OWN_WORDS = frozenset({"names_differ"})


def wrong(field: str, expected: str) -> Problem:
    """One field of a request is wrong."""
    return not_understood([Fault(field, expected)])


def not_understood(faults: Iterable[Fault]) -> Problem:
    """Fields of a request are wrong.  The sentence names the first one, for clients that show nothing else."""
    listed = [Fault(fault.path or BODY, fault.message) for fault in faults]
    more = ", and more" if len(listed) > 1 else ""
    detail = f"{listed[0]}{more}" if listed else "the request is not understood"
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, listed[:FAULTS_MOST])


def faults_in(errors: Iterable[ErrorDetails], root: type[BaseModel]) -> list[Fault]:
    """Faults from pydantic's errors about a body of type `root`, without anything that was sent."""
    faults = faults_of([_shown(error) for error in islice(errors, FAULTS_MOST)], root)
    return [Fault(BODY if fault.path == "the file" else fault.path, fault.message) for fault in faults]


def _shown(error: ErrorDetails) -> ErrorDetails:
    loc = error["loc"]
    if loc and loc[0] in RULE_KINDS:
        # A rule alone: pydantic puts its kind first.
        loc = loc[1:]
    shown = tuple(part if isinstance(part, int) or _NAME.fullmatch(part) else "?" for part in loc)
    kind = "value_error" if error["type"] in _OWN_WORDS else error["type"]
    return cast(ErrorDetails, {**error, "type": kind, "loc": shown, "input": None})


def problem_of(exc: AgentError, *, conditional: bool) -> Problem:
    """What an error of the store or the core means to whoever asked; `conditional`: he named the version he saw.

    Raises:
        AgentError: it is nothing that he could do something about.
    """
    match exc:
        case Problem():
            return exc
        case Unknown():
            return Problem(HTTPStatus.NOT_FOUND, str(exc))
        case Stale():
            return Problem(HTTPStatus.PRECONDITION_FAILED if conditional else HTTPStatus.CONFLICT, str(exc))
        case Invalid():
            return not_understood(exc.faults)
        case Contradicted():
            return Problem(HTTPStatus.CONFLICT, exc.detail, [Fault(exc.field, exc.detail)] if exc.field else ())
        case Unavailable() | Fenced():
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(exc), headers={"Retry-After": str(RETRY_S)})
        case _:
            raise exc


def failure() -> JSONResponse:
    """The answer when it is nobody's fault but ours."""
    return answer_of(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "failed: see the registry's log"))


async def on_failure(_request: Request, _exc: Exception) -> JSONResponse:
    """Anything else, which the gate logs."""
    return failure()


async def on_error(request: Request, exc: Exception) -> JSONResponse:
    """Errors that this project raises on purpose."""
    assert isinstance(exc, AgentError)  # noqa: S101  (registered for this type only)
    conditional = "if-match" in request.headers or "if-none-match" in request.headers
    return _told(request, problem_of(exc, conditional=conditional))


async def on_invalid(request: Request, exc: Exception) -> JSONResponse:
    """What the routes' types refuse of path, query and headers."""
    return _told(request, not_understood(faults_in(errors_in(exc), CameraDraft)))


async def on_http(request: Request, exc: Exception) -> JSONResponse:
    """No such route, or no such method."""
    return _told(request, no_route(exc, "/docs"))


def _told(request: Request, problem: Problem) -> JSONResponse:
    request.scope[SAID] = problem.detail
    return answer_of(problem)
