"""Puts the routes together, behind their gate."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse

from nodeagent import __version__
from nodeagent.contract.errors import AgentError
from registry.http import (
    problems,
    routes_agents,
    routes_cameras,
    routes_health,
    routes_nodes,
    routes_places,
    routes_probe,
    routes_rules,
    routes_tokens,
)
from registry.http.docs_page import page
from registry.http.gate import Gate
from registry.http.openapi import document
from registry.http.parts import Parts
from registry.http.reports import Reports, described

#: All routes, in the order in which they are tried and shown.
ROUTERS = (
    routes_cameras.router,
    routes_probe.router,
    routes_rules.router,
    routes_places.router,
    routes_nodes.router,
    routes_tokens.router,
    routes_health.router,
    routes_agents.router,
)
#: What a browser may do with the page of `/docs`: nothing but show it.
_STILL = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


_pages = APIRouter(include_in_schema=False)


# Made when somebody first asks: it takes a second, which a registry that has to lead does not have.
@cache
def _described() -> dict[str, Any]:
    return document((*ROUTERS, described), __version__)


@cache
def _shown() -> str:
    return page(_described())


@_pages.get("/openapi.json")
def _openapi() -> JSONResponse:
    return JSONResponse(_described())


@_pages.get("/docs")
def _docs() -> HTMLResponse:
    return HTMLResponse(_shown(), headers=_STILL)


def make_app(parts: Parts) -> Gate:
    """The ASGI application."""
    # An address with a slash too many is none: a redirect would go to whatever host the request names.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.parts = parts
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(AgentError, problems.on_error)
    app.add_exception_handler(RequestValidationError, problems.on_invalid)
    app.add_exception_handler(Exception, problems.on_failure)
    app.add_exception_handler(HTTPException, problems.on_http)
    app.include_router(_pages)
    return Gate(Reports(app), parts.doorkeeper, parts.clock)
