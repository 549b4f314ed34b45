"""What the routes share: the registry's parts, who asks and whether he may."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final

from anyio import CapacityLimiter
from fastapi import Depends, Path, Request, Response
from sqlalchemy import Engine

from nodeagent.contract.ids import ID_PATTERN, CameraId, ModelName, NodeId, RuleId
from nodeagent.infra.clock import Clock
from nodeagent.infra.web.problems import Problem, stranger
from registry.http.access import Doorkeeper
from registry.http.gate import CALLER, Told
from registry.http.ports import Core
from registry.secrets import Vault
from registry.store.algorithms import Algorithms
from registry.store.assignments import Assignments
from registry.store.camera_writes import Writer
from registry.store.cameras import Cameras
from registry.store.tokens import Tokens
from registry.tokens import ROLE_DEEDS, Bearer, Deed, Role

#: Prefix of every route of this version.
PREFIX: Final = "/api/v1"
#: Questions of agents that are answered at a time, besides their reports.
AGENTS_MOST: Final = 16
#: Content type of every answer that is no error.
JSON: Final = "application/json"
#: Answers are not kept by caches on the way: what a token showed is not for others.
PRIVATE: Mapping[str, str] = {"Cache-Control": "private, no-store"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts.

    Attributes:
        told: what is not logged again for a while.
        for_agents: threads for what agents ask.
    """

    core: Core
    engine: Engine
    cameras: Cameras
    algorithms: Algorithms
    assignments: Assignments
    tokens: Tokens
    doorkeeper: Doorkeeper
    told: Told
    for_agents: CapacityLimiter
    clock: Clock

    def writer(self, bearer: Bearer) -> Writer:
        """Who changes something, and when."""
        return Writer(by=bearer.name, now_ns=self.clock.wall_ns())


def make_parts(core: Core, engine: Engine, vault: Vault, clock: Clock) -> Parts:
    """The parts around one core and one database."""
    tokens = Tokens(engine)
    return Parts(
        core=core,
        engine=engine,
        cameras=Cameras(engine, vault),
        algorithms=Algorithms(engine),
        assignments=Assignments(engine),
        tokens=tokens,
        doorkeeper=Doorkeeper(tokens, clock),
        told=Told(clock),
        for_agents=CapacityLimiter(AGENTS_MOST),
        clock=clock,
    )


# What FastAPI calls before a route is `async`, as it waits for nothing: else it would take one of the few threads, and
# all of them may hang in a database.
async def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


async def private(response: Response) -> None:
    """Nobody on the way keeps what a token showed."""
    response.headers.update(PRIVATE)


def least_role(deed: Deed) -> Role | None:
    """The role from which on people may do this; None: only nodes may."""
    return next((role for role in Role if deed in ROLE_DEEDS[role]), None)


class Allowed:
    """A dependency of a route: the caller, who may do this.

    Attributes:
        deed: what the route does; a node's deed is done in the name of the node in the path.
    """

    def __init__(self, deed: Deed) -> None:
        self.deed = deed

    async def __call__(self, request: Request) -> Bearer:
        """Let him in.

        Raises:
            Problem: he shows no token, or may not.
        """
        bearer: Bearer | None = request.scope[CALLER]
        node_id = request.path_params.get("node_id")
        if bearer is None:
            raise stranger()
        if not bearer.may(self.deed, node_id):
            raise Problem(HTTPStatus.FORBIDDEN, self._why_not(bearer, node_id))
        return bearer

    def _why_not(self, bearer: Bearer, node_id: str | None) -> str:
        role = least_role(self.deed)
        if role is None:
            whose = f"of node {bearer.node_id}" if bearer.node_id is not None else "of a person"
            return f"this is for the token of {_named(node_id)} only, and yours is that {whose}"
        mine = f"of node {bearer.node_id}" if bearer.role is None else f"of a {bearer.role.value}"
        return f"this needs the role {role.value}, and your token is that {mine}"


def _named(node_id: str | None) -> str:
    """A node as the address names it, which was not checked yet."""
    return f"node {node_id}" if node_id is not None and re.fullmatch(ID_PATTERN, node_id) else "the node"


class AnyCaller:
    """A dependency of a route that is for whoever shows a good token, people and nodes."""

    async def __call__(self, request: Request) -> Bearer:
        """Let him in.

        Raises:
            Problem: he shows no token.
        """
        bearer: Bearer | None = request.scope[CALLER]
        if bearer is None:
            raise stranger()
        return bearer


PartsHere = Annotated[Parts, Depends(_parts)]
Reader = Annotated[Bearer, Depends(Allowed(Deed.READ))]
CameraPath = Annotated[CameraId, Path()]
NodePath = Annotated[NodeId, Path()]
RulePath = Annotated[RuleId, Path()]
AlgorithmPath = Annotated[ModelName, Path()]
