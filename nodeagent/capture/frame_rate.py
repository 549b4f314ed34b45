"""The spacing of a stream's frames, and whether it changed for good.  Pure.

The median over the latest frames in order of time: B frames, a pause or a lost frame do not move it.
"""

from __future__ import annotations

from bisect import insort
from collections import deque

#: Frames looked at: enough that what a few B frames leave open at the end does not matter.
LOOK = 24
#: Fewer than this say nothing.
LEAST = 5
#: A rate counts as another one from this part of the old one on.
CHANGED_PART = 0.2
#: Half of the spacings lie within this part of the median where the rate is steady.
STEADY_PART = 0.1


class FrameRate:
    """Spacing of frames, from their times in decoding order."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._age: deque[int] = deque()
        self._usual_ns: int | None = None
        self._differs = 0

    @property
    def step_ns(self) -> int | None:
        """The median spacing, ns; None before enough frames are known."""
        steps = self._steps()
        return steps[len(steps) // 2] if len(steps) >= LEAST else None

    def restart(self) -> None:
        """What follows has nothing to do with what was."""
        self._times.clear()
        self._age.clear()
        self._usual_ns, self._differs = None, 0

    def add(self, time_ns: int) -> None:
        """The next frame in decoding order."""
        insort(self._times, time_ns)
        self._age.append(time_ns)
        if len(self._age) > LOOK:
            self._times.remove(self._age.popleft())

    def changed(self) -> bool:
        """Asked at each key frame: whether the rate has been another one, and steady, at two of them in a row.

        The new rate is the usual one from then on.
        """
        steps = self._steps()
        if len(steps) < LOOK - 1:
            return False
        step_ns = steps[len(steps) // 2]
        if steps[3 * len(steps) // 4] - steps[len(steps) // 4] > STEADY_PART * step_ns:
            self._differs = 0
            return False
        if self._usual_ns is None:
            self._usual_ns = step_ns
            return False
        low, high = sorted((self._usual_ns, step_ns))
        self._differs = self._differs + 1 if high - low > CHANGED_PART * high else 0
        if self._differs < 2:
            return False
        self._usual_ns, self._differs = step_ns, 0
        return True

    def _steps(self) -> list[int]:
        """Spacings, growing."""
        return sorted(after - before for before, after in zip(self._times, self._times[1:], strict=False))
