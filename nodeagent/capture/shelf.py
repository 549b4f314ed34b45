"""The hour folders of cameras that share their limits, on one disk: what they hold, and their clips oldest first.

The clips of the oldest hour are read once and remembered, so that a disk which is always full is not listed at each
look.  What is remembered are names: each clip is looked at anew just before it is handed out, since it may be pinned or
gone by then.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from nodeagent.capture.hour_folders import Use, clip_starts
from nodeagent.capture.retention import Held
from nodeagent.infra.clip_folders import hour_of

#: Most clips that are remembered, some 2 MB: two hundred cameras make as many in four minutes.
REMEMBERED_MOST = 10_000


class Shelf:
    """Folders by hour; `beat` is called for each folder that is read."""

    def __init__(self, beat: Callable[[], object]) -> None:
        self._beat = beat
        self._hours: dict[str, dict[Path, Use]] = {}
        #: Oldest clips of the hour `_hour`, start and path; `_is_whole` when it has no others after them.
        self._next: deque[tuple[int, str]] = deque()
        self._hour = ""
        self._is_whole = False
        #: The last clip of that hour that was looked at.
        self._past = (-1, "")
        #: Hours up to this one hold nothing that can go.
        self._done = ""

    def folders(self) -> Iterator[tuple[Path, Use]]:
        """Every folder with what is known of it."""
        for folders in self._hours.values():
            yield from folders.items()

    def get(self, folder: Path) -> Use | None:
        """What is known of a folder; None when it does not stand here."""
        return self._hours.get(hour_of(folder), {}).get(folder)

    def put(self, folder: Path, use: Use) -> None:
        """Take in a folder, or what is known of it now."""
        folders = self._hours.setdefault(hour_of(folder), {})
        if folder not in folders or use.clips > folders[folder].clips:
            self._came(hour_of(folder))
        folders[folder] = use

    def take(self, folder: Path) -> None:
        """The folder leaves."""
        folders = self._hours.get(hour_of(folder), {})
        folders.pop(folder, None)
        if not folders:
            self._hours.pop(hour_of(folder), None)

    def again(self) -> None:
        """Look anew at what could not be deleted."""
        self._done = ""
        self._forget_clips()

    def has_before(self, hour: str) -> bool:
        """Whether a folder of an hour up to this one may hold clips."""
        return any(self._done < known <= hour for known in self._hours)

    def oldest_first(self, left_out: Collection[str], open_from: str) -> Iterator[Held]:
        """Clips, oldest first, but those with these names: whoever takes one deletes it or adds its name there.

        Of hours before `open_from` also what was left unfinished: nobody writes there any more.
        """
        for hour in sorted(hour for hour in self._hours if hour > self._done):
            with_parts = hour < open_from
            if hour != self._hour:
                self._past = (-1, "")
                self._read(hour, with_parts)
            while True:
                yield from self._remembered(left_out)
                if self._is_whole:
                    break
                self._read(hour, with_parts)
            self._done = hour

    def _remembered(self, left_out: Collection[str]) -> Iterator[Held]:
        while self._next:
            start_ns, name = self._next[0]
            held = None if name in left_out else _look_at(start_ns, name)
            if held is not None:
                yield held
            if self._next and self._next[0][1] == name:
                self._past = self._next.popleft()

    def _read(self, hour: str, with_parts: bool) -> None:
        """Remember the next clips of an hour: whatever became of those before, it is read to its end."""
        found: list[tuple[int, str]] = []
        count = 0
        for folder in self._hours[hour]:
            self._beat()
            clips = [clip for clip in clip_starts(folder, with_parts) if clip > self._past]
            count += len(clips)
            found += clips
            if len(found) > 3 * REMEMBERED_MOST:
                found = sorted(found)[:REMEMBERED_MOST]
        self._next = deque(sorted(found)[:REMEMBERED_MOST])
        self._hour, self._is_whole = hour, count <= REMEMBERED_MOST

    def _forget_clips(self) -> None:
        self._hour = ""
        self._next.clear()

    def _came(self, hour: str) -> None:
        """Something new stands in this hour."""
        if hour <= self._done:
            self._done = ""
        if hour <= self._hour:
            self._forget_clips()


def _look_at(start_ns: int, name: str) -> Held | None:
    try:
        info = os.lstat(name)
    except OSError:
        return None
    return Held(start_ns, info.st_size, info.st_nlink > 1, name)
