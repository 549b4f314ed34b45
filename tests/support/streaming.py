"""Real servers of live video for tests: HTTP with FLV, MPEG-TS, MJPEG and HLS, and RTMP.  A file is sent for ever.

The HTTP server runs in threads of the test; the RTMP server is FFmpeg's own, in a process.
"""

from __future__ import annotations

import base64
import itertools
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

import av
import imageio_ffmpeg

_MS = Fraction(1, 1000)
#: What makes a live stream of a container that else is a file.
_OPTIONS = {
    "flv": {"flvflags": "no_duration_filesize"},
    "mp4": {"movflags": "empty_moov+default_base_moof", "frag_duration": "200000"},
}
#: Between two pieces of a body, seconds: whoever looks at the first does not see the second.
_PAUSE_S = 0.5
#: Segments of HLS that the playlist shows at a time.
_WINDOW = 3


class Sink:
    """A file object that FFmpeg writes to and a client reads."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, data: bytes) -> int:
        """Pass it on."""
        self._write(bytes(data))
        return len(data)


def packets(path: Path, *, pace: bool = True, rounds: int | None = None) -> Iterator[tuple[int, av.Packet[av.Stream]]]:
    """Track and packet of a file that is repeated, stamped in ms on one line, as fast as they are shown."""
    started_s, base_ms = time.monotonic(), 0
    for _ in itertools.count() if rounds is None else range(rounds):
        end_ms = base_ms
        with av.open(str(path)) as source:
            for packet in source.demux():
                if packet.dts is None or packet.pts is None:
                    continue
                pts, dts = (round(stamp * packet.time_base / _MS) for stamp in (packet.pts, packet.dts))
                length = round((packet.duration or 0) * packet.time_base / _MS)
                if pace:
                    time.sleep(max(0.0, (base_ms + dts) / 1000 - (time.monotonic() - started_s)))
                packet.time_base, packet.pts, packet.dts = _MS, pts + base_ms, dts + base_ms
                packet.duration = length
                if packet.stream.type == "video":
                    end_ms = max(end_ms, packet.pts + length)
                yield packet.stream.index, packet
        base_ms = end_ms


def mux(path: Path, form: str, sink: Sink, *, pace: bool = True, rounds: int | None = None) -> None:
    """Send a file in this container until nobody takes it any more."""
    options = _OPTIONS.get(form, {})
    with av.open(str(path)) as source:
        out = av.open(sink, "w", format=form, options={**options, "flush_packets": "1"}, buffer_size=1 << 16)
        tracks = [out.add_stream_from_template(stream, opaque=True) for stream in source.streams]
        for index, packet in packets(path, pace=pace, rounds=rounds):
            packet.stream = tracks[index]
            out.mux_one(packet)
        out.close()


def segments(path: Path, folder: Path, seconds: int) -> list[Path]:
    """Cut a file into segments of MPEG-TS."""
    with av.open(str(path)) as source:
        options = {"hls_time": str(seconds), "hls_list_size": "0", "hls_segment_filename": f"{folder}/%03d.ts"}
        with av.open(f"{folder}/all.m3u8", "w", format="hls", options=options) as out:
            tracks = [out.add_stream_from_template(stream, opaque=True) for stream in source.streams]
            for index, packet in packets(path, pace=False, rounds=1):
                packet.stream = tracks[index]
                out.mux(packet)
    return sorted(folder.glob("*.ts"))


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_args: object) -> None:
        pass

    def do_GET(self) -> None:
        owner = self.server.owner
        owner.asked.append(self.path)
        if owner.credentials and self.headers.get("Authorization") != f"Basic {owner.credentials}":
            self._head(401, ("WWW-Authenticate", 'Basic realm="camera"'))
            return
        name = self.path.partition("?")[0].strip("/")
        try:
            self._serve(name)
        except (OSError, av.FFmpegError):
            self.close_connection = True

    def _head(self, status: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        self.end_headers()

    def _serve(self, name: str) -> None:
        owner = self.server.owner
        if name in owner.answers:
            status, headers, *pieces = owner.answers[name]
            self._head(status, *headers, ("Content-Length", str(sum(map(len, pieces)))))
            for n, piece in enumerate(pieces):
                time.sleep(_PAUSE_S if n else 0)
                self.wfile.write(piece)
        elif name in owner.files:
            path, form = owner.files[name]
            if form == "mjpeg":
                self._mjpeg(path)
            else:
                self._head(200, ("Content-Type", f"video/{form}"))
                mux(path, form, Sink(self.wfile.write))
        elif name in owner.playlists:
            self._head(200, ("Content-Type", "application/vnd.apple.mpegurl"))
            self.wfile.write(owner.playlist(name).encode())
        elif (path := owner.folder / name).is_file() and path.suffix == ".ts":
            body = path.read_bytes()
            self._head(200, ("Content-Type", "video/mp2t"), ("Content-Length", str(len(body))))
            self.wfile.write(body)
        else:
            self._head(404)

    def _mjpeg(self, path: Path) -> None:
        self._head(200, ("Content-Type", "multipart/x-mixed-replace; boundary=frame"))
        for _, packet in packets(path):
            body = bytes(packet)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body + b"\r\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: HttpCamera) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class HttpCamera:
    """A camera that speaks HTTP.

    Attributes:
        asked: paths that clients asked for.
        files: by name, a file and the form in which it is sent: `flv`, `mpegts` or `mjpeg`.
        answers: by name, what is answered as it stands: status, headers, pieces of the body with pauses between.
    """

    def __init__(self, user: str = "", password: str = "", certificate: tuple[Path, Path] | None = None) -> None:
        """`certificate`, of itself and its key, makes it speak TLS."""
        self._scheme = "https" if certificate is not None else "http"
        self.user, self.password = user, password
        self.credentials = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        self.asked: list[str] = []
        self.files: dict[str, tuple[Path, str]] = {}
        self.answers: dict[str, tuple[int, list[tuple[str, str]], *tuple[bytes, ...]]] = {}
        self.playlists: dict[str, tuple[list[Path], int]] = {}
        self._temporary = tempfile.TemporaryDirectory(prefix="http-")
        self.folder = Path(self._temporary.name)
        self._started_s = time.monotonic()
        self._server = _Server(self)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def add_hls(self, name: str, *paths: Path, seconds: int = 1) -> None:
        """Serve these files one after the other, in segments of so many seconds; each begins a discontinuity."""
        parts: list[Path] = []
        for n, path in enumerate(paths):
            folder = self.folder / f"{name}-{n}"
            folder.mkdir()
            parts += segments(path, folder, seconds)
        self.playlists[name] = parts, seconds

    def playlist(self, name: str) -> str:
        """What the playlist says now: a window that moves on with time."""
        parts, seconds = self.playlists[name]
        newest = int((time.monotonic() - self._started_s) / seconds) + _WINDOW
        first = newest - _WINDOW
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{seconds}", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
        for n in range(first, newest):
            path = parts[n % len(parts)]
            if path.stem == "000" and n:
                lines.append("#EXT-X-DISCONTINUITY")
            lines += [f"#EXTINF:{seconds}.0,", f"{path.relative_to(self.folder)}?n={n}"]
        return "\n".join([*lines, ""])

    def url(self, name: str, *, password: str | None = None) -> str:
        """Address of a stream, with user and password when there are some."""
        who = f"{self.user}:{password or self.password}@" if self.user else ""
        return f"{self._scheme}://{who}127.0.0.1:{self._server.server_port}/{name}"

    def __enter__(self) -> HttpCamera:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="http camera", daemon=True).start()
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._temporary.cleanup()


class RtmpCamera:
    """FFmpeg as an RTMP server that sends a file to one client."""

    def __init__(self, path: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"rtmp://127.0.0.1:{port}/live/cam"
        self._command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "quiet", "-re", "-stream_loop", "-1", "-i", str(path)]
        self._command += ["-c", "copy", "-f", "flv", "-listen", "1", self.url]

    def __enter__(self) -> RtmpCamera:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
