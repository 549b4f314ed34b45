"""Capture under test: a recorder in this process fed from a file, or a whole capture process that can be killed.

`python -m tests.support.capturing CONFIG CAMERA BOARD MEMORY` is that process.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, TracebackType

from nodeagent.capture import worker
from nodeagent.capture.books import Books, Camera
from nodeagent.capture.closing import Closer
from nodeagent.capture.journal import Closed, Journal
from nodeagent.capture.landing import Landing
from nodeagent.capture.ledger import Ledger
from nodeagent.capture.places import Places
from nodeagent.capture.recorder import Recorder
from nodeagent.capture.recovery import Plan
from nodeagent.capture.samples import RingPlace, SamplePlan, Samples
from nodeagent.capture.source import Arrived, Ended, Event, Opened, Session
from nodeagent.contract.camera import CameraSpec, SampleMode, StreamSpec
from nodeagent.contract.clip import ClipTask
from nodeagent.contract.codec import decode_clip_task
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.report import Kind
from nodeagent.contract.states import State
from nodeagent.infra.board import Board
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.topology import clips_queue
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.gaps import Gap, GapReason, read_gaps
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import PoolSettings
from nodeagent.infra.stop import Stop
from nodeagent.infra.storage import Storage, StoredClip, init_pool
from nodeagent.infra.wanted import Grant, Wanted, write_wanted
from nodeagent.infra.worker import WorkerContext

ROOT = Path(__file__).parent.parent.parent
CAMERA = "gate-1"
NODE = "n1"


class Bench:
    """A recorder with all that it writes to, in one folder; no process, no bus."""

    def __init__(
        self,
        folder: Path,
        *,
        sample_fps: float = 5.0,
        sample_width: int = 640,
        sample_mode: SampleMode = "frames",
        slots: int = 600,
        memory_dir: Path | None = None,
    ) -> None:
        self.state_dir, self.memory_dir = folder / "state", memory_dir or folder / "memory"
        pool = PoolSettings(path=folder / "pool", reserve_gb=0)
        init_pool(pool.path)
        self.storage = Storage([pool])
        self.plan = Plan(NODE, sample_fps, sample_width, sample_mode)
        self.counts: Counter[str] = Counter()
        self.journal = Journal(self.state_dir / "journal" / f"{CAMERA}.jsonl")
        self.ledger = Ledger(self.state_dir, CAMERA, None, SystemClock().wall_ns())
        place = RingPlace(self.memory_dir, CAMERA, slots)
        self.samples = Samples(place, SamplePlan(sample_fps, sample_width, sample_mode), self.counts)
        self.closer = Closer(self.journal)
        books = Books(self.storage, self.closer, self.ledger)
        camera = Camera(CAMERA, 5 * NS_PER_S, self.plan)
        self.recorder = Recorder(camera, books, self.samples, 7, SystemClock(), self.counts)

    def use_pools(self, *pools: PoolSettings) -> None:
        """Record to these disks from now on."""
        self.storage = Storage(pools)
        self.recorder._books = replace(self.recorder._books, storage=self.storage)
        places = Places(self.storage, self.closer.hands, SystemClock())
        self.recorder._landing = Landing(places, "record", SystemClock())

    def record(
        self, path: Path, *, close: bool = True, before: Mapping[int, Callable[[], object]] | None = None
    ) -> Ended:
        """Feed a whole file as fast as it goes; returns how the source ended.

        `before` says what happens before the packet of this number, from 0.
        """
        return self._take(StreamSpec(url=str(path)), close, math.inf, before or {})

    def record_loop(self, path: Path, packets: int) -> Ended:
        """Feed a file that is repeated, as fast as it goes, until so many packets came."""
        return self._take(StreamSpec(url=str(path), loop=True), True, packets)

    def _take(
        self,
        spec: StreamSpec,
        close: bool,
        packets: float,
        before: Mapping[int, Callable[[], object]] = MappingProxyType({}),
    ) -> Ended:
        taken = 0
        session = Session(spec, 4.0, SystemClock(), pace=False)
        session.start()
        try:
            while True:
                event = _next(session) if packets else Ended(State.SOURCE_ENDED, "enough")
                match event:
                    case Opened(stream):
                        self.recorder.begin_session(stream)
                    case Arrived():
                        if taken in before:
                            before[taken]()
                        self.recorder.feed(event)
                        packets, taken = packets - 1, taken + 1
                    case Ended():
                        if close:
                            self.recorder.end_session(GapReason(event.state.value), event.detail)
                        return event
        finally:
            session.close()
            self.settle()

    def settle(self) -> None:
        """Wait until the disks that answer have all that they were given."""
        self.recorder.land(20)
        for hand in self.closer.hands:
            if not hand.stalls:
                hand.ask(lambda: None).result(20)

    def closed(self) -> list[Closed]:
        """What was closed and not confirmed, in order."""
        return self.journal.all_unconfirmed()

    def tasks(self) -> list[ClipTask]:
        """Its announcements."""
        return [closed.task for closed in self.closed()]

    def clips(self) -> list[StoredClip]:
        """Finished clips on the pool."""
        return self.storage.clips(CAMERA, 0, 2**62)

    def files(self) -> list[str]:
        """Names of all files of the pool but the marker."""
        return sorted(p.name for p in (self.state_dir.parent / "pool" / "clips").rglob("*") if p.is_file())


def _next(session: Session) -> Event:
    """The next event, looked for now and then as the worker does."""
    end_s = time.monotonic() + 20.0
    while (event := session.get(0)) is None:
        assert time.monotonic() < end_s, "the source hangs"
        time.sleep(0.005)
    return event


@dataclass
class CaptureProcess:
    """A capture worker in a process of its own, on a real Redis."""

    folder: Path
    url: str
    redis_url: str
    pool: Path | None = None
    loop: bool = False
    stall_timeout_s: float = 2.0
    sample_fps: float = 5.0
    sample_mode: SampleMode = "frames"
    #: The sub-stream, if there is one.
    analyse: str = ""
    clip_s: float = 2.0
    #: With which a registry granted the camera; 0: none did.
    epoch: int = 0

    def __post_init__(self) -> None:
        self.config = self.folder / "agent.toml"
        self.config.write_text(
            f'[node]\nnode_id = "{NODE}"\nstate_dir = "{self.folder / "state"}"\n'
            f'[redis]\nurl = "{self.redis_url}"\n'
            f"[capture]\nstall_timeout_s = {self.stall_timeout_s}\nreconnect_min_s = 0.2\nreconnect_max_s = 1.0\n"
            f"clip_s = {self.clip_s}\n" + (f'[[pool]]\npath = "{self.pool}"\nreserve_gb = 0\n' if self.pool else "")
        )
        self.settings = load_settings(self.config)
        self.state_dir = self.settings.node.state_dir
        self.state_dir.mkdir(parents=True, exist_ok=True)
        (self.folder / "memory").mkdir(exist_ok=True)
        self.board_path = self.folder / "memory" / "board"
        board = Board.create(self.board_path, NODE, os.getpid(), 0)
        self.cell = board.claim(f"capture:{CAMERA}", Kind.CAPTURE)
        self.bus = open_bus(self.settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._tasks: list[ClipTask] = []
        self._consuming = False
        self.set_source(self.url)

    def set_source(self, url: str) -> None:
        """Write the wanted set with this source."""
        spec = CameraSpec(
            camera_id=CAMERA,
            record=StreamSpec(url=url, loop=self.loop),
            analyse=StreamSpec(url=self.analyse, loop=self.loop) if self.analyse else None,
            sample_fps=self.sample_fps,
            sample_mode=self.sample_mode,
            sample_width=160,
        )
        grants = {CAMERA: Grant(self.epoch, 1)} if self.epoch else {}
        write_wanted(self.state_dir / "wanted.json", Wanted(1, (spec,), grants))

    def grant(self, epoch: int) -> None:
        """Write the wanted set with this grant."""
        self.epoch = epoch
        self.set_source(self.url)

    def start(self) -> None:
        """Start the worker."""
        self.cell.begin(SystemClock().wall_ns())
        args = [str(self.config), CAMERA, str(self.board_path), str(self.folder / "memory")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.capturing", *args], cwd=ROOT, stderr=log
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def kill9(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self, timeout_s: float = 20) -> int:
        """TERM, then its exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(timeout_s)
        self._process = None
        return code

    def wait(self, timeout_s: float) -> int:
        """Its exit code, once it leaves by itself."""
        assert self._process is not None
        code = self._process.wait(timeout_s)
        self._process = None
        return code

    @property
    def state(self) -> State:
        """What it shows."""
        return self.cell.current_state

    @property
    def detail(self) -> str:
        """What it says of its state."""
        row = self.cell.row(0)
        return row.detail if row is not None else ""

    def count(self, name: str) -> int:
        """One of its counters."""
        return self.cell.get(name)

    def tasks(self) -> list[ClipTask]:
        """All announcements so far, doubles included."""
        if not self._consuming:
            self.bus.declare()
            self.bus.bind_camera(CAMERA)
            self.bus.consume(clips_queue(NODE), 100)
            self._consuming = True
        while (delivery := self.bus.get(0.05)) is not None:
            self._tasks.append(decode_clip_task(delivery.message))
            self.bus.ack(delivery)
        return self._tasks

    @property
    def storage(self) -> Storage:
        """The pool."""
        return Storage(self.settings.pools)

    def clips(self) -> list[StoredClip]:
        """Finished clips."""
        return self.storage.clips(CAMERA, 0, 2**62)

    def gaps(self) -> list[Gap]:
        """The whole ledger."""
        return read_gaps(self.state_dir, CAMERA, 0, 2**62)

    def log(self) -> str:
        """What it logged."""
        return (self.folder / "log").read_text()

    def __enter__(self) -> CaptureProcess:
        self.start()
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        if self._process is not None:
            self.kill9()
        self.bus.close()


def serve(config: str, camera: str, board: str, memory: str) -> int:
    stop = Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.request())
    cell = Board.open(Path(board)).cell(0)
    settings = load_settings(Path(config))
    return worker.main(WorkerContext(f"capture:{camera}", settings, cell, stop, SystemClock(), Path(memory)), camera)


if __name__ == "__main__":
    code = serve(*sys.argv[1:])
    os._exit(code)
