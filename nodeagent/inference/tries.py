"""Clips that are under way, and how often each ended the worker that tried it.

One file for each clip under way, one byte in it for each try: written before the clip is read, removed when the broker
has its result.  What is there at a start ended a worker, whichever; no content is parsed, so none can be damaged.

What kill -9 does: between the byte and the end of the clip, the clip is charged with a try, and so are the few that
were under way with it.  A clip that is charged is tried alone, so the next kill charges only the one that did it.
Between the acknowledgement and the removal: a file stays that nobody asks for any more, until it is old.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from nodeagent.contract.clip import ClipId
from nodeagent.contract.ids import NS_PER_S
from nodeagent.inference.work import WAIT_S, Cancelled

log = logging.getLogger(__name__)

#: Tries of one clip after which it is given up: by then it has ended three workers, the last two of them alone.
TRIES_MAX = 3
#: Age at which a file counts as forgotten, seconds: a task does not wait for a day.
FORGOTTEN_S = 86_400.0


class Tries:
    """The tries of one worker, in a folder that all workers of the node share."""

    def __init__(self, folder: Path, over: threading.Event, now_ns: int) -> None:
        """`over` ends every wait; `now_ns`: wall clock, by which forgotten files are removed."""
        self._folder = folder
        self._over = over
        self._changed = threading.Condition()
        self._under_way: set[ClipId] = set()
        self._fault = ""
        self._note(lambda: _tidy(folder, now_ns))

    def of(self, clip: ClipId) -> int:
        """Tries of this clip that are not concluded."""
        try:
            return self._path(clip).stat().st_size
        except OSError:
            return 0

    def begin(self, clip: ClipId) -> None:
        """Charge the clip with a try, before anything that it could break is done with it."""
        with self._changed:
            self._under_way.add(clip)
            self._note(lambda: _append(self._path(clip)))

    def conclude(self, clip: ClipId) -> None:
        """The clip did no harm, or is given up."""
        with self._changed:
            self._note(lambda: self._path(clip).unlink(missing_ok=True))
            self._under_way.discard(clip)
            self._changed.notify_all()

    def give_back(self, clip: ClipId) -> None:
        """The clip goes back to the broker, not by its own fault: a try that was begun does not count."""
        with self._changed:
            if clip in self._under_way:
                self._note(lambda: _shorten(self._path(clip)))
                self._under_way.discard(clip)
                self._changed.notify_all()

    def give_back_all(self) -> None:
        """The worker ends in good order; nothing that was under way is to blame."""
        for clip in tuple(self._under_way):
            self.give_back(clip)

    def wait_for_room(self, limit: int, alive: Callable[[], None]) -> None:
        """Wait until fewer than `limit` clips are under way.

        Raises:
            Cancelled: the worker ends.
        """
        with self._changed:
            while not self._changed.wait_for(lambda: len(self._under_way) < limit, WAIT_S):
                alive()
                if self._over.is_set():
                    raise Cancelled

    def _path(self, clip: ClipId) -> Path:
        return self._folder / f"{clip.camera_id}_{clip.epoch}_{clip.start_ns}"

    def _note(self, do: Callable[[], None]) -> None:
        """Do it; a disk that refuses costs the count, not the clip."""
        try:
            do()
        except OSError as exc:
            if not self._fault:
                log.warning("tries are not counted: %s", exc, extra={"event": "tries_not_kept"})
            self._fault = str(exc)
        else:
            self._fault = ""


def _tidy(folder: Path, now_ns: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        # Another worker of the node may remove it first.
        with contextlib.suppress(FileNotFoundError):
            if now_ns - path.stat().st_mtime_ns > FORGOTTEN_S * NS_PER_S:
                path.unlink()


def _append(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, b".")
    finally:
        os.close(fd)


def _shorten(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if (size := path.stat().st_size) > 1:
            os.truncate(path, size - 1)
        else:
            path.unlink()
