"""Line crossing: an object goes over a line, in a direction that counts.

Pure.  A track has crossed once it was seen at least `min_distance` from the line on one side, then on `min_samples`
samples in a row as far on the other, and the straight way between both passes between the line's ends.  So neither a
box that trembles on the line nor who walks around its end crosses.  Who is unseen for longer than `grace_s`, or over a
gap, begins anew: nobody saw which way was taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, cast

import numpy as np

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.rule import LineCrossingRule
from nodeagent.judge.association import Flags, Floats
from nodeagent.judge.memory import NO_MEMORY
from nodeagent.judge.rules.port import Place, Reason, Verdict, View, anchor_of, limits_ns

#: Side on which a track was last seen clearly (1: right of the line, -1: left, 0: not yet), where, at what watched
#: time it was last seen at all, on how many samples in a row it was on the other, and the first of them.
_TRACK: Final = np.dtype(
    [("side", "<i1"), ("x", "<f8"), ("y", "<f8"), ("at", "<i8"), ("beyond", "<i4"), ("beyond_ns", "<i8")]
)
_SIDES: Final = {"to_right": (True, False), "to_left": (False, True), "both": (True, True)}


class LineCrossing:
    """All line crossing rules of one camera."""

    TRACK_MEMORY: ClassVar = _TRACK
    PLACE_MEMORY: ClassVar = NO_MEMORY

    def __init__(self, places: Sequence[Place]) -> None:
        rules = [cast(LineCrossingRule, place.rule) for place in places]
        ends = np.array([place.zone.polygon for place in places], np.float64)
        self._ax, self._ay = ends[:, 0, 0], ends[:, 0, 1]
        self._dx, self._dy = ends[:, 1, 0] - self._ax, ends[:, 1, 1] - self._ay
        self._down = np.array([anchor_of(place) for place in places])
        self._margin = np.array([rule.min_distance for rule in rules])
        self._samples = np.array([rule.min_samples for rule in rules])
        self._grace_ns = limits_ns([rule.grace_s for rule in rules])
        self._right, self._left = np.array([_SIDES[rule.direction] for rule in rules]).T

    def judge(self, view: View) -> Verdict:
        """Who has just crossed."""
        memory = view.memory.tracks
        if view.torn:
            memory["side"] = 0
        x = view.boxes[:, 0][:, None]
        y = view.boxes[:, 1][:, None] + self._down * view.boxes[:, 3][:, None]
        across = self._dx * (y - self._ay) - self._dy * (x - self._ax)
        # In units of the picture's height: across and along are both stretched by the aspect.
        far = np.abs(across) * view.aspect >= self._margin * np.hypot(self._dx * view.aspect, self._dy)
        here = view.inside & view.seen[:, None]
        clear = far & here
        side = np.where(across > 0, 1, -1)
        memory["side"] *= memory["at"] >= view.watched_ns - view.step_ns - self._grace_ns
        new = clear & (memory["side"] == 0)
        other = clear & (memory["side"] == -side)
        back = clear & (memory["side"] == side)
        memory["beyond"] *= ~here | other
        memory["beyond_ns"][other & (memory["beyond"] == 0)] = view.sample_ns
        memory["beyond"] += other
        memory["at"][here] = view.watched_ns
        over = other & (memory["beyond"] >= self._samples)
        breaks = over & view.sure[:, None]
        if breaks.any():
            breaks &= self._between(memory["x"], memory["y"], x, y) & np.where(side > 0, self._right, self._left)
        settled = new | back | over
        memory["side"][settled] = side[settled]
        for name, value in (("x", x), ("y", y)):
            memory[name][settled] = np.broadcast_to(value, settled.shape)[settled]
        return Verdict(breaks=breaks, holds=np.zeros(len(self._ax), np.bool_))

    def _between(self, from_x: Floats, from_y: Floats, x: Floats, y: Floats) -> Flags:
        """Whether the way from one point to the other passes between the line's ends (both ends on one side of it)."""
        way_x, way_y = x - from_x, y - from_y
        first = way_x * (self._ay - from_y) - way_y * (self._ax - from_x)
        second = way_x * (self._ay + self._dy - from_y) - way_y * (self._ax + self._dx - from_x)
        found: Flags = first * second <= 0.0
        return found

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """It began with the first sample beyond the line."""
        memory = view.memory.tracks[subjects, place]
        since_ns = int(memory["beyond_ns"].min())
        to_right = int((memory["side"] > 0).sum())
        values = {
            "to_right": float(to_right),
            "to_left": float(len(memory) - to_right),
            "beyond_s": (view.sample_ns - since_ns) / NS_PER_S,
        }
        return Reason(since_ns, values)
