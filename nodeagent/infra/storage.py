"""The storage pool as every stage sees it: disks with a marker file, clips found by identity, pins for open alarms.

The directory is the index: `<pool>/clips/<camera>/<YYYY-MM-DD>/<HH>/<clip>.mp4`, day and hour of the clip's start in
UTC; `<pool>/pins/<key>/<clip>.mp4` are hard links that retention does not touch.  A disk without its marker is a
missing disk and is never written, so that an unmounted disk cannot fill the file system below its mount point.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nodeagent.contract.clip import CLIP_SUFFIX, ClipId, parse_clip_name, parse_part_name
from nodeagent.contract.errors import StorageUnavailable
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.infra.files import sync_folder, write_atomically
from nodeagent.infra.settings.sections import GIB, PoolSettings, Settings

log = logging.getLogger(__name__)

#: File that makes a folder a disk of the pool.
MARKER = ".nodeagent-pool"
#: Folder of clips and folder of pins within a disk.
CLIPS_FOLDER = "clips"
PINS_FOLDER = "pins"
#: A clip is looked for in the folders of this long before the wanted time: it may have begun there, ns.
LONGEST_CLIP_NS = 3600 * NS_PER_S
#: A disk that failed a write is the last to be tried for this long, ns: the time that a person would give it.
SHUN_NS = 60 * NS_PER_S
#: Hours up to which folders are named; of a longer time those are listed that exist: two days of a window are far more
#: than a replay, and looking for folders in vain costs less than listing a month of them.
HOURS_NAMED = 48
HOUR_NS = 3600 * NS_PER_S
#: Names of clips by folder, as they were read, with start and end from the name.
Listing = dict[Path, list[tuple[int, int, str]]]
#: What may name a set of pins: it becomes a folder.
_PIN_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_HOUR_FORMAT = "%Y-%m-%d/%H"
#: Folders that could not be read at the last look, with the reason: each change is one log line.  A folder leaves it
#: when it can be read or is gone.
_unreadable: dict[Path, str] = {}


class StorageMissing(StorageUnavailable):
    """No disk of the pool carries its marker."""


class StorageFull(StorageUnavailable):
    """Every disk of the pool is at its reserve, or refuses to be written."""


@dataclass(frozen=True, slots=True)
class StoredClip:
    """A finished clip on a disk of the pool.

    Attributes:
        clip: its identity.
        duration_ns: from its name, so rounded to milliseconds.
        path: the file.
    """

    clip: ClipId
    duration_ns: int
    path: Path

    @property
    def end_ns(self) -> int:
        """Capture time at which it ends."""
        return self.clip.start_ns + self.duration_ns


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

    def folder_for(self, camera_id: str, start_ns: int) -> Path:
        """The folder for a clip that starts at `start_ns`; makes it.

        Of the disks with room each hour of a camera has one, drawn in proportion to the disks' quotas, so that all of
        them keep clips for equally long; when that one refuses, the next in the same draw is taken.

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
                folder = _made(_hour_folder(pool.path, camera_id, start_ns))
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
        key = f"{camera_id}/{_hour(start_ns)}@{pool.path}".encode()
        drawn = (int.from_bytes(hashlib.blake2b(key, digest_size=6).digest(), "big") + 1) / (2**48 + 1)
        # The least of exponential draws at these rates is each pool's in proportion to its rate.
        return start_ns < self._shunned.get(pool.path, 0), -math.log(drawn) / pool.quota_gb

    def find(self, clip: ClipId) -> StoredClip | None:
        """The finished clip of this identity."""
        begin = f"{clip.camera_id}_{clip.epoch}_{clip.start_ns}_"
        for pool in self._pools:
            folder = _hour_folder(pool.path, clip.camera_id, clip.start_ns)
            for name in _names(folder):
                parsed = parse_clip_name(name) if name.startswith(begin) else None
                if parsed is not None and parsed[0] == clip:
                    return StoredClip(*parsed, folder / name)
        return None

    def clips(self, camera_id: str, from_ns: int, to_ns: int, listing: Listing | None = None) -> list[StoredClip]:
        """Finished clips that overlap `[from_ns, to_ns)`, ordered by start.

        Args:
            camera_id: whose.
            from_ns, to_ns: capture time, UTC ns.
            listing: given to several calls, each folder is read once for all of them.
        """
        listing = {} if listing is None else listing
        found: dict[int, StoredClip] = {}
        for folder in self._folders_of(camera_id, max(0, from_ns - LONGEST_CLIP_NS), max(0, to_ns)):
            if folder not in listing:
                listing[folder] = _timed(folder)
            for start_ns, end_ns, name in listing[folder]:
                parsed = parse_clip_name(name) if start_ns < to_ns and end_ns > from_ns else None
                if parsed is not None:
                    found[start_ns] = StoredClip(*parsed, folder / name)
        return [found[start_ns] for start_ns in sorted(found)]

    def _folders_of(self, camera_id: str, from_ns: int, to_ns: int) -> list[Path]:
        """Hour folders in which clips of these hours lie, if there are any; disk by disk."""
        first, last = from_ns // HOUR_NS, to_ns // HOUR_NS
        if last - first > HOURS_NAMED:
            names = _hour(from_ns), _hour(to_ns)
            return [f for f in self.hour_folders(camera_id) if names[0] <= f"{f.parent.name}/{f.name}" <= names[1]]
        hours = [hour * HOUR_NS for hour in range(first, last + 1)]
        return [_hour_folder(pool.path, camera_id, hour) for pool in self._pools for hour in hours]

    def cameras(self) -> list[str]:
        """Cameras that have a folder on some disk."""
        return sorted({folder.name for pool in self._pools for folder in _folders(pool.path / CLIPS_FOLDER)})

    def hour_folders(self, camera_id: str) -> Iterator[Path]:
        """Every hour folder of a camera, disk by disk, oldest first on each."""
        for pool in self._pools:
            for day in _folders(pool.path / CLIPS_FOLDER / camera_id):
                yield from _folders(day)

    def parts(self, camera_id: str) -> list[tuple[ClipId, Path]]:
        """Clips that were being written, ordered by start."""
        found = [
            (clip, folder / name)
            for folder in self.hour_folders(camera_id)
            for name in _names(folder)
            if (clip := parse_part_name(name)) is not None and clip.camera_id == camera_id
        ]
        return sorted(found, key=lambda part: part[0].start_ns)

    def pin(self, clips: Sequence[StoredClip], key: str) -> list[StoredClip]:
        """Keep clips beyond retention until `unpin`; a clip that is gone by now is left out of the result.

        Raises:
            StorageFull: the disk refused the link.
        """
        kept = []
        touched: set[Path] = set()
        for stored in clips:
            folder = self._pool_of(stored.path) / PINS_FOLDER / _checked(key)
            target = folder / stored.path.name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                os.link(stored.path, target)
            except FileExistsError:
                pass
            except FileNotFoundError:
                continue
            except OSError as exc:
                raise StorageFull(f"pin {target}: {exc.strerror}") from exc
            touched.add(folder)
            kept.append(StoredClip(stored.clip, stored.duration_ns, target))
        try:
            for folder in touched:
                sync_folder(folder)
        except OSError as exc:
            raise StorageFull(f"pins of {key}: {exc.strerror}") from exc
        return kept

    def pinned(self, key: str) -> list[StoredClip]:
        """Clips that are kept under this key, ordered by start."""
        name = _checked(key)
        found = {s.clip: s for pool in self._pools for s in _stored_in(pool.path / PINS_FOLDER / name)}
        return sorted(found.values(), key=lambda stored: stored.clip.start_ns)

    def unpin(self, key: str) -> None:
        """Let go of what is kept under this key; harmless when nothing is."""
        for pool in self._pools:
            shutil.rmtree(pool.path / PINS_FOLDER / _checked(key), ignore_errors=True)

    def _pool_of(self, path: Path) -> Path:
        for pool in self._pools:
            if path.is_relative_to(pool.path):
                return pool.path
        raise ValueError(f"{path} is on no disk of the pool")


