"""What each hour folder holds, in one small file: when it was recorded, and how much, without listing its clips.

A closed hour has a summary beside its folder, `<day>/<HH>.summary`, written by the node's storage worker.  It is
trusted while the folder is the same one and still has the time of change that stands in it, so whoever adds or deletes
a file, also one who is killed in the middle, only causes one listing more, and so does a copy on another disk: copying
two disks into one gives folders the other's time.  That is why it lies beside the folder and not inside: writing it
changes nothing.  An hour without a good summary, such as the one that grows, is listed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nodeagent.contract.clip import PART_SUFFIX
from nodeagent.infra.clip_folders import named, names_in
from nodeagent.infra.spans import Span, joined

#: Ending of an hour's summary.
SUMMARY_SUFFIX = ".summary"
_VERSION = 3


@dataclass(frozen=True, slots=True)
class Hour:
    """What an hour folder holds.

    Attributes:
        clips: finished clips.
        parts: clips that are being written, or were left unfinished.
        epoch: highest epoch in a clip's name; 0 without clips.
        spans: when it was recorded, in order; holes that are shorter than a gap of the ledger are closed.
    """

    clips: int
    parts: int
    epoch: int
    spans: tuple[Span, ...]


def hour_in(folder: Path) -> Hour:
    """What a folder holds: from its summary, or listed when that is missing or too old."""
    with contextlib.suppress(OSError):
        if (saved := read_summary(folder, folder.stat())) is not None:
            return saved[0]
    return hour_of_names(names_in(folder))


def hour_of_names(names: Iterable[str]) -> Hour:
    """What a folder with files of these names holds."""
    clips, epoch, parts = [], 0, 0
    for name in names:
        clip = named(name)
        if clip is not None:
            clips.append(Span(clip.start_ns, clip.end_ns))
            epoch = max(epoch, clip.epoch)
        else:
            parts += name.endswith(PART_SUFFIX)
    return Hour(len(clips), parts, epoch, tuple(joined(clips)))


def summary_path(folder: Path) -> Path:
    """The summary's place."""
    return folder.with_name(folder.name + SUMMARY_SUFFIX)


def read_summary(folder: Path, info: os.stat_result) -> tuple[Hour, int] | None:
    """What the summary says of a folder in this state, and the bytes in it; None without a good one."""
    try:
        record = json.loads(summary_path(folder).read_bytes())
        if (record["v"], record["inode"], record["changed_ns"]) != (_VERSION, info.st_ino, info.st_mtime_ns):
            return None
        spans = tuple(Span(int(from_ns), int(to_ns)) for from_ns, to_ns in record["spans"])
        return Hour(int(record["clips"]), int(record["parts"]), int(record["epoch"]), spans), int(record["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_summary(folder: Path, hour: Hour, size: int, info: os.stat_result) -> bool:
    """Leave what a closed hour holds, `size` in bytes, with the folder's state before it was listed; whether it could.

    Not synced and not renamed: half a summary is no JSON, and costs one listing more.
    """
    record = {
        "v": _VERSION,
        "inode": info.st_ino,
        "changed_ns": info.st_mtime_ns,
        "clips": hour.clips,
        "bytes": size,
        "parts": hour.parts,
        "epoch": hour.epoch,
        "spans": hour.spans,
    }
    try:
        summary_path(folder).write_text(json.dumps(record, separators=(",", ":")))
    except OSError:
        return False
    return True
