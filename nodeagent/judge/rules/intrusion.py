"""Intrusion: somebody is in a zone where nobody may be.

Pure.  A track breaks the rule once it has been inside for `enter_s`.  The zone stays occupied while any confirmed track
is inside, also one that has not been there that long, so that two people who take turns are one episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.rule import IntrusionRule
from nodeagent.judge.association import Flags, any_row
from nodeagent.judge.memory import NO_MEMORY
from nodeagent.judge.rules.port import Place, Reason, Verdict, View, limits_ns


class Intrusion:
    """All intrusion rules of one camera."""

    TRACK_MEMORY: ClassVar = NO_MEMORY
    PLACE_MEMORY: ClassVar = NO_MEMORY

    def __init__(self, places: Sequence[Place]) -> None:
        self._enter_ns = limits_ns([cast(IntrusionRule, place.rule).enter_s for place in places])

    def judge(self, view: View) -> Verdict:
        """Who is inside, and who for long enough."""
        inside = view.inside & view.sure[:, None]
        return Verdict(breaks=inside & (view.dwell_ns >= self._enter_ns), holds=any_row(inside))

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """It began when the first of the subjects came in."""
        dwell_ns = int(view.dwell_ns[subjects, place].max())
        return Reason(int(view.first_in_ns[subjects, place].min()), {"inside_s": dwell_ns / NS_PER_S})
