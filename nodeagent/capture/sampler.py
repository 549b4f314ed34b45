"""Which frames are analysed.  Pure: a function of frame times alone, so every path chooses the same frames.

With the period p = 1 / sample_fps, a frame is a sample when floor(t / p) differs from that of the frame before it: the
first frame in each cell of an absolute UTC grid.  Integers only: a float would choose differently near a cell's edge.
"""

from __future__ import annotations

from fractions import Fraction

from nodeagent.contract.ids import NS_PER_S

#: Rates are taken as fractions with at most this denominator: 29.97 is kept to a tenth of a thousandth.
_RATE_DENOMINATOR = 1001
#: Cells that the skipper remembers: more than any reordering of frames spans.
_CELLS_KEPT = 64


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
        self._cell = None if previous_ns is None else cell_of(previous_ns, self._rate)

    def take(self, time_ns: int) -> bool:
        """Whether the next frame is a sample."""
        cell = cell_of(time_ns, self._rate)
        taken = self._cell is None or cell > self._cell
        if taken:
            self._cell = cell
        return taken


class Skipper:
    """Tells, in decoding order, which frames cannot be samples: they need no decoding if nothing refers to them.

    A frame is surely no sample when an earlier one of its cell is known already.  That one is decoded (it was the first
    known of its cell when it came), so the sampler decides as if nothing had been skipped.
    """

    def __init__(self, sample_fps: float) -> None:
        self._rate = rate_of(sample_fps)
        self._earliest: dict[int, int] = {}

    def may_skip(self, time_ns: int) -> bool:
        """Whether the next frame in decoding order is surely no sample."""
        cell = cell_of(time_ns, self._rate)
        known = self._earliest.get(cell)
        if known is not None and known < time_ns:
            return True
        self._earliest[cell] = time_ns
        if len(self._earliest) > _CELLS_KEPT:
            del self._earliest[min(self._earliest)]
        return False
