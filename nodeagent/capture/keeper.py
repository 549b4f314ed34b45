"""The process that keeps the pool's disks within quota and reserve: oldest clips first, over all cameras.

Sizes are counted per hour folder; only folders that still grow are counted again, so a look costs little however many
clips there are.  A pinned clip loses its name here and keeps its bytes under `pins/`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nodeagent.capture.retention import Held, excess, plan
from nodeagent.contract.clip import parse_clip_name
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.settings.sections import GIB, PoolSettings
from nodeagent.infra.storage import CLIPS_FOLDER, StorageFull, free_bytes, is_pool, open_storage
from nodeagent.infra.worker import EXIT_OK, WorkerContext

log = logging.getLogger(__name__)

#: How often the disks are looked at, seconds: at 200 cameras of 8 Mbit/s a disk fills by 1 GB meanwhile.
LOOK_S = 5.0
#: The first look counts every folder; the next beat may take this long, seconds.
LOOK_ALLOW_S = 60.0
#: Longest wait between two beats, seconds.
_BEAT_S = 0.5
#: Deletions between two beats.
_BEAT_DELETIONS = 100
_HOUR = "%Y-%m-%d/%H"


@dataclass(frozen=True, slots=True)
class Use:
    """What an hour folder holds."""

    clips: int
    size: int


def main(ctx: WorkerContext, _arg: str) -> int:
    """Look after the disks until told to stop."""
    open_storage(ctx.settings)
    ctx.cell.state(State.RUNNING)
    ctx.cell.ready()
    keepers = [DiskKeeper(pool) for pool in ctx.settings.pools]
    while not ctx.stop.requested:
        _look(ctx, keepers)
        end_s = ctx.clock.monotonic_s() + LOOK_S
        while ctx.clock.monotonic_s() < end_s and not ctx.stop.wait(_BEAT_S):
            ctx.cell.beat()
    return EXIT_OK


def _look(ctx: WorkerContext, keepers: list[DiskKeeper]) -> None:
    """One look at every disk, and what it showed on the board."""
    clips = size = free = quota = 0
    missing, full = [], []
    for keeper in keepers:
        if not is_pool(keeper.pool.path):
            missing.append(str(keeper.pool.path))
            continue
        try:
            free += _tidy(ctx, keeper)
        except (OSError, StorageFull) as exc:
            full.append(f"{keeper.pool.path}: {exc}")
        clips, size = clips + keeper.used[0], size + keeper.used[1]
        quota += round(keeper.pool.quota_gb * GIB)
    for name, value in (("clips", clips), ("bytes", size), ("free_bytes", free), ("quota_bytes", quota)):
        ctx.cell.set(name, value)
    if missing:
        ctx.cell.state(State.STORAGE_MISSING, f"no marker in {', '.join(missing)}")
    elif full:
        ctx.cell.state(State.STORAGE_FULL, "; ".join(full))
    else:
        ctx.cell.state(State.RUNNING)


def _tidy(ctx: WorkerContext, keeper: DiskKeeper) -> int:
    """Tidy one disk; returns its free bytes.

    Raises:
        OSError: it does not answer.
        StorageFull: it stays under its reserve with nothing left to delete.
    """
    ctx.cell.beat(allow_s=LOOK_ALLOW_S)
    for count, _ in enumerate(keeper.tidy(ctx.clock.wall_ns()), 1):
        ctx.cell.add("deleted")
        if count % _BEAT_DELETIONS == 0:
            ctx.cell.beat(allow_s=LOOK_ALLOW_S)
    free = free_bytes(keeper.pool.path)
    if free < keeper.pool.reserve_gb * GIB:
        raise StorageFull(f"{free / GIB:.2f} GiB free, nothing left to delete")
    return free


class DiskKeeper:
    """Counts and clears one disk."""

    def __init__(self, pool: PoolSettings) -> None:
        self.pool = pool
        self._uses: dict[Path, Use] = {}

    @property
    def used(self) -> tuple[int, int]:
        """Clips on this disk and their bytes, as of the last look."""
        return sum(u.clips for u in self._uses.values()), sum(u.size for u in self._uses.values())

    def tidy(self, now_ns: int) -> Iterator[Held]:
        """Count what changed, delete what is too much, oldest first; yields each clip deleted.

        Raises:
            OSError: the disk does not answer.
        """
        self._count(now_ns)
        info = os.statvfs(self.pool.path)
        todo = excess(
            used=self.used[1],
            quota=round(self.pool.quota_gb * GIB),
            free=info.f_bavail * info.f_frsize,
            reserve=round(self.pool.reserve_gb * GIB),
            disk=info.f_blocks * info.f_frsize,
        )
        touched = set()
        for held in plan(self._oldest_first(), todo):
            path = Path(held.name)
            path.unlink(missing_ok=True)
            touched.add(path.parent)
            yield held
        for folder in touched:
            self._uses[folder] = _use_of(folder)
        self._drop_empty(now_ns)

    def _count(self, now_ns: int) -> None:
        growing = _recent_hours(now_ns)
        folders = set(_hour_folders(self.pool.path / CLIPS_FOLDER))
        self._uses = {folder: use for folder, use in self._uses.items() if folder in folders}
        for folder in folders:
            if folder not in self._uses or _hour_of(folder) in growing:
                self._uses[folder] = _use_of(folder)

    def _oldest_first(self) -> Iterator[Held]:
        hours: dict[str, list[Path]] = {}
        for folder in self._uses:
            hours.setdefault(_hour_of(folder), []).append(folder)
        for hour in sorted(hours):
            held = [clip for folder in hours[hour] for clip in _held_in(folder)]
            yield from sorted(held, key=lambda clip: clip.start_ns)

    def _drop_empty(self, now_ns: int) -> None:
        """Remove old folders that hold nothing; the hour in which a capture may be making a file is left alone."""
        growing = _recent_hours(now_ns)
        for folder, use in list(self._uses.items()):
            if use.clips == 0 and _hour_of(folder) not in growing:
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    del self._uses[folder]
                    folder.parent.rmdir()
                    folder.parent.parent.rmdir()


def _recent_hours(now_ns: int) -> frozenset[str]:
    now = datetime.fromtimestamp(now_ns // NS_PER_S, UTC)
    return frozenset((now + timedelta(hours=shift)).strftime(_HOUR) for shift in (-2, -1, 0, 1))


def _hour_of(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def _hour_folders(clips: Path) -> Iterator[Path]:
    return (folder for folder in clips.glob("*/????-??-??/??") if folder.is_dir())


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            yield from found
    except FileNotFoundError:
        return


def _use_of(folder: Path) -> Use:
    clips = size = 0
    for entry in _entries(folder):
        with contextlib.suppress(FileNotFoundError):
            size += entry.stat().st_size
            clips += parse_clip_name(entry.name) is not None
    return Use(clips, size)


def _held_in(folder: Path) -> Iterator[Held]:
    for entry in _entries(folder):
        parsed = parse_clip_name(entry.name)
        with contextlib.suppress(FileNotFoundError):
            if parsed is not None:
                info = entry.stat()
                yield Held(parsed[0].start_ns, info.st_size, info.st_nlink > 1, entry.path)
