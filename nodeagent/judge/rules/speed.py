"""Speed: an object moves faster over the ground than it may.

Pure.  Four points of the ground and their places in metres give the homography from picture to ground (Hartley and
Zisserman, "Multiple View Geometry in Computer Vision", 2nd edition, section 4.1: the direct linear transformation).
The speed is the way of the deciding point over at least `over_s`; `min_times` such measurements in a row must be too
fast.  The deciding point should touch the ground (`bottom_centre`).  Nothing is measured across a gap or an occlusion
beyond the grace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, cast

import numpy as np

from nodeagent.contract.rule import SpeedRule
from nodeagent.judge.association import Flags, Floats, any_row
from nodeagent.judge.memory import NO_MEMORY
from nodeagent.judge.rules.port import Place, Reason, Verdict, View, anchor_of, limits_ns

#: Kilometres an hour of one metre a second.
KMH: Final = 3.6
#: Smallest denominator of the homography that is trusted, where that of the first ground point is 1: at the horizon
#: and beyond it there is no ground.
_HORIZON: Final = 0.01
#: Whether a measurement has begun, where on the ground (metres) and when (capture time), how many in a row were too
#: fast and since when, and the last measured speed.
_TRACK: Final = np.dtype(
    [
        ("begun", "?"),
        ("x", "<f8"),
        ("y", "<f8"),
        ("at_ns", "<i8"),
        ("fast", "<i4"),
        ("since_ns", "<i8"),
        ("kmh", "<f8"),
    ]
)


def homography(picture: Sequence[tuple[float, float]], ground: Sequence[tuple[float, float]]) -> Floats:
    """(3, 3) matrix that takes the four points of the picture to those of the ground; their depths are positive."""
    rows = []
    for (x, y), (u, v) in zip(picture, ground, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y, -u], [0, 0, 0, x, y, 1, -v * x, -v * y, -v]]
    matrix: Floats = np.linalg.svd(np.array(rows, np.float64))[2][-1].reshape(3, 3)
    x, y = picture[0]
    depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    matrix /= depth
    return matrix


class Speed:
    """All speed rules of one camera."""

    TRACK_MEMORY: ClassVar = _TRACK
    PLACE_MEMORY: ClassVar = NO_MEMORY

    def __init__(self, places: Sequence[Place]) -> None:
        rules = [cast(SpeedRule, place.rule) for place in places]
        #: (3, 3, places)
        self._ground = np.stack([homography(rule.ground, rule.metres) for rule in rules], axis=2)
        self._down = np.array([anchor_of(place) for place in places])
        self._limit = np.array([rule.limit_kmh for rule in rules])
        self._over_ns = limits_ns([rule.over_s for rule in rules])
        self._times = np.array([rule.min_times for rule in rules])

    def judge(self, view: View) -> Verdict:
        """Who has been too fast often enough."""
        memory = view.memory.tracks
        memory["begun"] &= view.inside
        memory["fast"] *= view.inside
        if view.torn:
            memory["begun"] = False
        x, y, on_ground = self._place(view.boxes)
        here = view.inside & view.seen[:, None] & on_ground
        passed_ns = view.sample_ns - memory["at_ns"]
        measured = here & memory["begun"] & (passed_ns >= self._over_ns)
        way = np.hypot(x - memory["x"], y - memory["y"])
        memory["kmh"] = np.where(measured, way / np.maximum(passed_ns, 1) * (1e9 * KMH), memory["kmh"])
        fast = measured & (memory["kmh"] > self._limit)
        first = fast & (memory["fast"] == 0)
        memory["since_ns"][first] = memory["at_ns"][first]
        memory["fast"] = np.where(measured, (memory["fast"] + 1) * fast, memory["fast"])
        set_off = measured | (here & ~memory["begun"])
        memory["begun"] |= set_off
        memory["x"][set_off], memory["y"][set_off] = x[set_off], y[set_off]
        memory["at_ns"][set_off] = view.sample_ns
        breaks = view.inside & view.sure[:, None] & (memory["fast"] >= self._times)
        return Verdict(breaks=breaks, holds=any_row(breaks))

    def _place(self, boxes: Floats) -> tuple[Floats, Floats, Flags]:
        """Where on the ground each box stands, in metres, (tracks, places) each, and whether it does at all."""
        h = self._ground
        x, y = boxes[:, 0][:, None], boxes[:, 1][:, None] + self._down * boxes[:, 3][:, None]
        depth = h[2, 0] * x + h[2, 1] * y + h[2, 2]
        on_ground = depth > _HORIZON
        depth = np.where(on_ground, depth, 1.0)
        return (
            (h[0, 0] * x + h[0, 1] * y + h[0, 2]) / depth,
            (h[1, 0] * x + h[1, 1] * y + h[1, 2]) / depth,
            on_ground,
        )

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """It began with the first measurement that was too fast."""
        memory = view.memory.tracks[subjects, place]
        return Reason(int(memory["since_ns"].min()), {"speed_kmh": float(memory["kmh"].max())})
