"""Cameras that this judge serves no more, until nothing of them is routed here.

Pure: `now_s` is monotonic time.  Only a camera that leaves is remembered, and only by the process that saw it leave.
After a kill it is noticed by its next clip that comes here, and without one its binding is harmless.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

#: Seconds for which a camera that left stays bound: its last clips, which its capture closes when it is stopped and
#: inference may have a backlog of, still find their way here.  Unbound, they would hold up whoever publishes them.
UNBIND_AFTER_S: Final = 300.0
#: Cameras remembered at most, as keys of alien messages have no end.  One left out is noticed by its next clip.
LEAVERS_MAX: Final = 1000


class Leavers:
    """The cameras, with the time from which each may be unbound, in the order of these."""

    def __init__(self) -> None:
        self._due_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._due_s)

    def note(self, camera_id: str, now_s: float) -> None:
        """It left, or something of it came here though it is not served; known already, its time stays."""
        if len(self._due_s) < LEAVERS_MAX:
            self._due_s.setdefault(camera_id, now_s + UNBIND_AFTER_S)

    def forget(self, cameras: Collection[str]) -> None:
        """These are served (again), or unbound."""
        for camera_id in cameras:
            self._due_s.pop(camera_id, None)

    def due(self, now_s: float) -> str | None:
        """A camera that is to be unbound now; the same one until it is forgotten."""
        camera_id = next(iter(self._due_s), None)
        return camera_id if camera_id is not None and self._due_s[camera_id] <= now_s else None
