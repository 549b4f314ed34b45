"""The web server, in a thread of its own, so that the worker's loop beats and drains as any other worker's does."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import Any

import uvicorn

from nodeagent.capture.endpoint.gate import Gate
from nodeagent.capture.endpoint.transfer import SEND_PATIENCE_S
from nodeagent.infra.clock import Clock
from nodeagent.infra.settings.endpoint import EndpointSettings

log = logging.getLogger(__name__)

#: Seconds between two signs of life of the event loop.
PULSE_S = 0.5
#: Connections at a time; further ones are told that the server is busy.
CONNECTIONS_MAX = 512
#: Seconds that a connection has for its next request; after that it makes room for others.
SILENT_S = 10.0
#: Connections at a time that may wait for their next request; of more, those that wait longest make room at once.
SILENT_MAX = CONNECTIONS_MAX // 2


class Server:
    """Serves one socket.

    Attributes:
        alive_s: monotonic time at which the event loop last ran.
        failed: it ended by an error.
    """

    def __init__(self, app: Gate, settings: EndpointSettings, drain_s: int, clock: Clock) -> None:
        """`drain_s`: seconds that running requests have after `stop`."""
        # What it would log is logged by the gate, without anything that may be a secret.
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
                limit_concurrency=CONNECTIONS_MAX,
                timeout_graceful_shutdown=drain_s,
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
            )
        )
        self._clock = clock
        self._thread: threading.Thread | None = None
        #: Connections without a request in work, and since when, monotonic seconds.
        self._silent: dict[Any, tuple[object, float]] = {}
        #: Connections with bytes that the client does not take: how many were left at the least, and since when.
        self._stuck: dict[Any, tuple[int, float]] = {}
        self.alive_s = clock.monotonic_s()
        self.failed = False

    def start(self, listening: socket.socket) -> None:
        """Serve from now on; the socket is the server's."""
        # A daemon: a request that hangs in a dead disk must not keep the process.
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
            # The worker ends and is started again.
            log.exception("clip endpoint failed", extra={"event": "endpoint_failed"})
            self.failed = True

    async def _serve(self, listening: socket.socket) -> None:
        pulse = asyncio.ensure_future(self._pulse())
        try:
            await self._server.serve([listening])
        finally:
            pulse.cancel()

    async def _pulse(self) -> None:
        while True:
            self.alive_s = self._clock.monotonic_s()
            self._let_go_of_silent(self.alive_s)
            self._cut_off_stuck(self.alive_s)
            await asyncio.sleep(PULSE_S)

    def _let_go_of_silent(self, now_s: float) -> None:
        """Close connections whose request does not come: uvicorn itself waits for ever, and has room for so many."""
        last = {each: getattr(each, "cycle", None) for each in self._server.server_state.connections}
        silent = {each: cycle for each, cycle in last.items() if cycle is None or cycle.response_complete}
        # A busy client is between two requests whenever one looks: the last one tells whether there was another since.
        kept = {each: self._silent.get(each, (cycle, now_s)) for each, cycle in silent.items()}
        self._silent = {each: mark if mark[0] is silent[each] else (silent[each], now_s) for each, mark in kept.items()}
        longest_first = sorted(self._silent, key=lambda each: self._silent[each][1])
        for number, each in enumerate(longest_first):
            since_s = self._silent[each][1]
            if now_s - since_s > SILENT_S or len(longest_first) - number > SILENT_MAX:
                each.transport.close()

    def _cut_off_stuck(self, now_s: float) -> None:
        """Cut connections whose client takes nothing: closing one would wait for that, perhaps for ever."""
        left = {each: each.transport.get_write_buffer_size() for each in self._server.server_state.connections}
        marks = {each: self._stuck.get(each, (size, now_s)) for each, size in left.items() if size}
        self._stuck = {each: mark if left[each] >= mark[0] else (left[each], now_s) for each, mark in marks.items()}
        for each, (_, since_s) in self._stuck.items():
            if now_s - since_s > SEND_PATIENCE_S:
                each.transport.abort()
