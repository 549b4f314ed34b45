"""Cameras whose clips come back unknown, one after the other.

One unknown clip is an accident (its file was gone, it was damaged).  Several in a row of one camera are a fault that
somebody should see: an engine that always fails, a file system that cannot be read.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

#: Unknown clips of one camera in a row that count as a fault: a quarter of a minute.
FAULT_CLIPS = 3
#: Seconds without a clip after which a camera is forgotten: it is switched off, or served by another node.
FORGET_S = 60.0


@dataclass(slots=True)
class _Run:
    """Unknown clips in a row of one camera: their number, the latest's reason, and when it was noted."""

    clips: int
    reason: str
    at_s: float


class Outcomes:
    """Follows every camera's outcomes; one thread notes them, another asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}

    def unknown(self, camera_id: str, reason: str, now_s: float) -> bool:
        """A clip was not looked at; return whether it is the first after one that was."""
        with self._lock:
            clips = self._runs[camera_id].clips if camera_id in self._runs else 0
            self._runs[camera_id] = _Run(clips + 1, reason, now_s)
            return clips == 0

    def known(self, camera_id: str) -> int:
        """A clip was looked at; return how many unknown ones came just before it."""
        with self._lock:
            run = self._runs.pop(camera_id, None)
            return run.clips if run else 0

    def fault(self, now_s: float) -> str:
        """Why some camera's clips are not looked at; empty when all is well."""
        with self._lock:
            for camera_id in [name for name, run in self._runs.items() if now_s - run.at_s > FORGET_S]:
                del self._runs[camera_id]
            failing = [f"{name}: {run.reason}" for name, run in self._runs.items() if run.clips >= FAULT_CLIPS]
        if not failing:
            return ""
        others = len(failing) - 1
        return failing[0] + (f" (and {others} more)" if others else "")
