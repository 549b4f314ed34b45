"""Puts the endpoint's routes together, behind its gate."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from nodeagent.capture.endpoint import problems, routes_lists, routes_video
from nodeagent.capture.endpoint.access import Doorkeeper
from nodeagent.capture.endpoint.gate import Gate, Tally
from nodeagent.capture.endpoint.growing import Growing
from nodeagent.capture.endpoint.parts import Parts
from nodeagent.capture.endpoint.recordings import Recordings
from nodeagent.capture.endpoint.transfer import Transfers
from nodeagent.infra.clock import Clock
from nodeagent.infra.settings.endpoint import EndpointSettings
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.storage import follow_storage
from nodeagent.infra.wanted import WantedFile
from nodeagent.infra.web.problems import Problem


def make_parts(settings: Settings, endpoint: EndpointSettings, wanted: WantedFile, clock: Clock) -> Parts:
    """The real parts of this configuration."""
    return Parts(
        node_id=settings.node.node_id,
        clip_s=settings.capture.clip_s,
        recordings=Recordings(follow_storage(settings), settings.node.state_dir, wanted),
        doorkeeper=Doorkeeper(endpoint.tokens),
        transfers=Transfers(endpoint.transfers, endpoint.mbytes_per_s * 1e6, clock),
        playlists=Transfers(endpoint.transfers, endpoint.mbytes_per_s * 1e6, clock),
        growing=Growing(),
        clock=clock,
    )


def make_app(parts: Parts, requests_per_s: float, tally: Tally) -> Gate:
    """The ASGI application."""
    # Without the pages that FastAPI would make: they need no token, and load scripts from elsewhere.  An address with a
    # slash too many is none: a redirect would go to whatever host the request names.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.parts = parts
    app.add_exception_handler(Problem, problems.on_problem)
    app.add_exception_handler(RequestValidationError, problems.on_invalid)
    app.add_exception_handler(HTTPException, problems.on_http)
    app.include_router(routes_lists.router)
    app.include_router(routes_video.router)
    return Gate(app, parts.doorkeeper, requests_per_s, tally, parts.clock)
