"""One of three pool disks fails while cameras record: seconds lost per camera, bytes under the bare mount point.

Real disks (ext4 in files), the real supervisor, captures and keeper, RTSP cameras.  The faults come one after the
other, each on the disk that most cameras are writing to: read-only, as ext4 goes after an error; full; unmounted under
its users; hanging, so that every write waits.  Each lasts for some clips; the next comes when the keeper has taken the
disk back.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.storage import init_pool
from tests.bench.harness import Result, result
from tests.support.accounting import not_decoding
from tests.support.disks import Disk, mounted_disk
from tests.support.eventually import eventually
from tests.support.media import make_video
from tests.support.recording import RecordingNode, camera_toml
from tests.support.rtsp import RtspServer

CAMERAS, QUICK_CAMERAS = 6, 2
#: How long a fault lasts, seconds: several clips, and more than the time after which a disk counts as hanging.
FAULT_S, QUICK_FAULT_S = 25.0, 12.0
DISKS = 3
DISK_MB = 256
#: How long the keeper may take to bring a disk back, seconds.
BACK_S = 60.0
FPS = 25
#: States of the keeper in which all disks take clips.
WELL = (State.RUNNING, State.IDLE)


class PoolNode(RecordingNode):
    """A recording node with these disks."""

    def __init__(self, disks: list[Path]) -> None:
        super().__init__()
        self._disks = disks

    def _head(self) -> str:
        head, _, rest = super()._head().partition("[[pool]]")
        blocks = "".join(
            f"[[pool]]\npath = {json.dumps(str(disk))}\nquota_gb = 0.2\nreserve_gb = 0.005\n" for disk in self._disks
        )
        return f"{head}{blocks}[[models]]{rest.partition('[[models]]')[2]}"

    @property
    def keeper(self) -> State | None:
        """What the keeper of the disks shows."""
        row = self.agent.row("storage")
        return row.state if row else None


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail, and its cure."""

    name: str
    hurt: Callable[[Disk], object]
    heal: Callable[[Disk], object]


def _again(disk: Disk) -> None:
    disk.unmount()
    disk.mount()


FAULTS = (
    Fault("read_only", Disk.read_only, _again),
    Fault("full", Disk.fill, lambda disk: (disk.folder / "filler").unlink()),
    Fault("unmounted", Disk.unmount, Disk.mount),
    Fault("hanging", Disk.freeze, Disk.thaw),
)


@dataclass(frozen=True, slots=True)
class Window:
    """What one fault did.

    Attributes:
        from_ns, to_ns: from before it to after its cure, capture time.
        writers: how many clips were being written to the disk when it failed.
        shown: what the keeper showed meanwhile.
        bare_bytes: what stood under the mount point while the disk was away.
    """

    from_ns: int
    to_ns: int
    writers: int
    shown: State | None
    bare_bytes: int


def run(quick: bool) -> Iterator[Result]:
    """One figure for each fault, and what was written where no disk is."""
    names = [f"cam{n}" for n in range(QUICK_CAMERAS if quick else CAMERAS)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pool-")))
        disks = [stack.enter_context(mounted_disk(folder / f"disk{n}", DISK_MB)) for n in range(DISKS)]
        for disk in disks:
            init_pool(disk.folder)
        video = make_video(
            folder / "camera.mp4", width=640, height=360, fps=FPS, gop=50, seconds=20, bit_rate=1_000_000
        )
        server = stack.enter_context(RtspServer(dict.fromkeys(names, video), FPS))
        node = stack.enter_context(PoolNode([disk.folder for disk in disks]))
        node.configure({name: camera_toml(name, server.url(name)) for name in names})
        for name in names:
            node.capturing(name)
        eventually(lambda: node.keeper in WELL, within_s=BACK_S)
        windows = {fault.name: _suffer(node, disks, fault, QUICK_FAULT_S if quick else FAULT_S) for fault in FAULTS}
        node.stop()
        yield from _figures(node, names, windows)


def _writers(disk: Disk) -> int:
    """How many clips are being written there."""
    return sum(1 for _ in disk.folder.rglob("*.part.mp4"))


def _suffer(node: PoolNode, disks: list[Disk], fault: Fault, lasts_s: float) -> Window:
    time.sleep(6)
    disk = max(disks, key=_writers)
    writers = _writers(disk)
    from_ns = time.time_ns() - 5 * NS_PER_S
    fault.hurt(disk)
    try:
        time.sleep(lasts_s)
        shown = node.keeper
        bare = sum(path.lstat().st_size for path in disk.folder.rglob("*")) if fault.name == "unmounted" else 0
    finally:
        fault.heal(disk)
    eventually(lambda: node.keeper in WELL, within_s=BACK_S)
    # What was being recorded at the cure is closed by then.
    to_ns = time.time_ns()
    time.sleep(8)
    return Window(from_ns, to_ns, writers, shown, bare)


def _figures(node: PoolNode, names: list[str], windows: dict[str, Window]) -> Iterator[Result]:
    for fault, window in windows.items():
        lost = {name: _lost_s(node, name, window) for name in names}
        yield result(
            f"pool_{fault}_lost_s",
            max(lost.values()),
            "s",
            "<= 0.1",
            f"most that one of {len(names)} cameras lost in {(window.to_ns - window.from_ns) / NS_PER_S:.0f} s around "
            f"the fault of one of {DISKS} disks, to which {window.writers} were writing; all: {sum(lost.values()):.2f} "
            f"s; the keeper showed {window.shown.value if window.shown else 'nothing'}",
        )
    yield result("pool_bare_bytes", sum(window.bare_bytes for window in windows.values()), "bytes", "== 0")
    clips = [clip for name in names for clip in node.clips(name)]
    yield result(
        "pool_clips_not_decoding", len(not_decoding(clips)), "clips", "== 0", f"of {len(clips)} on all disks at the end"
    )
    announced = [count for name in names for count in node.announced(name).values()]
    yield result(
        "pool_clips_announced_twice", sum(count > 1 for count in announced), "clips", "== 0", f"of {len(announced)}"
    )


def _lost_s(node: PoolNode, name: str, window: Window) -> float:
    """Seconds of the window in no clip that was announced: those of the full disk are deleted by then to make room."""
    tasks = [task for task in node.tasks if task.clip_id.camera_id == name]
    reach_ns, lost_ns = window.from_ns, 0
    for start_ns, end_ns in sorted((task.start_ns, task.end_ns) for task in tasks):
        lost_ns += max(0, min(start_ns, window.to_ns) - reach_ns)
        reach_ns = max(reach_ns, min(end_ns, window.to_ns))
    return (lost_ns + max(0, window.to_ns - reach_ns)) / NS_PER_S
