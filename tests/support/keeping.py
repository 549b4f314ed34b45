"""One whole look of the disk keeper."""

from __future__ import annotations

from nodeagent.capture.disk_keeper import DiskKeeper
from nodeagent.capture.retention import Held


def look(keeper: DiskKeeper, now_ns: int) -> list[Held]:
    """Find, count all, clear; returns the clips that were deleted."""
    keeper.find(now_ns)
    for _ in keeper.count(now_ns):
        pass
    return list(keeper.clear(now_ns))
