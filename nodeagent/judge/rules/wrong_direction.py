"""Wrong direction: an object goes against the direction of a lane.

Pure.  A track's way inside the zone is measured in strides of a quarter of `min_distance`, so that a box that trembles
goes nowhere.  Strides within `tolerance_deg` of the opposite of the allowed direction add up; any other stride sets
the sum back to nothing.  A gap forgets the stride that it falls into, not the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, cast

import numpy as np

from nodeagent.contract.rule import WrongDirectionRule
from nodeagent.judge.association import Flags, any_row
from nodeagent.judge.memory import NO_MEMORY
from nodeagent.judge.rules.port import Place, Reason, Verdict, View, anchor_of

#: Strides that `min_distance` is cut into.
STRIDES: Final = 4
#: Whether a stride has begun, where and when (capture time), the way that went wrong so far, and since when it did.
_TRACK: Final = np.dtype(
    [("begun", "?"), ("x", "<f8"), ("y", "<f8"), ("at_ns", "<i8"), ("wrong", "<f8"), ("since_ns", "<i8")]
)


class WrongDirection:
    """All rules of this kind of one camera."""

    TRACK_MEMORY: ClassVar = _TRACK
    PLACE_MEMORY: ClassVar = NO_MEMORY

    def __init__(self, places: Sequence[Place]) -> None:
        rules = [cast(WrongDirectionRule, place.rule) for place in places]
        heading = np.array([rule.heading for rule in rules], np.float64)
        self._dx, self._dy = (heading[:, 1] - heading[:, 0]).T
        self._down = np.array([anchor_of(place) for place in places])
        self._least = np.array([rule.min_distance for rule in rules])
        self._cosine = np.cos(np.radians([rule.tolerance_deg for rule in rules]))

    def judge(self, view: View) -> Verdict:
        """Who has gone the wrong way for far enough."""
        memory = view.memory.tracks
        memory["begun"] &= view.inside
        memory["wrong"] *= view.inside
        if view.torn:
            memory["begun"] = False
        x = np.broadcast_to(view.boxes[:, 0][:, None] * view.aspect, view.inside.shape)
        y = view.boxes[:, 1][:, None] + self._down * view.boxes[:, 3][:, None]
        here = view.inside & view.seen[:, None]
        way_x, way_y = x - memory["x"], y - memory["y"]
        length = np.hypot(way_x, way_y)
        stride = here & memory["begun"] & (length >= self._least / STRIDES)
        dx = self._dx * view.aspect
        along = (way_x * dx + way_y * self._dy) / np.hypot(dx, self._dy)
        wrong = stride & (-along >= self._cosine * length)
        first = wrong & (memory["wrong"] == 0.0)
        memory["since_ns"][first] = memory["at_ns"][first]
        memory["wrong"] = np.where(wrong, memory["wrong"] - along, memory["wrong"] * ~stride)
        set_off = stride | (here & ~memory["begun"])
        memory["begun"] |= set_off
        memory["x"][set_off], memory["y"][set_off] = x[set_off], y[set_off]
        memory["at_ns"][set_off] = view.sample_ns
        # Strides add up to a little less than the whole way when it is not cut evenly.
        breaks = view.inside & view.sure[:, None] & (memory["wrong"] >= self._least * (1.0 - 1e-9))
        return Verdict(breaks=breaks, holds=any_row(breaks))

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """It began with the first wrong stride."""
        memory = view.memory.tracks[subjects, place]
        return Reason(int(memory["since_ns"].min()), {"wrong_way": float(memory["wrong"].max())})
