"""Brightness of a sample, at a cost that does not show: every fourth pixel of every fourth row.  Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nodeagent.contract.clip import SampleLuma

#: Every so manieth pixel of every so manieth row is looked at: at 640x360 these are 14 400, about 40 us of work.
STEP = 4
_DIGITS = 2


class _Row(NamedTuple):
    mean: float
    variance: float
    difference: float | None


class LumaMeter:
    """Measures the samples of one camera, in order; `take` gives those since the last call."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []
        self._last: NDArray[np.float32] | None = None

    def measure(self, luma: NDArray[np.uint8]) -> None:
        """Look at the luma plane, (height, width), of the next sample."""
        seen: NDArray[np.float32] = luma[::STEP, ::STEP].astype(np.float32)
        last, self._last = self._last, seen
        difference = None
        if last is not None and last.shape == seen.shape:
            difference = _level(np.abs(seen - last).mean())
        self._rows.append(_Row(_level(seen.mean()), _level(seen.var()), difference))

    def skip(self) -> None:
        """The next sample has no picture that could be measured: nothing is told of the clip."""
        self._rows.append(_Row(-1.0, -1.0, None))

    def take(self) -> SampleLuma | None:
        """What was measured since the last call; none when a sample among it could not be."""
        rows, self._rows = self._rows, []
        if any(row.mean < 0 for row in rows):
            return None
        return SampleLuma(
            mean=tuple(row.mean for row in rows),
            variance=tuple(row.variance for row in rows),
            difference=tuple(row.difference for row in rows),
        )


def _level(value: Any) -> float:
    return round(float(value), _DIGITS)
