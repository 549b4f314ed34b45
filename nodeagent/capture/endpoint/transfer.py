"""Sends bytes of an open clip: in small pieces, at a bounded rate, a bounded number at a time.

Recording comes first, so all transfers together are paced by one bucket, and whoever reads too slowly is let go of.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from anyio import to_thread
from starlette.responses import Response

from nodeagent.capture.endpoint.buckets import Bucket
from nodeagent.capture.endpoint.byte_ranges import Slice
from nodeagent.capture.endpoint.fragmented import patched
from nodeagent.infra.clock import Clock

#: Bytes that are read and sent at a time: a quarter of a second of an 8 Mbit/s camera.
CHUNK = 1 << 18
#: Seconds that a client has to take a piece; it is let go of after that.
SEND_PATIENCE_S = 30.0
#: Seconds of the full rate that may be sent at once after a pause.
BURST_S = 0.25

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Stamps = tuple[tuple[int, bytes], ...]


class Transfers:
    """The transfers that run; used by the event loop's thread alone."""

    def __init__(self, most: int, bytes_per_s: float, clock: Clock) -> None:
        self._most = most
        self._clock = clock
        self._bucket = Bucket(bytes_per_s, max(CHUNK, bytes_per_s * BURST_S), CHUNK, clock.monotonic_s())
        self.running = 0

    def begin(self) -> bool:
        """Take a place; False when there is none."""
        if self.running >= self._most:
            return False
        self.running += 1
        return True

    def end(self) -> None:
        """Give the place back."""
        self.running -= 1

    async def pace(self, size: int) -> None:
        """Wait until so many bytes may be sent."""
        wait_s = self._bucket.lend(size, self._clock.monotonic_s())
        if wait_s > 0:
            await asyncio.sleep(wait_s)


class PacedResponse(Response):
    """Part of an open file.  It owns the descriptor and its place among the transfers, and gives both back."""

    def __init__(
        self, fd: int, part: Slice, transfers: Transfers, status: int, headers: Mapping[str, str], stamps: Stamps = ()
    ) -> None:
        super().__init__(status_code=status, headers=dict(headers) | {"Content-Length": str(part.end - part.first)})
        self._fd = fd
        self._part = part
        self._transfers = transfers
        self._stamps = stamps

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Send it; a client that goes away ends it early."""
        gone = asyncio.Event()
        watch = asyncio.ensure_future(_until_gone(receive, gone))
        try:
            await _send(send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                await self._send_part(send, gone)
            if not gone.is_set():
                await _send(send, {"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watch.cancel()
            self._transfers.end()
            os.close(self._fd)

    async def _send_part(self, send: Send, gone: asyncio.Event) -> None:
        at = self._part.first
        while at < self._part.end and not gone.is_set():
            size = min(CHUNK, self._part.end - at)
            await self._transfers.pace(size)
            try:
                data = await to_thread.run_sync(os.pread, self._fd, size, at)
            except OSError as exc:
                raise ConnectionAbortedError(f"the disk does not answer: {exc.strerror}") from None
            if not data:
                raise ConnectionAbortedError("the file is shorter than it was")
            body = patched(data, at, self._stamps)
            await _send(send, {"type": "http.response.body", "body": body, "more_body": True})
            at += len(data)


async def _send(send: Send, message: MutableMapping[str, Any]) -> None:
    """Hand on one message, once what was sent before is taken: also the last one waits for that.

    Raises:
        ConnectionAbortedError: it is not.
    """
    try:
        await asyncio.wait_for(send(message), SEND_PATIENCE_S)
    except TimeoutError:
        raise ConnectionAbortedError(f"took nothing for {SEND_PATIENCE_S:.0f} s") from None


async def _until_gone(receive: Receive, gone: asyncio.Event) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            gone.set()
            return
