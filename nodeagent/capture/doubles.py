"""One clip, several unfinished files: a clip that moved to another disk may have left one on the disk that failed.

Killed before that file is removed, or while the disk refuses even that, the next start finds it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from nodeagent.capture.fragments import wholeness
from nodeagent.capture.journal import Journal
from nodeagent.contract.clip import ClipId, StreamName
from nodeagent.infra.storage import Storage

log = logging.getLogger(__name__)

Parts = list[tuple[ClipId, Path]]


def without_doubles(storage: Storage, journal: Journal, parts: Parts, stream: StreamName) -> Parts:
    """Those of these files that are to be made clips of, in the same order; removes what is there already.

    A clip that the journal has and no disk shows lies on a disk that is away: what is left of it here waits.
    """
    told = {closed.key for closed in journal.all_unconfirmed() if closed.task.stream == stream}
    if journal.last is not None and journal.last.task.stream == stream:
        told.add(journal.last.key)
    files: dict[ClipId, list[Path]] = {}
    for clip, path in parts:
        files.setdefault(clip, []).append(path)
    kept: Parts = []
    for clip, paths in files.items():
        if storage.find(clip, stream) is not None:
            _remove(paths)
        elif (clip.epoch, clip.start_ns) not in told:
            longest = max(paths, key=_whole_bytes)
            kept.append((clip, longest))
            _remove([path for path in paths if path != longest])
    return kept


def _whole_bytes(path: Path) -> int:
    try:
        return wholeness(path).length
    except OSError:
        return -1


def _remove(paths: list[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            log.warning("%s cannot be removed: %s", path, exc.strerror, extra={"event": "double_left"})
