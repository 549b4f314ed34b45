"""The storage pool as every stage sees it: disks with a marker file, clips found by identity, pins for open alarms.

Where clips lie on a disk is `infra.clip_folders`, what keeps them from retention `infra.pins`.  A disk without its
marker is a missing disk and is never written, so that an unmounted disk cannot fill the file system below its mount
point.
"""

from __future__ import annotations

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
    names_in,
    stream_folder,
    times_in,
)
from nodeagent.infra.disk_notes import DiskNotes
from nodeagent.infra.disks import (
    MARKER,
    StorageMissing,
    drawn_order,
    free_bytes,
    init_pool,
    is_pool,
    prepare,
)
from nodeagent.infra.hours import hour_in
from nodeagent.infra.pins import StorageFull
from nodeagent.infra.pool_list import PoolList
from nodeagent.infra.settings.sections import PoolSettings, Settings
from nodeagent.infra.spans import Span, joined, within

__all__ = [
    "MARKER",
    "Listing",
    "Storage",
    "StorageFull",
    "StorageMissing",
    "StoredClip",
    "follow_storage",
    "free_bytes",
    "init_pool",
    "is_pool",
    "open_storage",
]

#: A clip is looked for in the folders of this long before the wanted time: it may have begun there, ns.
LONGEST_CLIP_NS = 3600 * NS_PER_S
#: Hours up to which folders are named; of a longer time those are listed that exist: two days of a window are far more
#: than a replay, and looking for folders in vain costs less than listing a month of them.
HOURS_NAMED = 48
#: Names of clips by folder, as they were read, with start and end from the name.
Listing = dict[Path, list[tuple[int, int, str]]]


def open_storage(settings: Settings) -> Storage:
    """The pool of this configuration; only the default disk is marked here, given ones by `nodeagent pool init`."""
    if not settings.pool:
        init_pool(settings.pools[0].path)
    return follow_storage(settings)


def follow_storage(settings: Settings) -> Storage:
    """The pool as this node's agent uses it now: it follows a reload."""
    return Storage(settings.pools, settings.node.state_dir)


class Storage:
    """All disks of the pool.

    Attributes:
        notes: what this node's processes tell one another of the disks; None without a state folder.
    """

    def __init__(self, pools: Sequence[PoolSettings], state_dir: Path | None = None) -> None:
        """With a state folder the list of disks is followed there (`pool_list`), and `pools` is only the first one."""
        self._fixed = tuple(pools)
        self._followed = PoolList(state_dir, pools) if state_dir is not None else None
        self.notes = DiskNotes(state_dir) if state_dir is not None else None

    @property
    def pools(self) -> tuple[PoolSettings, ...]:
        """The disks that are in use now."""
        return self._followed.now() if self._followed is not None else self._fixed

    def shunned(self, now_ns: int) -> tuple[Path, ...]:
        """The disks that are set aside now: whoever writes there may hang."""
        return tuple(self.notes.aside(now_ns)) if self.notes is not None else ()

    def folder_for(self, camera_id: str, start_ns: int, stream: StreamName = "record") -> Path:
        """The folder for a clip of this stream that starts at `start_ns`; makes it, on the first disk that takes it.

        Raises:
            StorageMissing: no disk has its marker.
            StorageFull: no marked disk has room or can be written.
        """
        why = []
        for pool in drawn_order(self.pools, camera_id, start_ns):
            try:
                return prepare(pool, camera_id, start_ns, stream)
            except StorageMissing:
                continue
            except StorageUnavailable as exc:
                why.append(str(exc))
        raise none_takes(self.pools, why)

    def find(self, clip: ClipId, stream: StreamName = "record") -> StoredClip | None:
        """The finished clip of this identity.  Clips of two streams may share one: the stream is not part of it."""
        begin = f"{clip.camera_id}_{clip.epoch}_{clip.start_ns}_"
        for pool in self.pools:
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
        return [hour_folder(pool.path, camera_id, hour, stream) for pool in self.pools for hour in hours]

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
        for pool in self.pools:
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
                for pool in self.pools
                for stream in STREAM_FOLDERS
                for folder in folders_in(stream_folder(pool.path, stream))
            }
        )

    def hour_folders(self, camera_id: str, stream: StreamName = "record") -> Iterator[Path]:
        """Every hour folder of a camera, disk by disk, oldest first on each."""
        for pool in self.pools:
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

    def pin_keys(self) -> list[str]:
        """Keys under which something is kept."""
        return pins.pin_keys(self._disks)

    def unpin(self, key: str) -> None:
        """Let go of what is kept under this key; harmless when nothing is.  A disk that is away keeps it."""
        pins.unpin(self._disks, key)

    @property
    def _disks(self) -> list[Path]:
        return [pool.path for pool in self.pools]


def none_takes(pools: Sequence[PoolSettings], why: Sequence[str]) -> StorageUnavailable:
    """The error that says that no disk takes a clip; `why` has a sentence for each one that has its marker."""
    if not why:
        return StorageMissing(f"missing: no marker {MARKER} in {', '.join(str(pool.path) for pool in pools)}")
    return StorageFull(f"full: {'; '.join(why)}")
