"""A real RTSP server for tests: GStreamer's, in a process of its own on a free port."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from nodeagent.infra.stop import wait_readable
from tests.support.media import annex_b, codec_of
from tests.support.missing import not_tested
from tests.support.server import LOOPBACK

_SCRIPT = Path(__file__).with_name("gst_server.py")
_SYSTEM_PYTHON = "/usr/bin/python3"
#: How long the server may take to listen, seconds.
_START_S = 20.0


def have_rtsp() -> bool:
    """Whether the system's Python has GStreamer's RTSP server."""
    check = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    try:
        return subprocess.run([_SYSTEM_PYTHON, "-c", check], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def need_rtsp() -> None:
    """Fail in CI, skip loudly elsewhere, when there is no RTSP server to test with."""
    if not have_rtsp():
        not_tested("no RTSP server: python tests/install_services.py")


class RtspServer:
    """Serves video files under names, each repeated for ever.

    `paths` maps a name to a file of H.264, H.265 or MJPEG in any container; None serves a stream without video.  All
    are sent at `fps`.  With `frames` each client gets so many frames, and sound that goes on.  `sound` (`pcma`, `aac`
    or `opus`) adds a track; of `loss` (0 to 1) of the packets of video nothing is sent.
    """

    def __init__(
        self,
        paths: dict[str, Path | None],
        fps: float,
        user: str | None = None,
        password: str | None = None,
        frames: int = 0,
        sound: str = "",
        loss: float = 0.0,
        shared: bool = False,
        address: str = LOOPBACK,
    ) -> None:
        self._address = address
        self._user, self._password = user or "", password or ""
        self._folder = tempfile.TemporaryDirectory(prefix="rtsp-")
        self._fps = fps
        self._extra = f"{frames}:{sound}:{loss or ''}:{'shared' if shared else ''}"
        self._items: list[str] = []
        for name, path in paths.items():
            self._items.append(f"{name}={self._prepared(name, path)}")
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def _prepared(self, name: str, path: Path | None) -> str:
        if path is None:
            return ""
        raw = Path(self._folder.name) / f"{name}.{codec_of(path)}"
        raw.write_bytes(annex_b(path))
        return f"{raw}:{self._extra}"

    def replace(self, name: str, path: Path) -> None:
        """Serve another file under this name from the next start on."""
        self._items = [item for item in self._items if not item.startswith(f"{name}=")]
        self._items.append(f"{name}={self._prepared(name, path)}")

    def url(self, name: str, *, credentials: bool = True) -> str:
        """Address of a stream, with user and password when there are some."""
        who = f"{self._user}:{self._password}@" if self._user and credentials else ""
        return f"rtsp://{who}{self._address}:{self.port}/{name}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, on the port of the time before if there was one; returns when it listens."""
        command = [
            _SYSTEM_PYTHON,
            str(_SCRIPT),
            f"{self._address}:{self.port}",
            str(self._fps),
            self._user,
            self._password,
        ]
        self._process = subprocess.Popen(
            [*command, *self._items],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        ready = wait_readable(self._process.stdout.fileno(), _START_S)
        line = self._process.stdout.readline() if ready else ""
        if not line.startswith("ready "):
            self.kill9()
            raise AssertionError("the RTSP server did not start")
        self.port = int(line.split()[1])

    def kill9(self) -> None:
        """Kill the server as a power cut would; harmless when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    assert pipe is not None
                    pipe.close()
            self._process = None

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self.kill9()
        self._folder.cleanup()
