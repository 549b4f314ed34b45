"""A TCP proxy on the loopback that a test can cut, stall and heal: the network between an agent and a server."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from types import TracebackType

from tests.support.services import free_port

#: Bytes copied at a time.
_CHUNK = 65536


class Proxy:
    """Forwards connections to a port of the loopback.

    Attributes:
        port: what clients connect to; stays the same through cuts.
        passed: bytes that went from clients to the server.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.port = free_port()
        self.passed = 0
        self._lock = threading.Lock()
        self._stalled = False
        self._cut_after: int | None = None
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._to_server: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self.heal()
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(5)
        self.cut()
        self._selector.close()

    def cut(self) -> None:
        """Drop every connection and accept none."""
        with self._lock:
            self._drop()

    def cut_after(self, count: int) -> None:
        """Drop every connection once `count` more bytes have gone to the server: in the middle of a message."""
        with self._lock:
            self._cut_after = self.passed + count

    def stall(self) -> None:
        """Forward nothing any more, but leave every connection open: a peer that hangs, or packets that get lost."""
        with self._lock:
            self._stalled = True

    def heal(self) -> None:
        """Forward and accept again."""
        with self._lock:
            self._stalled = False
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self.port))
                self._selector.register(self._listener, selectors.EVENT_READ)

    def _drop(self) -> None:
        self._cut_after = None
        for sock in [*self._pairs, *([self._listener] if self._listener else [])]:
            with contextlib.suppress(KeyError):
                self._selector.unregister(sock)
            sock.close()
        self._pairs.clear()
        self._to_server.clear()
        self._listener = None

    def _run(self) -> None:
        while not self._ended.is_set():
            ready = [key.fileobj for key, _ in self._selector.select(0.02)]
            with self._lock:
                if self._stalled:
                    self._ended.wait(0.02)
                    continue
                for sock in ready:
                    assert isinstance(sock, socket.socket)
                    self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        if sock is self._listener:
            self._accept(sock)
        elif sock in self._pairs:
            self._forward(sock)

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target_port), 2)
        except OSError:
            client.close()
            return
        for one, other in ((client, server), (server, client)):
            self._pairs[one] = other
            self._selector.register(one, selectors.EVENT_READ)
        self._to_server.add(client)

    def _forward(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(_CHUNK)
            if data and sock in self._to_server:
                data = self._counted(data)
            if data:
                self._pairs[sock].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._end(sock)
        elif self._cut_after is not None and self.passed >= self._cut_after:
            self._drop()

    def _counted(self, data: bytes) -> bytes:
        if self._cut_after is not None:
            data = data[: self._cut_after - self.passed]
        self.passed += len(data)
        return data

    def _end(self, sock: socket.socket) -> None:
        for one in (sock, self._pairs.pop(sock)):
            self._pairs.pop(one, None)
            self._to_server.discard(one)
            with contextlib.suppress(KeyError):
                self._selector.unregister(one)
            one.close()
