"""A camera in the middle of its stream: an RTSP server whose clients get packets as they are sent to all others.

FFmpeg publishes a file to it, again and again (ANNOUNCE, RECORD); whoever plays it comes in between two key frames, as
to a camera.  Its session description can be rewritten, as cameras' differ from what they send.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import imageio_ffmpeg

from tests.support.eventually import eventually
from tests.support.media import codec_of

#: By track of a client: sends one packet of RTP (0) or RTCP (1) to it.
Ways = dict[int, Callable[[int, bytes], object]]


class RtspRelay:
    """Serves one file at `url`, sent as fast as it is shown.

    `describe` makes what clients are told of the session description that FFmpeg gives.  With `in_band` parameter sets
    stand before each key frame, as most cameras have them; else in the session description only.

    Attributes:
        told: the session description that FFmpeg gave.
    """

    def __init__(self, path: Path, describe: Callable[[str], str] = lambda told: told, *, in_band: bool = True) -> None:
        self._describe = describe
        self.told = ""
        self._playing: dict[socket.socket, Ways] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/cam"
        self._udp = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
        for one in self._udp:
            one.bind(("127.0.0.1", 0))
        self._pictures = 0
        self._command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "quiet", "-re", "-stream_loop", "-1", "-i", str(path)]
        self._command += ["-c", "copy", *(["-bsf:v", f"{codec_of(path)}_mp4toannexb"] if in_band else [])]
        self._command += ["-f", "rtsp", "-rtsp_transport", "tcp", self.url]

    def __enter__(self) -> RtspRelay:
        threading.Thread(target=self._accept, name="relay", daemon=True).start()
        self._publisher = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        # Whoever comes sooner gets the first key frame, from which FFmpeg learns all at once.
        eventually(lambda: self._pictures > 2, within_s=10)
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._publisher.kill()
        self._publisher.wait()
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in (self._listener, *self._udp):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(client,), name="relay", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        ways: Ways = {}
        with client, client.makefile("rb") as reader, contextlib.suppress(OSError):
            while first := reader.read(1):
                if first == b"$":
                    channel, size = reader.read(1)[0], int.from_bytes(reader.read(2), "big")
                    self._pass_on(channel, reader.read(size), client)
                else:
                    self._answer((first + reader.readline()).decode(), reader, client, ways)
            self._playing.pop(client, None)

    def _pass_on(self, channel: int, packet: bytes, sender: socket.socket) -> None:
        # What players send are reports of what they received.
        if sender in self._playing:
            return
        # RTP marks the last packet of each picture; the first track is the video.
        self._pictures += channel == 0 and packet[1] >> 7
        for player, ways in list(self._playing.items()):
            if (send := ways.get(channel // 2)) is not None:
                try:
                    send(channel % 2, packet)
                except (OSError, ValueError):
                    self._playing.pop(player, None)

    def _answer(self, request: str, reader: BinaryIO, client: socket.socket, ways: Ways) -> None:
        method, url = request.split()[:2]
        headers: dict[str, str] = {}
        while line := reader.readline().decode().strip():
            key, _, value = line.partition(":")
            headers[key.lower()] = value.strip()
        lines, body = ["RTSP/1.0 200 OK", f"CSeq: {headers['cseq']}", "Session: 1"], ""
        if method == "ANNOUNCE":
            self.told = reader.read(int(headers["content-length"])).decode()
        elif method == "DESCRIBE":
            body = self._describe(self.told)
            lines += ["Content-Type: application/sdp", f"Content-Base: {self.url}/", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            lines.append(f"Transport: {self._set_up(int(url.rpartition('=')[2]), headers['transport'], client, ways)}")
        client.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        if method == "PLAY":
            self._playing[client] = ways

    def _set_up(self, track: int, transport: str, client: socket.socket, ways: Ways) -> str:
        if "interleaved=" in transport:
            first = int(transport.partition("interleaved=")[2].partition("-")[0])
            ways[track] = lambda kind, packet: client.sendall(
                b"$" + bytes([first + kind]) + len(packet).to_bytes(2, "big") + packet
            )
            return transport
        ports = [int(port) for port in transport.partition("client_port=")[2].partition(";")[0].split("-")]
        ways[track] = lambda kind, packet: self._udp[kind].sendto(packet, ("127.0.0.1", ports[kind]))
        return f"{transport};server_port={'-'.join(str(one.getsockname()[1]) for one in self._udp)}"
