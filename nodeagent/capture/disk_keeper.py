"""Counts and clears one disk of the pool.

Sizes are counted per hour folder (`hour_folders`), a part of them at each look, so that however many clips there are,
the first deletion does not wait for the last count: what is not counted yet is not over the quota, and the reserve is
kept from the first look on.  Which clips go is `retention`; of those that share their limits the oldest do, over all
cameras (`shelf`).  A pinned clip loses its name here and keeps its bytes under `pins/`.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from nodeagent.capture.classes import LimitsOf
from nodeagent.capture.hour_folders import (
    CLOSED_AFTER_NS,
    UNCOUNTED,
    Use,
    day_folders,
    drop,
    hour_folders,
    use_of,
)
from nodeagent.capture.retention import Excess, Held, Limits, excess, plan
from nodeagent.capture.shelf import Shelf
from nodeagent.infra.clip_folders import STREAM_FOLDERS, hour_at, hour_of, owner_of, stream_folder
from nodeagent.infra.disks import MARKER, read_marker
from nodeagent.infra.settings.sections import GIB, PoolSettings
from nodeagent.infra.storage import StorageMissing

log = logging.getLogger(__name__)

#: One look in so many goes through all folders, for what others than captures changed: every ten minutes or so.
FULL_LOOK_EVERY = 120
#: Deletions that a disk may refuse in one look, before the rest waits for the next: it may be all of them.
REFUSED_MOST = 20


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
        limits_of: LimitsOf = lambda _camera_id, _stream: Limits(),
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
        #: Whether a refused deletion was told since the last look through all folders.
        self._told = False
        self._clips = self._size = 0
        self._looks = 0
        self._pool_id = ""

    @property
    def used(self) -> tuple[int, int]:
        """Clips on this disk and their bytes, as far as they are counted."""
        return self._clips, self._size

    def follow(self, pool: PoolSettings, limits_of: LimitsOf) -> None:
        """The disk's settings, and the limits of some cameras, may be others now."""
        self.pool = pool
        if limits_of is not self._limits_of:
            folders, self._shelves, self._limits_of = list(self._folders()), {}, limits_of
            for folder, use in folders:
                self._shelf(folder).put(folder, use)

    def find(self, now_ns: int) -> None:
        """Look for folders that are new or still grow; sometimes also for what changed in the old ones.

        Raises:
            StorageMissing: the disk has no marker.  When one comes back it is counted anew: it may be another one.
        """
        self._recognise()
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
            self._begin_again(found)

    def _recognise(self) -> None:
        marker = read_marker(self.pool.path)
        if marker is None or marker.pool_id != self._pool_id:
            self._forget_all()
        if marker is None:
            raise StorageMissing(f"{self.pool.path}: no marker {MARKER}")
        self._pool_id = marker.pool_id

    def _begin_again(self, found: set[Path]) -> None:
        """All folders were looked at: these are there, and what could not be deleted is tried anew."""
        self._undeletable.clear()
        self._told = False
        for shelf in self._shelves.values():
            shelf.again()
        for gone in [folder for folder, _ in self._folders() if folder not in found]:
            self._forget(gone)

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
            OSError: the disk does not answer, or is read-only.
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
                if exc.errno == errno.EROFS:
                    raise
                # Left out of the next looks, so that one broken file does not stand before all others.
                self._undeletable.add(held.name)
                failed.append(f"{path}: {exc.strerror}")
                if len(failed) >= REFUSED_MOST:
                    break
                continue
            known = self._shelf(path.parent).get(path.parent) or UNCOUNTED
            self._put(path.parent, known.without(path.name, held.size))
            yield held
        if failed and not self._told:
            self._told = True
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
                found.append((limits, shelf.oldest_first(self._undeletable, hour_at(now_ns - CLOSED_AFTER_NS))))
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
        if use.clips or use.parts:
            self._empty.discard(folder)
        else:
            self._empty.add(folder)

    def _forget(self, folder: Path) -> None:
        self._put(folder, UNCOUNTED)
        self._empty.discard(folder)
        self._shelf(folder).take(folder)

    def _forget_all(self) -> None:
        self._shelves.clear()
        self._due.clear()
        self._empty.clear()
        self._clips = self._size = self._looks = 0

    def _drop_empty(self, now_ns: int) -> None:
        """Remove old folders that hold nothing; an hour in which a capture may be making a file is left alone."""
        open_from = hour_at(now_ns - CLOSED_AFTER_NS)
        for folder in [folder for folder in self._empty if hour_of(folder) < open_from]:
            if drop(folder):
                self._forget(folder)
            else:
                # Until it is counted anew: something else lies there, or its disk refuses.
                self._empty.discard(folder)
