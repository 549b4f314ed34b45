"""Answers that say what is wrong: `application/problem+json` (RFC 9457), with the field and what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, cast

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.types import Message, Send

from nodeagent.contract.errors import AgentError, Fault

#: Content type of every error.
MEDIA_TYPE = "application/problem+json"
#: Headers of a refusal for want of a good token.
CHALLENGE: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


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


def stranger() -> Problem:
    """Nobody showed who he is."""
    return Problem(HTTPStatus.UNAUTHORIZED, "expected the header `Authorization: Bearer TOKEN`", (), CHALLENGE)


def answer_of(problem: Problem, *, shows_values: bool = False) -> JSONResponse:
    """The problem as an answer; `shows_values`: no fault's value can be a secret."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": int(problem.status),
        "detail": problem.detail,
    }
    if problem.faults:
        body["faults"] = [
            {"field": fault.path, "message": fault.message} | ({"value": fault.value} if shows_values else {})
            for fault in problem.faults
        ]
    return JSONResponse(body, int(problem.status), {"Cache-Control": "no-store"} | problem.headers, MEDIA_TYPE)


def errors_in(exc: Exception) -> list[ErrorDetails]:
    """What routes' types refuse; their place is the field alone: FastAPI puts `query` or `path` before it."""
    assert isinstance(exc, RequestValidationError)  # noqa: S101  (handlers are registered for this type only)
    return [cast(ErrorDetails, {**error, "loc": tuple(error["loc"][1:])}) for error in exc.errors()]


def no_route(exc: Exception, manual: str) -> Problem:
    """No such route, or no such method: where the `manual` is."""
    assert isinstance(exc, HTTPException)  # noqa: S101  (handlers are registered for this type only)
    status = HTTPStatus(exc.status_code)
    return Problem(status, f"{status.phrase.lower()}: see {manual}", headers=exc.headers)


class Seen:
    """A `send` that looks at what passes.

    Attributes:
        status: of the answer; 0 before it begins.
        size: bytes of its body so far.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.size = 0

    async def __call__(self, message: Message) -> None:
        """Pass it on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
        await self._send(message)
