"""A street of cameras for the soak: RTSP servers, the network in front of each camera, and what goes wrong with them.

Whatever goes wrong ends after some seconds: each fault is a pair of what begins and what ends it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.support.media import make_video
from tests.support.proxy import Proxy
from tests.support.recording import RecordingNode, camera_toml
from tests.support.rtsp import RtspServer

FPS, GOP_S, SAMPLE_FPS = 10, 1.0, 5.0
USER, PASSWORD = "joe", "s3cret"
#: Cameras of one server: they go down together when it stops or starts again.
BLOCK = 5
#: Sizes of the main stream, one after the other; the last is the sub-stream's.
SIZES = ((320, 240), (256, 192), (160, 120))


@dataclass(slots=True)
class Camera:
    """One camera.

    Attributes:
        name: its id.
        main, sub: the network in front of its streams; no sub-stream: none.
        password: the one that the configuration has.
        size: which of SIZES its main stream has.
    """

    name: str
    server: RtspServer
    main: Proxy
    sub: Proxy | None
    password: str = PASSWORD
    size: int = 0

    @property
    def proxies(self) -> list[Proxy]:
        """The network in front of all its streams."""
        return [self.main, self.sub] if self.sub is not None else [self.main]

    def toml(self) -> str:
        """Its section of the configuration."""
        at = f"rtsp://{USER}:{self.password}@127.0.0.1"
        sub = f"{at}:{self.sub.port}/{self.name}-sub" if self.sub is not None else ""
        more = {"sample_fps": SAMPLE_FPS, "sample_width": 160}
        return camera_toml(self.name, f"{at}:{self.main.port}/{self.name}", more, analyse=sub)


@dataclass(order=True, slots=True)
class Due:
    """What ends a fault, and when."""

    at_s: float
    end: Callable[[], None] = field(compare=False)


class Street:
    """All cameras, and a dice for what happens to them."""

    def __init__(self, folder: Path, cameras: int, with_sub: int, longest_s: float, seed: int = 11) -> None:
        """`with_sub` of the cameras have a sub-stream; no fault lasts longer than `longest_s`."""
        self._folder = folder
        self._names = [f"cam{n:02}" for n in range(cameras)]
        # Spread over the blocks.
        self._with_sub = set(random.Random(seed).sample(self._names, with_sub))
        self._longest_s = longest_s
        self._chance = random.Random(seed)
        self._stack = ExitStack()
        self._due: list[Due] = []
        self._busy: set[str] = set()
        self.cameras: list[Camera] = []
        self.node: RecordingNode | None = None
        #: How often each kind of fault happened.
        self.happened: Counter[str] = Counter()

    def __enter__(self) -> Street:
        with self._stack as stack:
            self._videos = [
                make_video(
                    self._folder / f"{width}.mp4",
                    width=width,
                    height=height,
                    fps=FPS,
                    gop=round(FPS * GOP_S),
                    seconds=20,
                )
                for width, height in SIZES
            ]
            for start in range(0, len(self._names), BLOCK):
                names = self._names[start : start + BLOCK]
                paths: dict[str, Path | None] = dict.fromkeys(names, self._videos[0])
                paths |= {f"{name}-sub": self._videos[-1] for name in names if name in self._with_sub}
                server = stack.enter_context(RtspServer(paths, FPS, USER, PASSWORD))
                for name in names:
                    sub = stack.enter_context(Proxy(server.port)) if name in self._with_sub else None
                    self.cameras.append(Camera(name, server, stack.enter_context(Proxy(server.port)), sub))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._stack.__exit__(None, None, None)

    def serve(self) -> None:
        """Put the cameras as they are now into the node's configuration."""
        assert self.node is not None
        self.node.configure({camera.name: camera.toml() for camera in self.cameras})

    def trouble(self, until_s: float, every_s: float) -> None:
        """Let things go wrong until this monotonic time, one every `every_s` or so; all is well when it returns."""
        next_s = time.monotonic()
        while (now_s := time.monotonic()) < until_s or self._due:
            if now_s >= next_s and now_s < until_s:
                self._begin(now_s)
                next_s = now_s + every_s * (0.5 + self._chance.random())
            self._end_due(time.monotonic())
            time.sleep(0.1)

    def _end_due(self, now_s: float) -> None:
        for due in [due for due in self._due if due.at_s <= now_s]:
            self._due.remove(due)
            due.end()

    def _begin(self, now_s: float) -> None:
        camera = self._chance.choice(self.cameras)
        kind = self._chance.choice(
            (self._stall, self._stall, self._cut, self._cut, self._password, self._size, self._server)
        )
        touched = self._touched(camera, kind)
        if touched & self._busy:
            # In trouble already: the next throw finds another.
            return
        self._busy |= touched
        end = kind(camera)

        def over() -> None:
            end()
            self._busy -= touched

        self.happened[kind.__name__.removeprefix("_")] += 1
        self._due.append(Due(now_s + self._chance.uniform(1.0, self._longest_s), over))

    def _touched(self, camera: Camera, kind: object) -> set[str]:
        whole_server = kind in (self._size, self._server)
        return {
            other.name for other in self.cameras if other is camera or (whole_server and other.server is camera.server)
        }

    def _some(self, proxies: Sequence[Proxy]) -> list[Proxy]:
        """One of them, or all."""
        return [self._chance.choice(proxies)] if self._chance.random() < 0.5 else list(proxies)

    def _stall(self, camera: Camera) -> Callable[[], None]:
        """A stream, or both, send nothing any more."""
        return self._blocked(self._some(camera.proxies), Proxy.stall)

    def _cut(self, camera: Camera) -> Callable[[], None]:
        """A stream, or both, are disconnected, and cannot be connected."""
        return self._blocked(self._some(camera.proxies), Proxy.cut)

    def _blocked(self, proxies: Sequence[Proxy], block: Callable[[Proxy], None]) -> Callable[[], None]:
        for proxy in proxies:
            block(proxy)
        return lambda: [proxy.heal() for proxy in proxies] and None

    def _password(self, camera: Camera) -> Callable[[], None]:
        """The configuration has a wrong password."""
        self._set_password(camera, "wr0ng")
        return lambda: self._set_password(camera, PASSWORD)

    def _set_password(self, camera: Camera, password: str) -> None:
        camera.password = password
        self.serve()

    def _size(self, camera: Camera) -> Callable[[], None]:
        """The camera's server is away, and comes back with another size of its main stream."""
        camera.server.kill9()
        camera.size = 1 - camera.size
        camera.server.replace(camera.name, self._videos[camera.size])
        return camera.server.start

    def _server(self, camera: Camera) -> Callable[[], None]:
        """The camera's server stops in the middle of a frame, connections and all."""
        pid = camera.server.pid
        os.kill(pid, signal.SIGSTOP)

        def go_on() -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        # Also when the soak ends in between: a stopped process would not see its input end.
        self._stack.callback(go_on)
        return go_on
