"""Where clips lie on a disk of the pool, and what stands in their folders.

The directory is the index: `<pool>/clips/<camera>/<YYYY-MM-DD>/<HH>/<clip>.mp4`, day and hour of the clip's start in
UTC; clips of a camera's sub-stream lie the same way under `<pool>/analyse`.  A folder that cannot be read is told once
and counts as empty: one sick disk must not end a look at the others.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from nodeagent.contract.clip import CLIP_SUFFIX, ClipId, StreamName, parse_clip_name
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.infra.files import sync_file

log = logging.getLogger(__name__)

#: Folder within a disk for the clips of each stream.
STREAM_FOLDERS: dict[StreamName, str] = {"record": "clips", "analyse": "analyse"}
HOUR_NS = 3600 * NS_PER_S
_HOUR_FORMAT = "%Y-%m-%d/%H"
#: Camera, epoch, start and duration, as `contract.clip.clip_file_name` puts them.
_CLIP_NAME = re.compile(rf".+_([0-9]+)_([0-9]+)_([0-9]+){re.escape(CLIP_SUFFIX)}")
#: Folders that could not be read at the last look, with the reason: each change is one log line.  A folder leaves it
#: when it can be read or is gone.
_unreadable: dict[Path, str] = {}


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


def hour_at(time_ns: int) -> str:
    """Day and hour of a time, as the folders are named: `2026-11-24/13`."""
    return datetime.fromtimestamp(max(0, time_ns) // NS_PER_S, UTC).strftime(_HOUR_FORMAT)


def hour_of(folder: Path) -> str:
    """Day and hour that a folder is named for."""
    return f"{folder.parent.name}/{folder.name}"


def owner_of(folder: Path) -> tuple[str, StreamName]:
    """Camera and stream of an hour folder."""
    camera = folder.parent.parent
    return camera.name, "record" if camera.parent.name == STREAM_FOLDERS["record"] else "analyse"


def stream_folder(disk: Path, stream: StreamName) -> Path:
    """Folder of all cameras' clips of one stream."""
    return disk / STREAM_FOLDERS[stream]


def hour_folder(disk: Path, camera_id: str, start_ns: int, stream: StreamName) -> Path:
    """Folder for a clip that starts at `start_ns`."""
    return stream_folder(disk, stream) / camera_id / hour_at(start_ns)


def hours_on(disk: Path, camera_id: str, stream: StreamName, *, newest_first: bool = False) -> Iterator[Path]:
    """Hour folders of a camera on a disk, in the order of their names; lazy, day by day."""
    turn = reversed if newest_first else iter
    for day in turn(folders_in(stream_folder(disk, stream) / camera_id)):
        yield from turn(folders_in(day))


def made(root: int, folder: Path) -> None:
    """Make a folder of an open disk and what is missing above it; each name is durable before a file is put below it.

    Args:
        root: descriptor of the disk's own folder: when the disk is unmounted meanwhile, its mount point stays empty.
        folder: relative to it.

    Raises:
        OSError: the disk refused.
    """
    try:
        os.stat(folder, dir_fd=root)
        return
    except FileNotFoundError:
        made(root, folder.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, dir_fd=root)
    above = open_folder(folder.parent, root)
    try:
        sync_file(above)
    finally:
        os.close(above)


def open_folder(folder: Path, root: int | None = None) -> int:
    """Descriptor of a folder, relative to an open one if there is one.

    Raises:
        OSError: there is none, or its disk does not let.
    """
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)


def names_in(folder: Path, keep: Callable[[os.DirEntry[str]], bool] = lambda entry: entry.is_file()) -> list[str]:
    """Names of what is in the folder, sorted, as far as its disk answers; of files only unless `keep` says else."""
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


def folders_in(folder: Path) -> list[Path]:
    """Folders within a folder, sorted."""
    return [folder / name for name in names_in(folder, lambda entry: entry.is_dir(follow_symlinks=False))]


def clips_in(folder: Path) -> Iterator[StoredClip]:
    """Finished clips in a folder, in the order of their names."""
    for name in names_in(folder):
        parsed = parse_clip_name(name)
        if parsed is not None:
            yield StoredClip(*parsed, folder / name)


class Named(NamedTuple):
    """What the name of a finished clip says, read without checking the camera: that costs thirty times more."""

    epoch: int
    start_ns: int
    end_ns: int


def named(name: str) -> Named | None:
    """What stands in a name that looks like a finished clip's; None when it does not."""
    found = _CLIP_NAME.fullmatch(name)
    if found is None:
        return None
    epoch, start_ns, duration_ms = map(int, found.groups())
    return Named(epoch, start_ns, start_ns + duration_ms * NS_PER_MS)


def times_in(folder: Path) -> list[tuple[int, int, str]]:
    """Start, end and name of each finished clip in a folder, UTC ns."""
    return [(clip.start_ns, clip.end_ns, name) for name in names_in(folder) if (clip := named(name)) is not None]
