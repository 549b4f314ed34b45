"""Abandoned object: something stands where it was put, and nobody is with it.

Pure.  An object that has not moved by more than `max_move` for `still_s` stands; it is abandoned when for `left_s`
nobody of `owner_labels` was within `owner_distance` of it.  Who was just lost from sight still counts as near: hiding
behind a pillar is not leaving.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, cast

import numpy as np

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.rule import AbandonedRule
from nodeagent.judge.association import Flags, any_row
from nodeagent.judge.memory import NO_MEMORY
from nodeagent.judge.rules.classes import of_classes
from nodeagent.judge.rules.clock import CLOCK, run
from nodeagent.judge.rules.port import Place, Reason, Verdict, View, limits_ns

#: A clock of being alone, where it stands (picture heights), and the watched time for which it has not moved.
_TRACK: Final = np.dtype([*CLOCK.descr, ("put", "?"), ("x", "<f8"), ("y", "<f8"), ("still_ns", "<i8")])


class Abandoned:
    """All rules of this kind of one camera."""

    TRACK_MEMORY: ClassVar = _TRACK
    PLACE_MEMORY: ClassVar = NO_MEMORY

    def __init__(self, places: Sequence[Place]) -> None:
        rules = [cast(AbandonedRule, place.rule) for place in places]
        self._rules = list(dict.fromkeys(rules))
        self._rule_of = np.array([self._rules.index(rule) for rule in rules])
        self._move = np.array([rule.max_move for rule in rules])
        self._still_ns = limits_ns([rule.still_s for rule in rules])
        self._left_ns = limits_ns([rule.left_s for rule in rules])

    def judge(self, view: View) -> Verdict:
        """What has stood alone for long enough."""
        memory = view.memory.tracks
        x, y = (view.boxes[:, 0] * view.aspect)[:, None], view.boxes[:, 1][:, None]
        memory["put"] &= view.inside
        moved = np.hypot(x - memory["x"], y - memory["y"]) > self._move
        put = view.inside & (moved | ~memory["put"])
        for name, value in (("x", x), ("y", y)):
            memory[name][put] = np.broadcast_to(value, put.shape)[put]
        memory["still_ns"] = np.where(put, 0, memory["still_ns"] + view.step_ns)
        memory["put"] |= put
        near = np.stack([self._near(view, rule) for rule in self._rules], axis=1)[:, self._rule_of]
        on_ns = run(memory, view.inside & ~near, view.sample_ns, view.step_ns)
        breaks = view.inside & view.sure[:, None] & (memory["still_ns"] >= self._still_ns) & (on_ns >= self._left_ns)
        return Verdict(breaks=breaks & ~near, holds=any_row(breaks))

    @staticmethod
    def _near(view: View, rule: AbandonedRule) -> Flags:
        """(tracks,) bool: whether anybody who may be an owner is near the track."""
        owners = view.boxes[of_classes(view, rule.owner_labels)]
        if not len(owners):
            return np.zeros(len(view.sure), np.bool_)
        aside = np.abs(view.boxes[:, 0][:, None] - owners[:, 0]) - 0.5 * owners[:, 2]
        above = np.abs(view.boxes[:, 1][:, None] - owners[:, 1]) - 0.5 * owners[:, 3]
        away = np.hypot(np.maximum(aside, 0.0) * view.aspect, np.maximum(above, 0.0))
        return any_row((away <= rule.owner_distance).T)

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """It began when the first of them was alone."""
        memory = view.memory.tracks[subjects, place]
        values = {
            "alone_s": int(memory["on_ns"].max()) / NS_PER_S,
            "still_s": int(memory["still_ns"].max()) / NS_PER_S,
        }
        return Reason(int(memory["since_ns"].min()), values)
