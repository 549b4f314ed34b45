"""A camera that sends the bytes of a broken file as they are, over HTTP, at the pace of its video, again and again."""

from __future__ import annotations

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

#: Bytes that are sent at a time: ten packets of MPEG-TS.
_PIECE = 1880


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_args: object) -> None:
        pass

    def do_GET(self) -> None:
        path, seconds = self.server.files[self.path.strip("/")]
        body = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        began_s, sent = time.monotonic(), 0
        with contextlib.suppress(OSError):
            while True:
                at = sent % len(body)
                piece = body[at : at + _PIECE]
                self.wfile.write(piece)
                sent += len(piece)
                time.sleep(max(0.0, sent * seconds / len(body) - (time.monotonic() - began_s)))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, files: dict[str, tuple[Path, float]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class RawCameras:
    """Serves files of MPEG-TS by name; each with how many seconds of video it is."""

    def __init__(self, files: dict[str, tuple[Path, float]]) -> None:
        self._server = _Server(files)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def url(self, name: str) -> str:
        """Where a client finds it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}"

    def __enter__(self) -> RawCameras:
        self._thread.start()
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
