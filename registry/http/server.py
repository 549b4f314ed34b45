"""The web server, in a thread of its own, so that the registry's loop beats and leads whatever clients do.

Agents keep their connections: a report a second is one request on a connection that is there.  Who is connected and
asks nothing, or takes no answer, makes room for others.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from pathlib import Path
from typing import Any, Final

import uvicorn
from anyio import to_thread

from nodeagent.contract.errors import ConfigError, Fault, Unavailable
from nodeagent.infra.clock import Clock
from registry.http.access import Doorkeeper
from registry.http.gate import Gate

log = logging.getLogger(__name__)

#: Seconds between two signs of life of the event loop.
PULSE_S: Final = 0.5
#: Connections at a time; further ones are told that the server is busy, and their agents ask the next registry.
CONNECTIONS_MAX: Final = 8192
#: Connections that wait to be taken: a registry that comes back hears of all nodes in one second.
BACKLOG: Final = 1024
#: Seconds that a connection has for its next request; agents send one every second.
SILENT_S: Final = 15.0
#: Seconds that a client has to take what is sent.
TAKE_S: Final = 30.0
#: Seconds that running requests have after `stop`.
DRAIN_S: Final = 5
#: Seconds between two notes of when tokens were used.
USES_S: Final = 60.0


def _check(certificate: Path, key: Path | None) -> None:
    try:
        # No password is asked for: there is nobody to give it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as exc:
        why = getattr(exc, "strerror", None) or type(exc).__name__
        fault = Fault("tls.certificate", f"it and its key cannot be used: {why}", repr(str(certificate)))
        raise ConfigError([fault]) from None


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: the port is taken, or the address is none of this machine.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
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
        self, app: Gate, doorkeeper: Doorkeeper, clock: Clock, certificate: Path | None = None, key: Path | None = None
    ) -> None:
        """With a certificate chain and its key, PEM, HTTPS is spoken, and nothing else.

        Raises:
            ConfigError: they cannot be used.
        """
        if certificate is not None:
            _check(certificate, key)
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
                proxy_headers=False,
                server_header=False,
                limit_concurrency=CONNECTIONS_MAX,
                timeout_keep_alive=round(SILENT_S),
                timeout_graceful_shutdown=DRAIN_S,
                ssl_certfile=certificate,
                ssl_keyfile=key,
            )
        )
        self._doorkeeper = doorkeeper
        self._clock = clock
        self._thread: threading.Thread | None = None
        #: Connections without a request in work: their last request, and since when, monotonic seconds.
        self._silent: dict[Any, tuple[object, float]] = {}
        #: Connections with bytes that the client does not take: how many were left at the least, and since when.
        self._stuck: dict[Any, tuple[int, float]] = {}
        self.alive_s = clock.monotonic_s()
        self.failed = False

    def start(self, listening: socket.socket) -> None:
        """Serve from now on; the socket is the server's."""
        # A daemon: a request that hangs in a database must not keep the process.
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
            log.exception("the web server failed", extra={"event": "server_failed"})
            self.failed = True

    async def _serve(self, listening: socket.socket) -> None:
        behind = [asyncio.ensure_future(self._pulse()), asyncio.ensure_future(self._note_uses())]
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

    async def _note_uses(self) -> None:
        while True:
            await asyncio.sleep(USES_S)
            try:
                await to_thread.run_sync(self._doorkeeper.write_uses)
            except Unavailable as exc:
                log.debug("use of tokens is noted later: %s", exc)
            except Exception:
                log.exception("use of tokens cannot be noted", extra={"event": "uses_failed"})

    def _let_go_of_silent(self, now_s: float) -> None:
        """Close connections whose next request does not come, or not to its end: uvicorn itself waits for ever."""
        last = {each: getattr(each, "cycle", None) for each in self._server.server_state.connections}
        silent = {each: cycle for each, cycle in last.items() if cycle is None or cycle.response_complete}
        # An agent is between two requests whenever one looks: the last one tells whether there was another meanwhile.
        kept = {each: self._silent.get(each, (cycle, now_s)) for each, cycle in silent.items()}
        self._silent = {each: mark if mark[0] is silent[each] else (silent[each], now_s) for each, mark in kept.items()}
        for each, (_, since_s) in self._silent.items():
            if now_s - since_s > SILENT_S:
                each.transport.close()

    def _cut_off_stuck(self, now_s: float) -> None:
        """Cut connections whose client takes nothing: closing one would wait for that, perhaps for ever."""
        left = {each: each.transport.get_write_buffer_size() for each in self._server.server_state.connections}
        marks = {each: self._stuck.get(each, (size, now_s)) for each, size in left.items() if size}
        self._stuck = {each: mark if left[each] >= mark[0] else (left[each], now_s) for each, mark in marks.items()}
        for each, (_, since_s) in self._stuck.items():
            if now_s - since_s > TAKE_S:
                each.transport.abort()
