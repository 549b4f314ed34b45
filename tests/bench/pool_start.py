"""Starting on a disk with ten million clips: when its keeper knows what is on it, and what a capture reads of it.

The clips are names only: hard links of a few empty files, in a file system in memory of its own (root), or a tenth of
them in the temporary folder.  So the figures are the program's and the kernel's work, in CPU time, which a busy
neighbour does not stretch; a disk adds its seeks.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from nodeagent.capture.disk_keeper import DiskKeeper
from nodeagent.capture.journal import Journal
from nodeagent.capture.recovery import epoch_for
from nodeagent.contract.clip import ClipId, clip_file_name
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.clip_folders import HOUR_NS, hour_folder
from nodeagent.infra.settings.sections import GIB, PoolSettings
from nodeagent.infra.storage import Storage, init_pool
from tests.bench.harness import Result, result

CAMERAS = 200
CLIPS_AN_HOUR = 720
LENGTH_NS = 5 * NS_PER_S
FIRST_NS = 1_699_999_200 * NS_PER_S
#: Memory that ten million names need, bytes: about 250 each, and as much for safety.
MEMORY_NEEDED = 5 * GIB
#: Links that one file may have, as far as every usual file system allows.
LINKS_MOST = 30_000
#: Clips that a full disk loses at a look: as many as two hundred cameras make meanwhile.
A_LOOK = 200
LOOKS = 20
MB = 1e6


@dataclass(frozen=True, slots=True)
class Made:
    """A disk with clips of `cameras` cameras over `hours` hours; `place` says where it lies."""

    path: Path
    cameras: int
    hours: int
    place: str

    @property
    def clips(self) -> int:
        return self.cameras * self.hours * CLIPS_AN_HOUR

    @property
    def now_ns(self) -> int:
        """Half an hour after the last clip."""
        return FIRST_NS + self.hours * HOUR_NS + HOUR_NS // 2


def run(quick: bool) -> Iterator[Result]:
    """First start, start with summaries, a capture's start, and looks at a full disk."""
    with _disk(quick) as made:
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            list(pool.map(partial(_fill, made), range(made.cameras)))
        sizes = f"{made.clips:,} clips of {made.cameras} cameras in {made.cameras * made.hours:,} folders, {made.place}"
        yield from _capture(made, "no summaries", sizes)
        yield from _keeper(made, "no summaries", sizes)
        yield from _keeper(made, "with summaries", sizes)
        yield from _capture(made, "with summaries", sizes)
        yield from _full(made, sizes)


def _keeper(made: Made, how: str, sizes: str) -> Iterator[Result]:
    seconds, wall_s, megabytes = _in_own_process(partial(_first_look, made))
    aims = ("<= 10", "<= 60") if how == "with summaries" else ("", "")
    yield result(
        f"keeper, {how}",
        seconds,
        "s",
        aims[0],
        f"from the start until the quota is known, {wall_s:.1f} s by the clock: {sizes}",
    )
    yield result(f"keeper, {how}, memory", megabytes, "MB", aims[1], "what its peak is above that of the imports")


def _capture(made: Made, how: str, sizes: str) -> Iterator[Result]:
    seconds, wall_s, megabytes = _in_own_process(partial(_capture_start, made))
    aim = "<= 0.5" if how == "with summaries" else ""
    what = "a camera without a journal looks for unfinished clips, its epoch and its last clip"
    detail = f"{what}, {wall_s:.2f} s by the clock: {sizes}"
    yield result(f"capture, {how}", seconds, "s", aim, detail)
    yield result(f"capture, {how}, memory", megabytes, "MB", "", "what its peak is above that of the imports")


def _full(made: Made, sizes: str) -> Iterator[Result]:
    first, later, _ = _in_own_process(partial(_full_looks, made))
    yield result("full disk, first look", first, "s", "", f"{A_LOOK} clips go; CPU; {sizes}")
    yield result("full disk, each look after", later, "s", "<= 0.25", f"the same, mean of {LOOKS} looks, CPU")


def _first_look(made: Made) -> tuple[float, float, float]:
    """CPU and wall seconds, megabytes."""
    before = _peak_bytes()
    started = time.process_time(), time.monotonic()
    keeper = _counted(made)
    took = time.process_time() - started[0], time.monotonic() - started[1]
    if keeper.used[0] != made.clips:
        raise AssertionError(f"counted {keeper.used[0]} clips of {made.clips}")
    return *took, (_peak_bytes() - before) / MB


