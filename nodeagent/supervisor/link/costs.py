"""What cameras cost here, and how fast inference is, measured from counters that only grow.  Pure.

Figures are averages over about a minute, so that a busy second moves no camera.  A camera that delivers nothing keeps
its last figures: it will cost as much again when it is back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nodeagent.contract.ownership import Resources

#: Time constant of the averages, seconds.
TAU_S = 60.0
#: Shorter spans between two readings are not measured, seconds: one clip or tick of the CPU's clock would be all.
SPAN_LEAST_S = 0.5


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters of one camera's capture process.

    Attributes:
        at_s: monotonic time.
        pid: of the process; another one begins anew.
        cpu_s: CPU time that the process took.
        samples: samples that it chose.
        written: bytes of clips that it wrote.
        ring_bytes: size of its rings, now.
        delivers: whether pictures arrive.
    """

    at_s: float
    pid: int
    cpu_s: float
    samples: int
    written: int
    ring_bytes: int
    delivers: bool


def smoothed(old: float, new: float, span_s: float) -> float:
    """The average that was `old`, after `span_s` of `new`."""
    share = -math.expm1(-span_s / TAU_S)
    return old + share * (new - old)


class Costs:
    """The costs of all cameras."""

    def __init__(self) -> None:
        self._last: dict[str, Reading] = {}
        self._known: dict[str, Resources] = {}

    def add(self, camera_id: str, reading: Reading) -> None:
        """Take one reading; readings of one camera come in order."""
        last = self._last.get(camera_id)
        if last is not None and last.pid == reading.pid and reading.at_s - last.at_s < SPAN_LEAST_S:
            return
        self._last[camera_id] = reading
        if last is None or last.pid != reading.pid or not (last.delivers and reading.delivers):
            return
        span_s = reading.at_s - last.at_s
        now = Resources(
            decode_cores=_rate(last.cpu_s, reading.cpu_s, span_s),
            infer_per_s=_rate(last.samples, reading.samples, span_s),
            ring_bytes=float(reading.ring_bytes),
            write_bytes_s=_rate(last.written, reading.written, span_s),
        )
        known = self._known.get(camera_id, now)
        self._known[camera_id] = Resources(
            decode_cores=smoothed(known.decode_cores, now.decode_cores, span_s),
            infer_per_s=smoothed(known.infer_per_s, now.infer_per_s, span_s),
            ring_bytes=now.ring_bytes,
            write_bytes_s=smoothed(known.write_bytes_s, now.write_bytes_s, span_s),
        )

    def of(self, cameras: Iterable[str]) -> dict[str, Resources]:
        """Figures of those cameras that were measured; what is known of others is forgotten."""
        kept = set(cameras)
        for camera_id in self._last.keys() - kept:
            del self._last[camera_id]
            self._known.pop(camera_id, None)
        return {camera_id: self._known[camera_id] for camera_id in sorted(kept & self._known.keys())}


class EngineSpeed:
    """How many samples a second one inference worker can look at."""

    def __init__(self) -> None:
        self._last: tuple[float, int, int] | None = None
        self._per_s: float | None = None

    def add(self, at_s: float, samples: int, infer_ms: int) -> None:
        """Take the workers' counters together: samples looked at, and ms that the engine took for them."""
        last, self._last = self._last, (at_s, samples, infer_ms)
        if last is None or infer_ms <= last[2] or samples <= last[1]:
            return
        per_s = (samples - last[1]) * 1000.0 / (infer_ms - last[2])
        self._per_s = smoothed(per_s if self._per_s is None else self._per_s, per_s, at_s - last[0])

    @property
    def per_s(self) -> float | None:
        """Samples per second of engine time; None before anything was measured."""
        return self._per_s


def _rate(before: float, after: float, span_s: float) -> float:
    """Growth per second; a counter that fell belongs to another life and says nothing."""
    return max(0.0, after - before) / span_s
