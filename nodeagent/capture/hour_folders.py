"""The hour folders of a disk as its keeper counts them: clips and bytes, listed again only when they changed."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nodeagent.contract.clip import PART_SUFFIX, parse_part_name
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.clip_folders import hour_at, hour_of, named
from nodeagent.infra.hours import hour_of_names, read_summary, summary_path, write_summary

log = logging.getLogger(__name__)

#: A folder is closed so long after its hour began: a clip of its last minute may be an hour long, ns.
CLOSED_AFTER_NS = 3 * 3600 * NS_PER_S
#: File systems tell times of change in steps of some milliseconds.  A change younger than this may be followed by
#: another one with the same time, so what is counted then is counted again, ns.
RACY_NS = 2 * NS_PER_S
_DAY, _HOUR = re.compile(r"\d{4}-\d\d-\d\d"), re.compile(r"\d\d")
_DAY_LENGTH = len("2026-11-24")
#: Folders that could not be read: each is told once.
_unreadable: set[Path] = set()


@dataclass(frozen=True, slots=True)
class Use:
    """What an hour folder holds.

    Attributes:
        clips: finished clips.
        parts: clips that are being written, or were left unfinished.
        size: bytes of all files.
        changed_ns: the folder's time of change when it was counted; 0 when the count must not be relied on.
        is_saved: whether the hour's summary says this too.
    """

    clips: int
    parts: int
    size: int
    changed_ns: int
    is_saved: bool = False

    def without(self, name: str, size: int) -> Use:
        """A file of this size was deleted.  The folder's time of change is not known any more."""
        parts = int(name.endswith(PART_SUFFIX))
        return Use(max(0, self.clips + parts - 1), max(0, self.parts - parts), max(0, self.size - size), 0)


#: A folder that is known by name only.
UNCOUNTED = Use(0, 0, 0, 0)


def day_folders(clips: Path, since: str) -> Iterator[Path]:
    """Day folders of all cameras that are not before the day of `since`."""
    for camera in _folders(clips):
        yield from (day for day in _folders(camera) if _DAY.fullmatch(day.name) and day.name >= since[:_DAY_LENGTH])


def hour_folders(day: Path) -> list[Path]:
    """Hour folders of a day."""
    return [hour for hour in _folders(day) if _HOUR.fullmatch(hour.name)]


def use_of(folder: Path, known: Use, now_ns: int) -> Use:
    """What a folder holds; lists it only when neither `known` nor its summary tells, or to leave a summary."""
    try:
        info = folder.stat()
        changed_ns = info.st_mtime_ns
        closed = is_closed(folder, now_ns)
        if known.changed_ns == changed_ns and (known.is_saved or not closed):
            return known
        if closed and (saved := read_summary(folder, info)) is not None:
            return Use(saved[0].clips, saved[0].parts, saved[1], changed_ns, is_saved=True)
        names, size = _listed(folder)
    except FileNotFoundError:
        return UNCOUNTED
    except OSError as exc:
        _say_unreadable(folder, exc)
        # What it holds is not known: a summary that says nothing of it would be believed when it can be read again.
        return replace(known, changed_ns=0)
    hour = hour_of_names(names)
    if abs(now_ns - changed_ns) < RACY_NS:
        return Use(hour.clips, hour.parts, size, 0)
    is_saved = closed and write_summary(folder, hour, size, info)
    return Use(hour.clips, hour.parts, size, changed_ns, is_saved)


def is_closed(folder: Path, now_ns: int) -> bool:
    """Whether no capture writes into this hour any more."""
    return hour_of(folder) < hour_at(now_ns - CLOSED_AFTER_NS)


def _listed(folder: Path) -> tuple[list[str], int]:
    """Names of what is in a folder, and its bytes.

    Raises:
        OSError: it cannot be read, or not all of it.
    """
    size, names = 0, []
    with os.scandir(folder) as found:
        for entry in found:
            try:
                size += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
            names.append(entry.name)
    return names, size


def clip_starts(folder: Path, with_parts: bool) -> list[tuple[int, str]]:
    """Capture time of its start, UTC ns, and path of each of the camera's clips in its hour folder."""
    begin = f"{folder.parents[1].name}_"
    found = []
    for entry in _entries(folder):
        if not entry.name.startswith(begin):
            continue
        if (clip := named(entry.name)) is not None:
            found.append((clip.start_ns, entry.path))
        elif with_parts and (part := parse_part_name(entry.name)) is not None:
            found.append((part.start_ns, entry.path))
    return found


def drop(folder: Path) -> bool:
    """Remove an empty folder, its summary, and what of the folders above is empty then; whether it is gone."""
    try:
        with os.scandir(folder) as found:
            if next(found, None) is not None:
                return False
        summary_path(folder).unlink(missing_ok=True)
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
        folder.parent.parent.rmdir()
    return True


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing when it is gone.  One that cannot be read must not end the look after the others."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []
    except OSError as exc:
        _say_unreadable(folder, exc)
        return []


def _say_unreadable(folder: Path, error: OSError) -> None:
    if folder not in _unreadable:
        log.warning("%s cannot be read: %s", folder, error.strerror, extra={"event": "folder_unreadable"})
    _unreadable.add(folder)


def _folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]
