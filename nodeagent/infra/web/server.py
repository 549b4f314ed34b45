"""A web server in a thread of its own, so that its process beats and drains whatever clients do.

Who is connected and asks nothing, or takes no answer, makes room for others: uvicorn itself waits for ever.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from nodeagent.infra.clock import Clock
from nodeagent.infra.web.certificates import KeyPair

log = logging.getLogger(__name__)

#: Seconds between two signs of life of the event loop.
PULSE_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a server puts up with.

    Attributes:
        connections: at a time; further ones are told that the server is busy.
        silent_s: seconds that a connection has for its next request.
        silent_most: connections that may wait for their next request; of more, those that wait longest make room.
        take_s: seconds that a client has to take what is sent.
        drain_s: seconds that running requests have after `stop`.
    """

    connections: int
    silent_s: float
    silent_most: int
    take_s: float
    drain_s: int


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """A socket that listens; `backlog` connections may wait to be taken.

    Raises:
        OSError: the port is taken, or the address is none of this machine.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.create_server(address[:2], family=family, backlog=backlog)
    # Connections inherit it; asyncio sets it only where it made the socket itself.  Else the second half of an answer
    # waits for the client to confirm the first, which takes 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


class Server:
    """Serves one socket.

    Attributes:
        alive_s: monotonic time at which the event loop last ran.
        failed: it ended by an error.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        clock: Clock,
        tls: KeyPair | None = None,
        behind: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        """With a key pair, which `pair_fault` found good, HTTPS is spoken, and nothing else.

        `behind`: runs in the server's event loop as long as it serves.
        """
        # What it would log is logged by the application, without anything that may be a secret.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="critical",
                access_log=False,
                lifespan="off",
                ws="none",
                loop="asyncio",
                http="h11",
                proxy_headers=False,
                server_header=False,
                limit_concurrency=limits.connections,
                timeout_keep_alive=math.ceil(limits.silent_s),
                timeout_graceful_shutdown=limits.drain_s,
                ssl_certfile=tls.certificate if tls else None,
                ssl_keyfile=tls.key if tls else None,
            )
        )
        self._limits = limits
        self._clock = clock
        self._behind = (self._pulse, *behind)
        self._thread: threading.Thread | None = None
        #: Connections without a request in work: their last request, and since when, monotonic seconds.
        self._silent: dict[Any, tuple[object, float]] = {}
        #: Connections with bytes that the client does not take: how many were left at the least, and since when.
        self._stuck: dict[Any, tuple[int, float]] = {}
        self.alive_s = clock.monotonic_s()
        self.failed = False

    def start(self, listening: socket.socket) -> None:
        """Serve from now on; the socket is the server's."""
        # A daemon: a request that hangs in a dead disk or a database must not keep the process.
        self._thread = threading.Thread(target=self._run, args=(listening,), name="server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests, and end when the running ones are done or their time is over."""
        self._server.should_exit = True

    def join(self, timeout_s: float) -> None:
        """Wait for its end, so long at most."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    @property
    def running(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self, listening: socket.socket) -> None:
        try:
            asyncio.run(self._serve(listening))
        except Exception:
            # The process ends and is started again.
            log.exception("the web server failed", extra={"event": "server_failed"})
            self.failed = True

    async def _serve(self, listening: socket.socket) -> None:
        behind = [asyncio.ensure_future(each()) for each in self._behind]
        try:
            await self._server.serve([listening])
        finally:
            for task in behind:
                task.cancel()

    async def _pulse(self) -> None:
        while True:
            self.alive_s = self._clock.monotonic_s()
            self._let_go_of_silent(self.alive_s)
            self._cut_off_stuck(self.alive_s)
            await asyncio.sleep(PULSE_S)

    def _let_go_of_silent(self, now_s: float) -> None:
        """Close connections whose next request does not come, or not to its end."""
        last = {each: getattr(each, "cycle", None) for each in self._server.server_state.connections}
        silent = {each: cycle for each, cycle in last.items() if cycle is None or cycle.response_complete}
        # A busy client is between two requests whenever one looks: the last one tells whether there was another since.
        kept = {each: self._silent.get(each, (cycle, now_s)) for each, cycle in silent.items()}
        self._silent = {each: mark if mark[0] is silent[each] else (silent[each], now_s) for each, mark in kept.items()}
        longest_first = sorted(self._silent, key=lambda each: self._silent[each][1])
        for number, each in enumerate(longest_first):
            since_s = self._silent[each][1]
            if now_s - since_s > self._limits.silent_s or len(longest_first) - number > self._limits.silent_most:
                each.transport.close()

    def _cut_off_stuck(self, now_s: float) -> None:
        """Cut connections whose client takes nothing: closing one would wait for that, perhaps for ever."""
        left = {each: each.transport.get_write_buffer_size() for each in self._server.server_state.connections}
        marks = {each: self._stuck.get(each, (size, now_s)) for each, size in left.items() if size}
        self._stuck = {each: mark if left[each] >= mark[0] else (left[each], now_s) for each, mark in marks.items()}
        for each, (_, since_s) in self._stuck.items():
            if now_s - since_s > self._limits.take_s:
                each.transport.abort()