def free_bytes(path: Path) -> int:
    """Space that the file system of `path` has left for us, bytes.

    Raises:
        OSError: it does not answer.
    """
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize


def _hour(start_ns: int) -> str:
    return datetime.fromtimestamp(start_ns // NS_PER_S, UTC).strftime(_HOUR_FORMAT)


def _hour_folder(pool: Path, camera_id: str, start_ns: int) -> Path:
    return pool / CLIPS_FOLDER / camera_id / _hour(start_ns)


def _made(folder: Path) -> Path:
    """Make a folder and what is missing above it; each new name is durable before a file is put below it."""
    if not folder.is_dir():
        _made(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    return folder


def _names(folder: Path, keep: Callable[[os.DirEntry[str]], bool] = lambda entry: entry.is_file()) -> list[str]:
    """Names of what is in the folder, as far as its disk answers."""
    names: list[str] = []
    fault = ""
    try:
        with os.scandir(folder) as found:
            for entry in found:
                try:
                    if keep(entry):
                        names.append(entry.name)
                except OSError as exc:
                    fault = exc.strerror or type(exc).__name__
    except (FileNotFoundError, NotADirectoryError):
        _unreadable.pop(folder, None)
        return []
    except OSError as exc:
        fault = exc.strerror or type(exc).__name__
    _note_readable(folder, fault)
    return sorted(names)


def _note_readable(folder: Path, fault: str) -> None:
    if fault == _unreadable.get(folder, ""):
        return
    if fault:
        log.warning("%s cannot be read: %s", folder, fault, extra={"event": "folder_unreadable"})
        _unreadable[folder] = fault
    else:
        log.info("%s can be read again", folder, extra={"event": "folder_readable"})
        _unreadable.pop(folder, None)


def _folders(folder: Path) -> list[Path]:
    return [folder / name for name in _names(folder, lambda entry: entry.is_dir(follow_symlinks=False))]


def _stored_in(folder: Path) -> Iterator[StoredClip]:
    for name in _names(folder):
        parsed = parse_clip_name(name)
        if parsed is not None:
            yield StoredClip(*parsed, folder / name)


def _timed(folder: Path) -> list[tuple[int, int, str]]:
    """Start, end and name of what looks like a clip's name: its numbers only, an identity costs thirty times more."""
    found = []
    for name in _names(folder):
        fields = name.removesuffix(CLIP_SUFFIX).rsplit("_", 2)
        if len(fields) == 3 and all(field.isascii() and field.isdigit() for field in fields[1:]):
            start_ns = int(fields[1])
            found.append((start_ns, start_ns + int(fields[2]) * NS_PER_MS, name))
    return found


def _checked(key: str) -> str:
    if not _PIN_KEY.fullmatch(key):
        raise ValueError(f"pin key {key!r}: expected letters, digits, `_`, `.`, `-`")
    return key
