"""Which frames are analysed.  Pure: a function of frame times alone, so every path chooses the same frames.

With the period p = 1 / sample_fps, a frame is a sample when it is the first one in its cell of an absolute UTC grid of
that period.  A stream of about the sample rate needs one thing more, or jitter would push two of its frames into one
cell and leave the next one empty: where frames are far apart, one that comes late in a cell which has its sample
already stands for the next cell.  So each cell counts for one sample at most, and the rate is never above the asked.

Integers only: a float would choose differently near a cell's edge.
"""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction

from nodeagent.contract.ids import NS_PER_S

#: Rates are taken as fractions with at most this denominator: 29.97 is kept to a tenth of a thousandth.
_RATE_DENOMINATOR = 1001
#: Frames that are remembered: more than any reordering of frames spans.
_KEPT = 64
#: Frames are far apart when the one before the last is at least so many periods old, as a fraction in integers.
_FAR = (3, 2)
#: From this part of it on a cell is late: stamps of cameras jitter by some tens of milliseconds.
_LATE = (3, 5)


def cell_of(time_ns: int, rate: Fraction) -> int:
    """Cell of the sampling grid that a time lies in."""
    return time_ns * rate.numerator // (rate.denominator * NS_PER_S)


def rate_of(sample_fps: float) -> Fraction:
    """The configured rate as an exact number."""
    return Fraction(sample_fps).limit_denominator(_RATE_DENOMINATOR)


class Sampler:
    """Chooses samples from frames in order of time; `previous_ns` is the frame before the first one, if known."""

    def __init__(self, sample_fps: float, previous_ns: int | None = None) -> None:
        self._rate = rate_of(sample_fps)
        # Length of a cell in the units that `cell_of` divides by.
        self._unit = self._rate.denominator * NS_PER_S
        # Frames lately told of, growing; the last cell that has its sample.
        self._known = [] if previous_ns is None else [previous_ns]
        self._cell = None if previous_ns is None else cell_of(previous_ns, self._rate)

    def may_skip(self, time_ns: int) -> bool:
        """Told of each frame in decoding order, before it is decoded: whether it is surely no sample.

        It needs no decoding then if nothing refers to it.  A frame is surely no sample when an earlier one of its cell
        is known already, which is decoded itself, as it was the first known of its cell when it came.
        """
        at = self._place(time_ns)
        cell = cell_of(time_ns, self._rate)
        if not at or cell_of(self._known[at - 1], self._rate) != cell:
            return False
        # Frames that are still to come can only bring the ones before it nearer.
        return not self._is_late(time_ns) or (at >= 2 and not self._is_far(at))

    def take(self, time_ns: int) -> bool:
        """Whether the next frame, in order of time, is a sample."""
        at = self._place(time_ns)
        cell = cell_of(time_ns, self._rate)
        if self._cell is None or cell > self._cell:
            self._cell = cell
            return True
        if cell == self._cell and self._is_late(time_ns) and self._is_far(at):
            self._cell = cell + 1
            return True
        return False

    def _is_late(self, time_ns: int) -> bool:
        return time_ns * self._rate.numerator % self._unit * _LATE[1] >= self._unit * _LATE[0]

    def _is_far(self, at: int) -> bool:
        if at < 2:
            return False
        passed_ns = self._known[at] - self._known[at - 2]
        return passed_ns * self._rate.numerator * _FAR[1] >= self._unit * _FAR[0]

    def _place(self, time_ns: int) -> int:
        """Remember a frame; returns its place among those that are known."""
        at = bisect_left(self._known, time_ns)
        if at == len(self._known) or self._known[at] != time_ns:
            self._known.insert(at, time_ns)
            if len(self._known) > _KEPT:
                del self._known[0]
                at = max(0, at - 1)
        return at
