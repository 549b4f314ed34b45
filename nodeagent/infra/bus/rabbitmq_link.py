"""One AMQP connection in a thread of its own, made anew for ever.

The thread does nothing but serve the connection, so heartbeats go out while work runs.  Everything that touches the
connection or a channel is a job that this thread runs (`submit`); everything else may come from any thread.

The URL holds a password: it is neither logged nor kept where a message could show it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pika
from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.exceptions import AMQPError

from nodeagent.contract.errors import ConfigError, Fault, Unavailable
from nodeagent.infra.bus import rabbitmq_headers
from nodeagent.infra.bus.backoff import Backoff

log = logging.getLogger(__name__)
# The library logs every failed attempt several times over, at error; one line per change is ours.
logging.getLogger("pika").setLevel(logging.CRITICAL)
rabbitmq_headers.be_tolerant()

#: Seconds that connecting a socket, and then the whole handshake, may take.
SOCKET_TIMEOUT_S = 3.0
HANDSHAKE_TIMEOUT_S = 6.0
#: Seconds that a broker has to answer a close before the socket is simply dropped.
CLOSE_S = 1.0

Job = Callable[[Any], None]
#: Told why a job will never be run.
Lost = Callable[[str], None]


def _nobody(_why: str) -> None:
    """For a job that nobody waits for."""


def parameters(url: str, heartbeat_s: int, name: str) -> pika.URLParameters:
    """Connection parameters; `name` is what the broker's lists show.

    Raises:
        ConfigError: that is no AMQP URL.
    """
    try:
        made = pika.URLParameters(url)
    except (ValueError, TypeError, IndexError):
        # The library's message may quote parts of the URL.
        raise ConfigError([Fault("bus.url", "expected amqp://user:password@host:5672/vhost")]) from None
    made.heartbeat = heartbeat_s
    made.socket_timeout = SOCKET_TIMEOUT_S
    made.stack_timeout = HANDSHAKE_TIMEOUT_S
    made.connection_attempts = 1
    made.client_properties = {"connection_name": f"{name} {os.getpid()}"}
    return made


class Link:
    """The connection.

    `on_up(connection)` and `on_down(why)` are called in the connection's thread at each change, `on_blocked(why)` when
    the broker stops taking messages (its memory or disk is short).
    """

    def __init__(
        self,
        params: pika.URLParameters,
        on_up: Callable[[Any], None],
        on_down: Callable[[str], None],
        on_blocked: Callable[[str], None],
    ) -> None:
        self._params = params
        self._on_up, self._on_down, self._on_blocked = on_up, on_down, on_blocked
        self._lock = threading.Lock()
        self._loop: Any = None
        self._connection: Any = None
        #: Jobs that the thread has not come to yet: the library's loop forgets what it was given when it ends.
        self._jobs: deque[tuple[Job, Lost]] = deque()
        self._why = "not connected yet"
        self._told_down = False
        self._tried = threading.Event()
        self._closing = threading.Event()
        self._backoff = Backoff()
        self._thread = threading.Thread(target=self._run, name="bus-rabbitmq", daemon=True)
        #: What the broker said about itself at the last connect: version, product, ...
        self.server: dict[str, Any] = {}
        #: Why the broker takes no messages at the moment; empty when it does.
        self.blocked = ""

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._connection is not None

    def submit(self, job: Job, lost: Lost = _nobody) -> Any:
        """Have the connection's thread call `job(connection)`, or `lost(why)` when the connection ends before.

        Waits for the end of the very first attempt to connect.  Returns the connection.

        Raises:
            Unavailable: there is no connection.
        """
        if not self._tried.is_set():
            self._tried.wait(SOCKET_TIMEOUT_S + HANDSHAKE_TIMEOUT_S)
        with self._lock:
            if self._connection is None:
                raise Unavailable(f"rabbitmq: {self._why}")
            connection = self._connection
            self._jobs.append((job, lost))
            self._loop.add_callback_threadsafe(lambda: self._work(connection))
            return connection

    def reopen(self, why: str, connection: Any) -> None:
        """Give this connection up and make a new one; harmless when that was done meanwhile."""

        def leave(current: Any) -> None:
            if current is connection:
                self._leave(current, why)

        with contextlib.suppress(Unavailable):
            self.submit(leave)

    def close(self) -> None:
        """End the connection and the thread; what was submitted before is done first."""
        self._closing.set()
        with self._lock:
            if self._loop is not None:
                self._loop.add_callback_threadsafe(lambda: self._leave(self._current, "closed"))
        if self._thread.is_alive():
            self._thread.join(CLOSE_S + HANDSHAKE_TIMEOUT_S)

    # --- in the connection's thread

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._serve()
            except Exception:
                log.exception("rabbitmq link failed; goes on", extra={"event": "bus_error"})
            self._down()
            self._tried.set()
            self._closing.wait(self._backoff.next_s())

    def _serve(self) -> None:
        """One connection, from dialling to its loss."""
        loop = IOLoop()
        self._current = SelectConnection(
            self._params,
            on_open_callback=self._opened,
            on_open_error_callback=self._lost,
            on_close_callback=self._lost,
            custom_ioloop=loop,
        )
        with self._lock:
            self._loop = loop
        try:
            if not self._closing.is_set():
                loop.start()
        finally:
            with self._lock:
                self._loop = self._connection = None
            # Without a connection nothing is added: these are the last.
            while self._jobs:
                _, lost = self._jobs.popleft()
                lost(self._why)
            self._drop(loop)

    def _drop(self, loop: Any) -> None:
        """Close the loop, and the socket if a peer that never answered our close still holds it."""
        try:
            # The library has no public way to drop it, and does it in the loop's next turn, of which there is none.
            transport = getattr(self._current, "_transport", None)
            if transport is not None:
                transport.abort()
                loop.process_timeouts()
        finally:
            loop.close()

    def _work(self, connection: Any) -> None:
        if self._jobs:
            job, _ = self._jobs.popleft()
            job(connection)

    def _opened(self, connection: Any) -> None:
        self.server = dict(connection.server_properties or {})
        self.blocked = ""
        connection.add_on_connection_blocked_callback(lambda _, frame: self._block(frame.method.reason))
        connection.add_on_connection_unblocked_callback(lambda _, __: self._unblock())
        self._backoff.reset()
        self._told_down = False
        with self._lock:
            self._connection = connection
        self._on_up(connection)
        self._tried.set()
        log.info("bus: rabbitmq %s connected", self.server.get("version", "?"), extra={"event": "bus_up"})

    def _lost(self, _connection: Any, error: BaseException | str) -> None:
        self._why = _reason(error)
        self._current.ioloop.stop()

    def _down(self) -> None:
        self.blocked = ""
        self._on_down(self._why)
        if not self._told_down and not self._closing.is_set():
            self._told_down = True
            log.warning("bus: rabbitmq is away: %s", self._why, extra={"event": "bus_down"})

    def _leave(self, connection: Any, why: str) -> None:
        self._why = why
        with contextlib.suppress(AMQPError):
            connection.close(320, why)
        loop = connection.ioloop
        loop.call_later(CLOSE_S, loop.stop)

    def _block(self, reason: object) -> None:
        self.blocked = str(reason) or "blocked"
        log.warning("bus: rabbitmq takes no messages: %s", self.blocked, extra={"event": "bus_blocked"})
        self._on_blocked(self.blocked)

    def _unblock(self) -> None:
        self.blocked = ""
        log.info("bus: rabbitmq takes messages again", extra={"event": "bus_unblocked"})


def _reason(error: BaseException | str) -> str:
    """The innermost cause of what the library reports, which nests errors in errors."""
    seen: Any = error
    while True:
        inner = getattr(seen, "exception", None) or (getattr(seen, "exceptions", None) or [None])[-1]
        if inner is None or inner is seen:
            return f"{type(seen).__name__}: {seen}" if isinstance(seen, BaseException) else str(seen)
        seen = inner
