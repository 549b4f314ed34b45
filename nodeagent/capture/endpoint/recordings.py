"""What is recorded here, as the endpoint's routes ask for it: a thin layer over pool, ledger and wanted set.

It blocks on disks, so it runs in threads of its own and never on the event loop.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nodeagent.contract.clip import ClipId, StreamName
from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.clip_folders import StoredClip
from nodeagent.infra.gaps import Gap, read_gaps
from nodeagent.infra.spans import Span
from nodeagent.infra.storage import Storage
from nodeagent.infra.wanted import WantedFile

log = logging.getLogger(__name__)

#: Clips are looked for in windows of this length, ns, so that a page of a long time reads no more than it shows.
WINDOW_NS = 6 * 3600 * NS_PER_S


@dataclass(frozen=True, slots=True)
class OpenClip:
    """A finished clip whose file is open, so that retention cannot take it from under a transfer.

    Attributes:
        stored: the clip.
        fd: to be closed by whoever got this.
        size: bytes.
        changed_ns: when the file was last written, UTC ns.
    """

    stored: StoredClip
    fd: int
    size: int
    changed_ns: int


class Recordings:
    """Clips and gaps of this node."""

    def __init__(self, storage: Storage, state_dir: Path, wanted: WantedFile) -> None:
        self._storage = storage
        self._state_dir = state_dir
        self._wanted = wanted

    def cameras(self) -> dict[str, bool]:
        """Every camera with recordings here, or that should have some, and whether this node records it now."""
        try:
            self._wanted.refresh()
        except DecodeError as exc:
            log.warning("%s", exc, extra={"event": "wanted_broken"})
        now = {camera.camera_id for camera in self._wanted.current.cameras}
        return {name: name in now for name in sorted(now.union(self._storage.cameras()))}

    def clips(
        self, camera_id: str, from_ns: int, to_ns: int, stream: StreamName, after_ns: int
    ) -> Iterator[StoredClip]:
        """Finished clips that overlap `[from_ns, to_ns)` and start after `after_ns`, in order; lazy."""
        at = max(from_ns, after_ns)
        while at < to_ns:
            end = min(to_ns, at + WINDOW_NS)
            for stored in self._storage.clips(camera_id, at, end, stream=stream):
                if stored.clip.start_ns > after_ns:
                    after_ns = stored.clip.start_ns
                    yield stored
            at = end

    def timeline(self, camera_id: str, from_ns: int, to_ns: int, stream: StreamName) -> list[Span]:
        """When it was recorded."""
        return self._storage.timeline(camera_id, from_ns, to_ns, stream)

    def gaps(self, camera_id: str, from_ns: int, to_ns: int) -> list[Gap]:
        """When its main stream was not, and why."""
        return read_gaps(self._state_dir, camera_id, from_ns, to_ns)

    def open(self, clip: ClipId, stream: StreamName) -> OpenClip | None:
        """Open a clip by identity; None when it is not here, or not any more.

        Raises:
            OSError: its disk does not answer.
        """
        stored = self._storage.find(clip, stream)
        if stored is None:
            return None
        try:
            fd = os.open(stored.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        info = os.fstat(fd)
        return OpenClip(stored, fd, info.st_size, info.st_mtime_ns)
