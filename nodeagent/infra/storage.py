"""The storage pool as every stage sees it: disks with a marker file, clips found by identity, pins for open alarms.

Where clips lie on a disk is `infra.clip_folders`, what keeps them from retention `infra.pins`.  A disk without its
marker is a missing disk and is never written, so that an unmounted disk cannot fill the file system below its mount
point.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from nodeagent.contract.clip import ClipId, StreamName, parse_clip_name, parse_part_name
from nodeagent.contract.errors import StorageUnavailable
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra import pins
from nodeagent.infra.clip_folders import (
    HOUR_NS,
    STREAM_FOLDERS,
    StoredClip,
    folders_in,
    hour_at,
    hour_folder,
    hour_of,
    hours_on,
    made,
    names_in,
    stream_folder,
    times_in,
)
from nodeagent.infra.files import write_atomically
from nodeagent.infra.hours import hour_in
from nodeagent.infra.pins import StorageFull
from nodeagent.infra.settings.sections import GIB, PoolSettings, Settings
from nodeagent.infra.spans import Span, joined, within

__all__ = [
    "MARKER",
    "Listing",
    "Storage",
    "StorageFull",
    "StorageMissing",
    "StoredClip",
    "free_bytes",
    "init_pool",
    "is_pool",
    "open_storage",
]

#: File that makes a folder a disk of the pool.
MARKER = ".nodeagent-pool"
#: A clip is looked for in the folders of this long before the wanted time: it may have begun there, ns.
LONGEST_CLIP_NS = 3600 * NS_PER_S
#: A disk that failed a write is the last to be tried for this long, ns: the time that a person would give it.
SHUN_NS = 60 * NS_PER_S
#: Hours up to which folders are named; of a longer time those are listed that exist: two days of a window are far more
#: than a replay, and looking for folders in vain costs less than listing a month of them.
HOURS_NAMED = 48
#: Names of clips by folder, as they were read, with start and end from the name.
Listing = dict[Path, list[tuple[int, int, str]]]


class StorageMissing(StorageUnavailable):
    """No disk of the pool carries its marker."""


def is_pool(path: Path) -> bool:
    """Whether the folder carries a marker; a disk that answers with an error carries none."""
    try:
        return (path / MARKER).is_file()
    except OSError:
        return False


def init_pool(path: Path) -> str:
    """Make a folder a disk of the pool and return the disk's id; a marked one keeps its id.

    Raises:
        OSError: the folder cannot be written.
    """
    path.mkdir(parents=True, exist_ok=True)
    marker = path / MARKER
    try:
        return str(json.loads(marker.read_text())["pool_id"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pool_id = uuid.uuid4().hex
        write_atomically(marker, json.dumps({"v": 1, "pool_id": pool_id}).encode())
        return pool_id


def open_storage(settings: Settings) -> Storage:
    """The pool of this configuration; only the default disk is marked here, given ones by `nodeagent pool init`."""
    if not settings.pool:
        init_pool(settings.pools[0].path)
    return Storage(settings.pools)


class Storage:
    """All disks of the pool."""

    def __init__(self, pools: Sequence[PoolSettings]) -> None:
        self._pools = tuple(pools)
        self._shunned: dict[Path, int] = {}

    @property
    def pools(self) -> tuple[PoolSettings, ...]:
        """The disks."""
        return self._pools

    def folder_for(self, camera_id: str, start_ns: int, stream: StreamName = "record") -> Path:
        """The folder for a clip of this stream that starts at `start_ns`; makes it.

        Of the disks with room each hour of a camera has one, for both of its streams, drawn in proportion to the disks'
        quotas, so that all of them keep clips for equally long; when that one refuses, the next in the same draw is
        taken.

        Raises:
            StorageMissing: no disk has its marker.
            StorageFull: no marked disk has room or can be written.
        """
        marked = [pool for pool in self._pools if is_pool(pool.path)]
        if not marked:
            raise StorageMissing(f"missing: no marker {MARKER} in {', '.join(str(p.path) for p in self._pools)}")
        why = []
        for pool in sorted(marked, key=lambda pool: self._rank(pool, camera_id, start_ns)):
            try:
                room = free_bytes(pool.path) - round(pool.reserve_gb * GIB)
                if room <= 0:
                    why.append(f"{pool.path}: {-room / GIB:.2f} GiB below its reserve")
                    continue
                folder = made(hour_folder(pool.path, camera_id, start_ns, stream))
            except OSError as exc:
                why.append(f"{pool.path}: {exc.strerror}")
                continue
            # Making a folder that exists does not show that the disk has gone read-only.
            if os.access(folder, os.W_OK):
                return folder
            why.append(f"{pool.path}: cannot be written")
        raise StorageFull(f"full: {'; '.join(why)}")

    def shun(self, path: Path, at_ns: int) -> None:
        """A write to this file failed at capture time `at_ns`: other disks go before this one for a while."""
        for pool in self._pools:
            if path.is_relative_to(pool.path):
                self._shunned[pool.path] = at_ns + SHUN_NS

    def _rank(self, pool: PoolSettings, camera_id: str, start_ns: int) -> tuple[bool, float]:
        """Where a disk stands in the order of trial, lowest first: a rendezvous hash, weighted with the quota."""
        key = f"{camera_id}/{hour_at(start_ns)}@{pool.path}".encode()
        drawn = (int.from_bytes(hashlib.blake2b(key, digest_size=6).digest(), "big") + 1) / (2**48 + 1)
        # The least of exponential draws at these rates is each pool's in proportion to its rate.
        return start_ns < self._shunned.get(pool.path, 0), -math.log(drawn) / pool.quota_gb

    def find(self, clip: ClipId, stream: StreamName = "record") -> StoredClip | None:
        """The finished clip of this identity.  Clips of two streams may share one: the stream is not part of it."""
        begin = f"{clip.camera_id}_{clip.epoch}_{clip.start_ns}_"
        for pool in self._pools:
            folder = hour_folder(pool.path, clip.camera_id, clip.start_ns, stream)
            for name in names_in(folder):
                parsed = parse_clip_name(name) if name.startswith(begin) else None
                if parsed is not None and parsed[0] == clip:
                    return StoredClip(*parsed, folder / name)
        return None

    def clips(
        self,
        camera_id: str,
        from_ns: int,
        to_ns: int,
        listing: Listing | None = None,
        stream: StreamName = "record",
    ) -> list[StoredClip]:
        """Finished clips that overlap `[from_ns, to_ns)`, ordered by start.

        Args:
            camera_id: whose.
            from_ns, to_ns: capture time, UTC ns.
            listing: given to several calls, each folder is read once for all of them.
            stream: which of the camera's streams.
        """
        listing = {} if listing is None else listing
        found: dict[int, StoredClip] = {}
        for folder in self._folders_of(camera_id, max(0, from_ns - LONGEST_CLIP_NS), max(0, to_ns), stream):
            if folder not in listing:
                listing[folder] = times_in(folder)
            for start_ns, end_ns, name in listing[folder]:
                parsed = parse_clip_name(name) if start_ns < to_ns and end_ns > from_ns else None
                if parsed is not None:
                    found[start_ns] = StoredClip(*parsed, folder / name)
        return [found[start_ns] for start_ns in sorted(found)]

    def _folders_of(self, camera_id: str, from_ns: int, to_ns: int, stream: StreamName) -> list[Path]:
        """Hour folders in which clips of these hours lie, if there are any; disk by disk."""
        first, last = from_ns // HOUR_NS, to_ns // HOUR_NS
        if last - first > HOURS_NAMED:
            names = hour_at(from_ns), hour_at(to_ns)
            return [
                folder for folder in self.hour_folders(camera_id, stream) if names[0] <= hour_of(folder) <= names[1]
            ]
        hours = [hour * HOUR_NS for hour in range(first, last + 1)]
        return [hour_folder(pool.path, camera_id, hour, stream) for pool in self._pools for hour in hours]

    def timeline(self, camera_id: str, from_ns: int, to_ns: int, stream: StreamName = "record") -> list[Span]:
        """When the camera was recorded within `[from_ns, to_ns)`, in order: what lies between is not recorded.

        Closed hours are read from their summaries, so a month costs about as much as an hour.
        """
        folders = self._folders_of(camera_id, max(0, from_ns - LONGEST_CLIP_NS), max(0, to_ns), stream)
        return within(joined(span for folder in folders for span in hour_in(folder).spans), from_ns, to_ns)

    def newest_epoch(self, camera_id: str) -> int:
        """The highest epoch that a clip of either stream carries; 0 when there is no clip."""
        folders = (folder for stream in STREAM_FOLDERS for folder in self.hour_folders(camera_id, stream))
        return max((hour_in(folder).epoch for folder in folders), default=0)

    def newest_end(self, camera_id: str, stream: StreamName = "record") -> int | None:
        """End of the newest finished clip, UTC ns; None when there is none.

        Of each disk the folders from the newest hour back to the first with a clip are read, so it does not matter how
        many clips there are.
        """
        ends: list[int] = []
        for pool in self._pools:
            for folder in hours_on(pool.path, camera_id, stream, newest_first=True):
                if times := times_in(folder):
                    ends.append(max(end_ns for _, end_ns, _ in times))
                    break
        return max(ends, default=None)

    def cameras(self) -> list[str]:
        """Cameras that have a folder on some disk, for either stream."""
        return sorted(
            {
                folder.name
                for pool in self._pools
                for stream in STREAM_FOLDERS
                for folder in folders_in(stream_folder(pool.path, stream))
            }
        )

    def hour_folders(self, camera_id: str, stream: StreamName = "record") -> Iterator[Path]:
        """Every hour folder of a camera, disk by disk, oldest first on each."""
        for pool in self._pools:
            yield from hours_on(pool.path, camera_id, stream)

    def parts(self, camera_id: str, stream: StreamName = "record") -> list[tuple[ClipId, Path]]:
        """Clips that were being written, ordered by start; hours whose summary knows of none are not listed."""
        found = [
            (clip, folder / name)
            for folder in self.hour_folders(camera_id, stream)
            if hour_in(folder).parts
            for name in names_in(folder)
            if (clip := parse_part_name(name)) is not None and clip.camera_id == camera_id
        ]
        return sorted(found, key=lambda part: part[0].start_ns)

    def pin(self, clips: Sequence[StoredClip], key: str) -> list[StoredClip]:
        """Keep clips beyond retention until `unpin`; a clip that is gone by now is left out of the result.

        Raises:
            StorageFull: the disk refused the link.
        """
        return pins.pin(self._disks, clips, key)

    def pinned(self, key: str) -> list[StoredClip]:
        """Clips that are kept under this key, ordered by start."""
        return pins.pinned(self._disks, key)

    def unpin(self, key: str) -> None:
        """Let go of what is kept under this key; harmless when nothing is."""
        pins.unpin(self._disks, key)

    @property
    def _disks(self) -> list[Path]:
        return [pool.path for pool in self._pools]


def free_bytes(path: Path) -> int:
    """Space that the file system of `path` has left for us, bytes.

    Raises:
        OSError: it does not answer.
    """
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize
