"""Loitering: one object stays in a zone for longer than it may.

Pure.  Only a track that has itself been inside for `dwell_s` breaks the rule, and only such tracks keep the zone
occupied: passers-by do not prolong the episode of a loiterer who left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.rule import LoiteringRule
from nodeagent.judge.association import Flags, any_row
from nodeagent.judge.memory import NO_MEMORY
from nodeagent.judge.rules.port import Place, Reason, Verdict, View, limits_ns


class Loitering:
    """All loitering rules of one camera."""

    TRACK_MEMORY: ClassVar = NO_MEMORY
    PLACE_MEMORY: ClassVar = NO_MEMORY

    def __init__(self, places: Sequence[Place]) -> None:
        self._dwell_ns = limits_ns([cast(LoiteringRule, place.rule).dwell_s for place in places])

    def judge(self, view: View) -> Verdict:
        """Who has been inside for too long."""
        breaks = view.inside & view.sure[:, None] & (view.dwell_ns >= self._dwell_ns)
        return Verdict(breaks=breaks, holds=any_row(breaks))

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """It began when the first of the subjects came in."""
        dwell_ns = int(view.dwell_ns[subjects, place].max())
        return Reason(int(view.first_in_ns[subjects, place].min()), {"dwell_s": dwell_ns / NS_PER_S})