def _counted(made: Made) -> DiskKeeper:
    keeper = DiskKeeper(PoolSettings(path=made.path, quota_gb=1e6, reserve_gb=0))
    keeper.find(made.now_ns)
    for _ in keeper.count(made.now_ns):
        pass
    return keeper


def _capture_start(made: Made) -> tuple[float, float, float]:
    """CPU and wall seconds, megabytes."""
    before = _peak_bytes()
    storage = Storage([PoolSettings(path=made.path, reserve_gb=0)])
    camera = _camera(0)
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        started = time.process_time(), time.monotonic()
        parts = storage.parts(camera) + storage.parts(camera, "analyse")
        epoch, end_ns = epoch_for(storage, journal, camera, 0), storage.newest_end(camera)
        took = time.process_time() - started[0], time.monotonic() - started[1]
        journal.close()
    if (parts, epoch, end_ns) != ([], 2, FIRST_NS + made.hours * HOUR_NS):
        raise AssertionError(f"found {len(parts)} parts, epoch {epoch}, end {end_ns}")
    return *took, (_peak_bytes() - before) / MB


def _full_looks(made: Made) -> tuple[float, float, float]:
    """The disk loses some clips at each look, as it does while cameras record."""
    keeper = _counted(made)
    took: list[float] = []
    for _ in range(LOOKS + 1):
        over = keeper.used[1] - A_LOOK * len(CONTENT)
        keeper.pool = keeper.pool.model_copy(update={"quota_gb": over / GIB})
        started = time.process_time()
        keeper.find(made.now_ns)
        for _ in keeper.count(made.now_ns):
            pass
        gone = sum(1 for _ in keeper.clear(made.now_ns))
        took.append(time.process_time() - started)
        if not A_LOOK <= gone <= A_LOOK + 1:
            raise AssertionError(f"{gone} clips went")
    return took[0], sum(took[1:]) / LOOKS, 0


def _in_own_process(work: Callable[[], tuple[float, float, float]]) -> tuple[float, float, float]:
    """Run in a fresh process, whose peak of memory is its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work).result()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _disk(quick: bool) -> Iterator[Made]:
    with tempfile.TemporaryDirectory(prefix="nodeagent-bench-") as name:
        folder = Path(name)
        if quick:
            yield _marked(folder, 10, 10, "in the temporary folder")
            return
        mount = ["mount", "-t", "tmpfs", "-o", "size=1g,nr_inodes=0", "tmpfs", name]
        if _memory_available() < MEMORY_NEEDED or subprocess.run(mount, capture_output=True, check=False).returncode:
            print("no memory or no right to mount: a tenth of the clips", file=sys.stderr)
            yield _marked(folder, CAMERAS, 7, "in the temporary folder")
            return
        try:
            yield _marked(folder, CAMERAS, 70, "on a file system in memory")
        finally:
            subprocess.run(["umount", name], check=True)


#: What is in each file of a clip.
CONTENT = b"x" * 100


def _marked(folder: Path, cameras: int, hours: int, place: str) -> Made:
    init_pool(folder)
    return Made(folder, cameras, hours, place)


def _memory_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _camera(number: int) -> str:
    return f"camera-{number:04d}"


def _fill(made: Made, number: int) -> None:
    """All hours of one camera."""
    camera, source, links = _camera(number), Path(), LINKS_MOST
    for hour in range(made.hours):
        start_ns = FIRST_NS + hour * HOUR_NS
        folder = hour_folder(made.path, camera, start_ns, "record")
        folder.mkdir(parents=True)
        if links + CLIPS_AN_HOUR > LINKS_MOST:
            source, links = made.path / f"source-{number}-{hour}", 0
            source.write_bytes(CONTENT)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        begin, end = clip_file_name(ClipId(camera_id=camera, epoch=1, start_ns=start_ns), LENGTH_NS).split(
            str(start_ns)
        )
        for clip in range(CLIPS_AN_HOUR):
            os.link(source, f"{begin}{start_ns + clip * LENGTH_NS}{end}", dst_dir_fd=fd)
        os.close(fd)
        links += CLIPS_AN_HOUR
        # As if the last file of the hour had been made then.
        os.utime(folder, ns=(start_ns, start_ns + HOUR_NS))
