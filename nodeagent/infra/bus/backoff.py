"""How long to wait before the next try of something that is tried for ever."""

from __future__ import annotations

import random

#: First delay, seconds: a broker that was only restarted is back in the time of one or two tries.
FIRST_S = 0.2
#: Longest delay, seconds: a broker that was away for hours is used within so long of its return.
LONGEST_S = 5.0


class Backoff:
    """Delays that double from FIRST_S to LONGEST_S, each drawn from its upper half so that peers spread out."""

    def __init__(self, draw: random.Random | None = None) -> None:
        self._draw = draw or random.Random()
        self._next_s = FIRST_S

    def next_s(self) -> float:
        """The delay before the next try."""
        delay_s = self._next_s
        self._next_s = min(delay_s * 2, LONGEST_S)
        return delay_s * self._draw.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It worked: begin anew next time."""
        self._next_s = FIRST_S
