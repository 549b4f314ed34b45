"""The registry's web server: what it puts up with, and what it does between requests.

Agents keep their connections: a report a second is one request on a connection that is there.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from anyio import to_thread
from starlette.types import ASGIApp

from nodeagent.contract.errors import Unavailable
from nodeagent.infra.clock import Clock
from nodeagent.infra.web.certificates import KeyPair
from nodeagent.infra.web.server import Limits, Server
from registry.http.access import Doorkeeper

log = logging.getLogger(__name__)

#: Connections that wait to be taken: a registry that comes back hears of all nodes in one second.
BACKLOG: Final = 1024
#: Connections at a time; agents of further ones ask the next registry.
CONNECTIONS_MAX: Final = 8192
#: What it puts up with.  Agents send a request every second.
LIMITS = Limits(connections=CONNECTIONS_MAX, silent_s=15.0, silent_most=CONNECTIONS_MAX, take_s=30.0, drain_s=5)
#: Seconds between two notes of when tokens were used.
USES_S: Final = 60.0


def make_server(app: ASGIApp, doorkeeper: Doorkeeper, clock: Clock, tls: KeyPair | None = None) -> Server:
    """The server, not started; with a key pair, which was found good, HTTPS is spoken, and nothing else."""

    async def note_uses() -> None:
        while True:
            await asyncio.sleep(USES_S)
            try:
                await to_thread.run_sync(doorkeeper.write_uses)
            except Unavailable as exc:
                log.debug("use of tokens is noted later: %s", exc)
            except Exception:
                log.exception("use of tokens cannot be noted", extra={"event": "uses_failed"})

    return Server(app, LIMITS, clock, tls, (note_uses,))
