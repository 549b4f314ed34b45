"""Presence: something of a class is there: a phone, smoke, fire.

Pure.  The zone's clock runs while anything that counts is seen inside, whatever track it belongs to, and over times of
at most `grace_s` without it; so ids that change, as those of smoke do, cost nothing.  The rule is broken after
`hold_s` if at least `min_share` of the samples of that time showed it, and only by a sample that shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, cast

import numpy as np

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.rule import PresenceRule
from nodeagent.judge.association import Flags, any_row
from nodeagent.judge.memory import NO_MEMORY
from nodeagent.judge.rules.clock import CLOCK, run
from nodeagent.judge.rules.port import Place, Reason, Verdict, View, limits_ns

#: A clock, the watched time when it was last seen, and in how many of how many samples.
_PLACE: Final = np.dtype([*CLOCK.descr, ("seen_at", "<i8"), ("hits", "<i8"), ("samples", "<i8")])


class ClassPresence:
    """All presence rules of one camera."""

    TRACK_MEMORY: ClassVar = NO_MEMORY
    PLACE_MEMORY: ClassVar = _PLACE

    def __init__(self, places: Sequence[Place]) -> None:
        rules = [cast(PresenceRule, place.rule) for place in places]
        self._hold_ns = limits_ns([rule.hold_s for rule in rules])
        self._grace_ns = limits_ns([rule.grace_s for rule in rules])
        self._share = np.array([rule.min_share for rule in rules])

    def judge(self, view: View) -> Verdict:
        """All that is seen in a zone where it has been for long enough."""
        memory = view.memory.places
        here = view.inside & view.seen[:, None]
        now = any_row(here)
        lasting = (memory["since_ns"] > 0) & (memory["seen_at"] >= view.watched_ns - view.step_ns - self._grace_ns)
        memory["hits"] *= lasting
        memory["samples"] *= lasting
        # A time without it that outlasted the grace ended the clock, also if this sample shows it again.
        memory["since_ns"] *= lasting
        alive = now | (lasting & (memory["seen_at"] >= view.watched_ns - self._grace_ns))
        on_ns = run(memory, alive, view.sample_ns, view.step_ns)
        memory["seen_at"][now] = view.watched_ns
        memory["hits"] += now
        memory["samples"] += alive
        broken = now & (on_ns >= self._hold_ns) & (memory["hits"] >= self._share * memory["samples"])
        return Verdict(breaks=here & broken, holds=alive)

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """It began with the first sample that showed it."""
        memory = view.memory.places[place]
        values = {
            "present_s": int(memory["on_ns"]) / NS_PER_S,
            "seen_share": int(memory["hits"]) / max(1, int(memory["samples"])),
        }
        return Reason(int(memory["since_ns"]), values)
