"""Absence: a post that should be manned is left.

Pure.  The post is manned while at least `min_count` confirmed tracks are inside, also those that are unseen for no
longer than `grace_s`; a single false box confirms no track and so mans nothing.  Only watched time counts as absence:
a camera that is away, a gap, or inference that failed says nothing about the post.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import numpy as np

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.rule import AbsenceRule
from nodeagent.judge.association import Flags
from nodeagent.judge.memory import NO_MEMORY
from nodeagent.judge.rules.clock import CLOCK, run
from nodeagent.judge.rules.port import Place, Reason, Verdict, View, limits_ns


class Absence:
    """All absence rules of one camera."""

    TRACK_MEMORY: ClassVar = NO_MEMORY
    PLACE_MEMORY: ClassVar = CLOCK

    def __init__(self, places: Sequence[Place]) -> None:
        rules = [cast(AbsenceRule, place.rule) for place in places]
        self._least = np.array([rule.min_count for rule in rules])
        self._absent_ns = limits_ns([rule.absent_s for rule in rules])

    def judge(self, view: View) -> Verdict:
        """Which posts have been left for too long; nobody in particular breaks the rule."""
        left = (view.inside & view.sure[:, None]).sum(axis=0) < self._least
        on_ns = run(view.memory.places, left, view.sample_ns, view.step_ns)
        return Verdict(breaks=np.zeros_like(view.inside), holds=left, broken=left & (on_ns >= self._absent_ns))

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """It began with the first sample without enough of them."""
        clock = view.memory.places[place]
        present = int((view.inside[:, place] & view.sure).sum())
        return Reason(int(clock["since_ns"]), {"absent_s": int(clock["on_ns"]) / NS_PER_S, "present": float(present)})
