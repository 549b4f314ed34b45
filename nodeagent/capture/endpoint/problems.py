"""What the endpoint's routes and handlers say when something is wrong with a request."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Request
from fastapi.responses import JSONResponse

from nodeagent.contract.clip import ClipTask
from nodeagent.contract.errors import Fault
from nodeagent.infra.settings.faults import faults_of
from nodeagent.infra.web.problems import Problem, answer_of, errors_in, no_route


def bad_request(field: str, expected: str) -> Problem:
    """One field of a request is wrong."""
    return Problem(HTTPStatus.BAD_REQUEST, "the request is not understood", [Fault(field, expected)])


async def on_problem(_request: Request, exc: Exception) -> JSONResponse:
    """Our own."""
    assert isinstance(exc, Problem)  # noqa: S101  (registered for this type only)
    return answer_of(exc, shows_values=True)


async def on_invalid(_request: Request, exc: Exception) -> JSONResponse:
    """What the routes' types refuse: every fault with its field, as the configuration's faults are told."""
    faults = faults_of(errors_in(exc), ClipTask)
    problem = Problem(HTTPStatus.BAD_REQUEST, "the request is not understood", faults)
    return answer_of(problem, shows_values=True)


async def on_http(_request: Request, exc: Exception) -> JSONResponse:
    """No such route, or no such method."""
    return answer_of(no_route(exc, "docs/endpoint.md"))
