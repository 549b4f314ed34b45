"""Fall: somebody who stood lies, and stays there.

Pure.  A track that was upright (clearly higher than wide) has fallen when its box is at least `min_ratio` as wide as
high and at most `max_height` as high as it last was upright; the rule is broken when it then stays within `max_move` of
one place for `still_s`.  Who never was seen upright has not fallen: a bed, a dog or a car lies all day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, cast

import numpy as np

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.rule import FallRule
from nodeagent.judge.association import Flags, any_row
from nodeagent.judge.memory import NO_MEMORY
from nodeagent.judge.rules.clock import CLOCK, run
from nodeagent.judge.rules.port import Place, Reason, Verdict, View, limits_ns

#: Width over height up to which a box is upright.
UPRIGHT_MAX: Final = 0.7
#: A clock of lying still, the height when last upright (0: never was), and where it lies (picture heights).
_TRACK: Final = np.dtype([*CLOCK.descr, ("upright", "<f8"), ("x", "<f8"), ("y", "<f8")])


class Fall:
    """All fall rules of one camera."""

    TRACK_MEMORY: ClassVar = _TRACK
    PLACE_MEMORY: ClassVar = NO_MEMORY

    def __init__(self, places: Sequence[Place]) -> None:
        rules = [cast(FallRule, place.rule) for place in places]
        self._ratio = np.array([rule.min_ratio for rule in rules])
        self._height = np.array([rule.max_height for rule in rules])
        self._move = np.array([rule.max_move for rule in rules])
        self._still_ns = limits_ns([rule.still_s for rule in rules])

    def judge(self, view: View) -> Verdict:
        """Who has lain still for long enough."""
        memory = view.memory.tracks
        x, y = (view.boxes[:, 0] * view.aspect)[:, None], view.boxes[:, 1][:, None]
        height = view.boxes[:, 3][:, None]
        ratio = view.boxes[:, 2][:, None] * view.aspect / height
        upright = view.seen[:, None] & (ratio <= UPRIGHT_MAX) & np.ones_like(view.inside)
        memory["upright"][upright] = np.broadcast_to(height, upright.shape)[upright]
        lying = view.inside & (ratio >= self._ratio) & (height <= self._height * memory["upright"])
        moved = np.hypot(x - memory["x"], y - memory["y"]) > self._move
        begins = lying & (moved | (memory["since_ns"] == 0))
        for name, value in (("x", x), ("y", y)):
            memory[name][begins] = np.broadcast_to(value, begins.shape)[begins]
        memory["since_ns"][begins] = 0
        on_ns = run(memory, lying, view.sample_ns, view.step_ns)
        breaks = lying & view.sure[:, None] & (on_ns >= self._still_ns)
        return Verdict(breaks=breaks, holds=any_row(breaks))

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """It began when the first of the subjects lay where it lies."""
        memory, boxes = view.memory.tracks[subjects, place], view.boxes[subjects]
        values = {
            "lying_s": int(memory["on_ns"].max()) / NS_PER_S,
            "height_left": float((boxes[:, 3] / memory["upright"]).min()),
        }
        return Reason(int(memory["since_ns"].min()), values)
