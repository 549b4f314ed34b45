"""A camera whose packets a firewall drops: it speaks RTSP, promises H.264 over UDP and sends nothing."""

from __future__ import annotations

import socket
import threading
from types import TracebackType

_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    "a=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
)


class SilentCamera:
    """Serves one client at a time.

    Attributes:
        asked: methods that clients asked for.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Bound and never sent from: nobody else takes the ports meanwhile.
        self._silent = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
        for silent in self._silent:
            silent.bind(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/cam"

    def __enter__(self) -> SilentCamera:
        threading.Thread(target=self._serve, name="silent camera", daemon=True).start()
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for silent in self._silent:
            silent.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as stream:
                while self._answer(stream.readline().decode(), stream):
                    pass

    def _answer(self, request: str, stream: socket.SocketIO) -> bool:
        if not request:
            return False
        method = request.split()[0]
        self.asked.append(method)
        headers: dict[str, str] = {}
        while line := stream.readline().decode().strip():
            key, _, value = line.partition(":")
            headers[key.lower()] = value.strip()
        lines = ["RTSP/1.0 200 OK", f"CSeq: {headers['cseq']}", "Session: 1"]
        body = ""
        if method == "OPTIONS":
            lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif method == "DESCRIBE":
            body = _SDP
            lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            ports = "-".join(str(silent.getsockname()[1]) for silent in self._silent)
            lines.append(f"Transport: {headers['transport']};server_port={ports}")
        stream.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        stream.flush()
        return True
