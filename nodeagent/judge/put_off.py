"""How many detections of this judge's own queue wait elsewhere until they come back to it.

Pure: `now_s` is monotonic time.  The broker keeps what is put off in queues that all nodes share, where nobody can tell
whose it is; whoever waits for this node to finish has to know.
"""

from __future__ import annotations

import heapq


class PutOff:
    """The times at which they come back."""

    def __init__(self) -> None:
        self._due_s: list[float] = []

    def note(self, due_s: float) -> None:
        """One more comes back then."""
        heapq.heappush(self._due_s, due_s)

    def count(self, now_s: float) -> int:
        """How many are away; those that are due are in their queue again."""
        while self._due_s and self._due_s[0] <= now_s:
            heapq.heappop(self._due_s)
        return len(self._due_s)
