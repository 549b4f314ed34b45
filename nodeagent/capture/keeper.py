"""The process that keeps the pool's disks within quota and reserve, and clips no longer than their class allows.

Sizes are counted per hour folder (`hour_folders`), a part of them at each look, so that however many clips there are,
the first deletion does not wait for the last count: what is not counted yet is not over the quota, and the reserve is
kept from the first look on.  Which clips go is `retention`; of those that share their limits the oldest do, over all
cameras (`shelf`).  A pinned clip loses its name here and keeps its bytes under `pins/`.

It also gives a thread to what removed cameras left (`orphans`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from nodeagent.capture import orphans
from nodeagent.capture.age_clock import AgeClock
from nodeagent.capture.classes import Classes
from nodeagent.capture.disk_writer import DiskStalled
from nodeagent.capture.hour_folders import (
    CLOSED_AFTER_NS,
    UNCOUNTED,
    Use,
    day_folders,
    drop,
    hour_folders,
    use_of,
)
from nodeagent.capture.probes import Probes
from nodeagent.capture.retention import Excess, Held, Limits, excess, plan
from nodeagent.capture.shelf import Shelf
from nodeagent.contract.clip import StreamName
from nodeagent.contract.states import State
from nodeagent.infra.board import BoardCell
from nodeagent.infra.clip_folders import STREAM_FOLDERS, hour_at, hour_of, owner_of, stream_folder
from nodeagent.infra.disk_notes import Aside, DiskNotes
from nodeagent.infra.settings.sections import GIB, PoolSettings
from nodeagent.infra.storage import StorageFull, free_bytes, open_storage
from nodeagent.infra.worker import EXIT_OK, WorkerContext

log = logging.getLogger(__name__)

#: How often the disks are looked at, seconds: at 200 cameras of 8 Mbit/s a disk fills by 1 GB meanwhile.
LOOK_S = 5.0
#: After so long counting goes on at the next look, seconds: it leaves the disks to recording for half of the time.
COUNT_S = 5.0
#: After so long deleting goes on at the next look, seconds: a class that was given fewer days on one disk must not keep
#: another disk from its reserve.
CLEAR_S = 10.0
#: One look in so many goes through all folders, for what others than captures changed: every ten minutes or so.
FULL_LOOK_EVERY = 120
#: How long one folder may take before the next beat, seconds: a disk that is slow to read its directories.
FOLDER_ALLOW_S = 60.0
#: Longest wait between two beats, seconds.
_BEAT_S = 0.5


def main(ctx: WorkerContext, _arg: str) -> int:
    """Look after the disks until told to stop."""
    storage = open_storage(ctx.settings)
    probes = Probes(DiskNotes(ctx.settings.node.state_dir), ctx.clock)
    ctx.cell.state(State.RUNNING)
    ctx.cell.ready()
    orphans.start(ctx)
    beat = partial(ctx.cell.beat, allow_s=FOLDER_ALLOW_S)
    classes = Classes(ctx.settings)
    ages = AgeClock(ctx.settings.node.state_dir / "retention_clock.json", ctx.clock.wall_ns(), ctx.clock.monotonic_s())
    keepers: list[DiskKeeper] = []
    while not ctx.stop.requested:
        if storage.pools != tuple(keeper.pool for keeper in keepers):
            kept = {keeper.pool: keeper for keeper in keepers}
            keepers = [kept.get(pool) or DiskKeeper(pool, classes.limits, beat) for pool in storage.pools]
        if classes.refresh():
            for keeper in keepers:
                keeper.sort_anew()
        _look(ctx, keepers, ages, probes)
        end_s = ctx.clock.monotonic_s() + LOOK_S
        while ctx.clock.monotonic_s() < end_s and not ctx.stop.wait(_BEAT_S):
            ctx.cell.beat()
    return EXIT_OK


def _look(ctx: WorkerContext, keepers: list[DiskKeeper], ages: AgeClock, probes: Probes) -> None:
    """One look at every disk, and what it showed on the board."""
    clips = size = free = quota = 0
    missing, full = [], []
    aside = probes.step([keeper.pool.path for keeper in keepers])
    for keeper in keepers:
        try:
            if not probes.has_marker(keeper.pool.path):
                missing.append(str(keeper.pool.path))
                continue
            free += _tidy(ctx, keeper, ages)
        except DiskStalled as exc:
            now_ns = ctx.clock.wall_ns()
            aside.setdefault(keeper.pool.path, Aside(keeper.pool.path, str(exc), now_ns))
        except (OSError, StorageFull) as exc:
            full.append(f"{keeper.pool.path}: {exc}")
        clips, size = clips + keeper.used[0], size + keeper.used[1]
        quota += round(keeper.pool.quota_gb * GIB)
    for name, value in (("clips", clips), ("bytes", size), ("free_bytes", free), ("quota_bytes", quota)):
        ctx.cell.set(name, value)
    _tell(ctx.cell, missing, aside, full)


def _tell(cell: BoardCell, missing: list[str], aside: dict[Path, Aside], full: list[str]) -> None:
    """Show the worst of what a look found."""
    if missing:
        cell.state(State.STORAGE_MISSING, f"no marker in {', '.join(missing)}")
    elif aside:
        cell.state(State.DISK_ASIDE, "; ".join(f"{note.disk}: {note.why}" for note in aside.values()))
    elif full:
        cell.state(State.STORAGE_FULL, "; ".join(full))
    else:
        cell.state(State.RUNNING)


def _tidy(ctx: WorkerContext, keeper: DiskKeeper, ages: AgeClock) -> int:
    """Tidy one disk; returns its free bytes.

    Raises:
        OSError: it does not answer.
        StorageFull: it stays under its reserve with nothing left to delete.
    """
    now_ns = ctx.clock.wall_ns()
    keeper.find(now_ns)
    end_s = ctx.clock.monotonic_s() + COUNT_S
    for _ in keeper.count(now_ns):
        if ctx.stop.requested or ctx.clock.monotonic_s() >= end_s:
            break
    end_s = ctx.clock.monotonic_s() + CLEAR_S
    for _ in keeper.clear(ages.now_ns(now_ns, ctx.clock.monotonic_s())):
        ctx.cell.add("deleted")
        if ctx.stop.requested or ctx.clock.monotonic_s() >= end_s:
            # There is more to delete, so the disk may well be under its reserve still.
            return free_bytes(keeper.pool.path)
    free = free_bytes(keeper.pool.path)
    if free < keeper.pool.reserve_gb * GIB:
        raise StorageFull(f"{free / GIB:.2f} GiB free, nothing left to delete")
    return free


class DiskKeeper:
    """Counts and clears one disk.

    Args:
        pool: the disk.
        limits_of: how long clips of a camera's stream stay.
        beat: called for each folder that is read and each clip that is deleted.
    """

    def __init__(
        self,
        pool: PoolSettings,
        limits_of: Callable[[str, StreamName], Limits] = lambda _camera_id, _stream: Limits(),
        beat: Callable[[], object] = lambda: None,
    ) -> None:
        self.pool = pool
        self._limits_of = limits_of
        self._beat = beat
        self._shelves: dict[Limits, Shelf] = {}
        #: Folders to be counted; a dictionary for its order: the last one added is counted first.
        self._due: dict[Path, None] = {}
        self._empty: set[Path] = set()
        self._undeletable: set[str] = set()
        self._clips = self._size = 0
        self._looks = 0

    @property
    def used(self) -> tuple[int, int]:
        """Clips on this disk and their bytes, as far as they are counted."""
        return self._clips, self._size

    def find(self, now_ns: int) -> None:
        """Look for folders that are new or still grow; sometimes also for what changed in the old ones."""
        full = self._looks % FULL_LOOK_EVERY == 0
        self._looks += 1
        since = "" if full else hour_at(now_ns - CLOSED_AFTER_NS)
        found = set()
        roots = [stream_folder(self.pool.path, stream) for stream in STREAM_FOLDERS]
        for day in (day for root in roots for day in day_folders(root, since)):
            self._beat()
            for folder in hour_folders(day):
                found.add(folder)
                known = self._shelf(folder).get(folder)
                if known is None:
                    self._shelf(folder).put(folder, UNCOUNTED)
                # Hours after now are open too: capture times run ahead of a clock that was set back.
                if known is None or hour_of(folder) >= since:
                    self._due[folder] = None
        if full:
            self._undeletable.clear()
            for shelf in self._shelves.values():
                shelf.again()
            for gone in [folder for folder, _ in self._folders() if folder not in found]:
                self._forget(gone)

    def sort_anew(self) -> None:
        """The limits of some cameras are others now."""
        folders, self._shelves = list(self._folders()), {}
        for folder, use in folders:
            self._shelf(folder).put(folder, use)

    def count(self, now_ns: int) -> Iterator[None]:
        """Count what was found; yields after each folder.  The next call goes on where this one was left."""
        while self._due:
            folder, _ = self._due.popitem()
            known = self._shelf(folder).get(folder)
            if known is not None:
                self._beat()
                self._put(folder, use_of(folder, known, now_ns))
                yield

    def clear(self, now_ns: int) -> Iterator[Held]:
        """Delete what is too old and what is too much; yields each clip deleted.

        Raises:
            OSError: the disk does not answer.
        """
        info = os.statvfs(self.pool.path)
        todo = excess(
            used=self._size,
            quota=round(self.pool.quota_gb * GIB),
            free=info.f_bavail * info.f_frsize,
            reserve=round(self.pool.reserve_gb * GIB),
            disk=info.f_blocks * info.f_frsize,
        )
        failed = []
        for held in plan(self._queues(todo, now_ns), todo, now_ns):
            self._beat()
            path = Path(held.name)
            try:
                path.unlink(missing_ok=True)
            except OSError as exc:
                # Left out of the next looks, so that one broken file does not stand before all others.
                self._undeletable.add(held.name)
                failed.append(f"{path}: {exc.strerror}")
                continue
            known = self._shelf(path.parent).get(path.parent) or UNCOUNTED
            self._put(path.parent, known.without(held.size))
            yield held
        if failed:
            log.warning(
                "%d clips cannot be deleted, the first: %s",
                len(failed),
                failed[0],
                extra={"event": "clips_undeletable"},
            )
        self._drop_empty(now_ns)

    def _queues(self, todo: Excess, now_ns: int) -> list[tuple[Limits, Iterator[Held]]]:
        """The clips that may have to go; where none is too old, and there is space, no folder is read."""
        found = []
        for limits, shelf in self._shelves.items():
            before_ns = limits.too_old_before(now_ns)
            if todo or (before_ns is not None and shelf.has_before(hour_at(before_ns))):
                found.append((limits, shelf.oldest_first(self._undeletable)))
        return found

    def _folders(self) -> Iterator[tuple[Path, Use]]:
        for shelf in self._shelves.values():
            yield from shelf.folders()

    def _shelf(self, folder: Path) -> Shelf:
        limits = self._limits_of(*owner_of(folder))
        shelf = self._shelves.get(limits)
        if shelf is None:
            shelf = self._shelves[limits] = Shelf(self._beat)
        return shelf

    def _put(self, folder: Path, use: Use) -> None:
        shelf = self._shelf(folder)
        before = shelf.get(folder) or UNCOUNTED
        shelf.put(folder, use)
        self._clips += use.clips - before.clips
        self._size += use.size - before.size
        if use.clips:
            self._empty.discard(folder)
        else:
            self._empty.add(folder)

    def _forget(self, folder: Path) -> None:
        self._put(folder, UNCOUNTED)
        self._empty.discard(folder)
        self._shelf(folder).take(folder)

    def _drop_empty(self, now_ns: int) -> None:
        """Remove old folders that hold nothing; an hour in which a capture may be making a file is left alone."""
        open_from = hour_at(now_ns - CLOSED_AFTER_NS)
        for folder in [folder for folder in self._empty if hour_of(folder) < open_from]:
            if drop(folder):
                self._forget(folder)
