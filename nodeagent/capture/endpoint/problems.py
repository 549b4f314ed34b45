"""Answers that say what is wrong: `application/problem+json` (RFC 9457), with the field and what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException

from nodeagent.contract.clip import ClipTask
from nodeagent.contract.errors import AgentError, Fault
from nodeagent.infra.settings.faults import faults_of

#: Content type of every error.
MEDIA_TYPE = "application/problem+json"


class Problem(AgentError):
    """An answer other than the one that was asked for."""

    def __init__(
        self, status: HTTPStatus, detail: str, faults: Iterable[Fault] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})


def bad_request(field: str, expected: str) -> Problem:
    """One field of a request is wrong."""
    return Problem(HTTPStatus.BAD_REQUEST, "the request is not understood", [Fault(field, expected)])


def answer_of(problem: Problem) -> JSONResponse:
    """The problem as an answer."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": int(problem.status),
        "detail": problem.detail,
    }
    if problem.faults:
        body["faults"] = [{"field": f.path, "message": f.message, "value": f.value} for f in problem.faults]
    return JSONResponse(body, int(problem.status), {"Cache-Control": "no-store"} | problem.headers, MEDIA_TYPE)


async def on_problem(_request: Request, exc: Exception) -> JSONResponse:
    """Our own."""
    assert isinstance(exc, Problem)  # noqa: S101  (registered for this type only)
    return answer_of(exc)


async def on_invalid(_request: Request, exc: Exception) -> JSONResponse:
    """What the routes' types refuse: every fault with its field, as the configuration's faults are told."""
    assert isinstance(exc, RequestValidationError)  # noqa: S101  (registered for this type only)
    faults = faults_of(_in_the_request(exc.errors()), ClipTask)
    return answer_of(Problem(HTTPStatus.BAD_REQUEST, "the request is not understood", faults))


def _in_the_request(errors: Sequence[Any]) -> list[ErrorDetails]:
    """Errors whose place is the field alone: FastAPI puts `query` or `path` before it."""
    return [cast(ErrorDetails, {**error, "loc": tuple(error["loc"][1:])}) for error in errors]


async def on_http(_request: Request, exc: Exception) -> JSONResponse:
    """No such route, or no such method."""
    assert isinstance(exc, HTTPException)  # noqa: S101  (registered for this type only)
    status = HTTPStatus(exc.status_code)
    return answer_of(Problem(status, f"{status.phrase.lower()}: see docs/endpoint.md", headers=exc.headers))
