"""A small receiver of pushes on the loopback interface: for the demo and for tests.  Not for production.

It keeps the last pushes as they came, and says of each whether its signature holds.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final

from nodeagent.alarm.payload import KEY_HEADER, SIGNATURE_HEADER, signature

#: Pushes that are kept; older ones are forgotten.
KEPT: Final = 10_000
#: Largest body that is taken, bytes.
BODY_MAX: Final = 4_000_000
#: Seconds for which a client may be silent.
SILENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class ReceivedPush:
    """One request.

    Attributes:
        received_ns: wall clock, UTC ns.
        headers: as sent.
        key: its Idempotency-Key.
        genuine: the signature holds for the receiver's secret.
        answer: what it was answered.
    """

    received_ns: int
    path: str
    headers: dict[str, str]
    body: bytes
    key: str
    genuine: bool
    answer: Answer


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request is answered.

    Attributes:
        status: HTTP status.
        delay_s: silence before the answer.
        drop: close the connection without an answer.
        body: of the answer.
        location: where a redirect leads.
    """

    status: int = 200
    delay_s: float = 0.0
    drop: bool = False
    body: bytes = b"{}"
    location: str = ""


class PushReceiver:
    """An HTTP server on a free port of 127.0.0.1, from `with` until its end."""

    def __init__(self, secret: str, port: int = 0) -> None:
        """`secret`: key of the signatures that are accepted; empty: unsigned pushes are."""
        self._secret = secret
        self._port = port
        self._pushes: deque[ReceivedPush] = deque(maxlen=KEPT)
        #: Says how the next requests are answered; called with their count so far.
        self.answer: Callable[[int], Answer] = lambda _count: Answer()
        self._closing = threading.Event()
        self._count = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where to push to."""
        return f"http://127.0.0.1:{self._port}/push"

    @property
    def pushes(self) -> list[ReceivedPush]:
        """What came, oldest first."""
        with self._lock:
            return list(self._pushes)

    @property
    def keys(self) -> list[str]:
        """Distinct keys of the pushes that were accepted with 2xx."""
        return list(dict.fromkeys(p.key for p in self.pushes if 200 <= p.answer.status < 300 and not p.answer.drop))

    def take(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Keep one request and say how to answer it; an unsigned one is answered 401."""
        expected = signature(body, self._secret) if self._secret else ""
        genuine = hmac.compare_digest(headers.get(SIGNATURE_HEADER, "").encode(), expected.encode())
        with self._lock:
            answer = self.answer(self._count) if genuine else Answer(401)
            self._count += 1
            key = headers.get(KEY_HEADER, "")
            self._pushes.append(ReceivedPush(time.time_ns(), path, headers, body, key, genuine, answer))
        return answer

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the server's end."""
        self._closing.wait(seconds)

    def __enter__(self) -> PushReceiver:
        self._server = _Server(("127.0.0.1", self._port), _Handler, self)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="push-receiver")
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], receiver: PushReceiver) -> None:
        super().__init__(address, handler)
        self.receiver = receiver

    def handle_error(self, _request: object, _address: object) -> None:
        """A client that went away is its own affair."""


class _Handler(BaseHTTPRequestHandler):
    timeout = SILENCE_S
    server: _Server

    def do_POST(self) -> None:
        """Take a push."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > BODY_MAX:
            self.send_error(413)
            return
        body = self.rfile.read(int(length))
        receiver = self.server.receiver
        answer = receiver.take(self.path, {name.title(): value for name, value in self.headers.items()}, body)
        receiver.pause(answer.delay_s)
        if answer.drop:
            self.close_connection = True
            return
        self.send_response(answer.status)
        if answer.location:
            self.send_header("Location", answer.location)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silent: whoever runs it looks at `pushes`."""
