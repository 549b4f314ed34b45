"""Crowd: too many objects are in a zone at once.

Pure.  Confirmed tracks count, also those that are unseen for no longer than `grace_s`.  The rule is broken once there
have been `min_count` for `hold_s` without a break, and the episode goes on while there are that many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import numpy as np

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.rule import CrowdRule
from nodeagent.judge.association import Flags
from nodeagent.judge.memory import NO_MEMORY
from nodeagent.judge.rules.clock import CLOCK, run
from nodeagent.judge.rules.port import Place, Reason, Verdict, View, limits_ns


class Crowd:
    """All crowd rules of one camera."""

    TRACK_MEMORY: ClassVar = NO_MEMORY
    PLACE_MEMORY: ClassVar = CLOCK

    def __init__(self, places: Sequence[Place]) -> None:
        rules = [cast(CrowdRule, place.rule) for place in places]
        self._least = np.array([rule.min_count for rule in rules])
        self._hold_ns = limits_ns([rule.hold_s for rule in rules])

    def judge(self, view: View) -> Verdict:
        """Everybody in a zone that has been crowded for long enough."""
        inside = view.inside & view.sure[:, None]
        full = inside.sum(axis=0) >= self._least
        on_ns = run(view.memory.places, full, view.sample_ns, view.step_ns)
        return Verdict(breaks=inside & (full & (on_ns >= self._hold_ns)), holds=full)

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """It began when there first were that many."""
        clock = view.memory.places[place]
        values = {"count": float(subjects.sum()), "crowded_s": int(clock["on_ns"]) / NS_PER_S}
        return Reason(int(clock["since_ns"]), values)
