"""Queue: it is too long, or somebody waits too long in it.

Pure.  All confirmed tracks inside stand in the queue.  It is too long once there have been `max_length` for `hold_s`;
a track waits too long when it has itself been inside for `max_wait_s`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import numpy as np

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.rule import QueueRule
from nodeagent.judge.association import Flags, any_row
from nodeagent.judge.memory import NO_MEMORY
from nodeagent.judge.rules.clock import CLOCK, run
from nodeagent.judge.rules.port import Place, Reason, Verdict, View, limits_ns


class Queue:
    """All queue rules of one camera."""

    TRACK_MEMORY: ClassVar = NO_MEMORY
    PLACE_MEMORY: ClassVar = CLOCK

    def __init__(self, places: Sequence[Place]) -> None:
        rules = [cast(QueueRule, place.rule) for place in places]
        self._length = np.array([rule.max_length for rule in rules])
        self._hold_ns = limits_ns([rule.hold_s for rule in rules])
        self._wait_ns = limits_ns([rule.max_wait_s for rule in rules])
        self._waits = self._wait_ns > 0

    def judge(self, view: View) -> Verdict:
        """Everybody in a queue that is too long, and whoever waits too long."""
        inside = view.inside & view.sure[:, None]
        full = inside.sum(axis=0) >= self._length
        on_ns = run(view.memory.places, full, view.sample_ns, view.step_ns)
        waiting = inside & (view.dwell_ns >= self._wait_ns) & self._waits
        breaks = waiting | (inside & (full & (on_ns >= self._hold_ns)))
        return Verdict(breaks=breaks, holds=full | any_row(waiting))

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """It began when the queue became too long, else when the first who waits too long came in."""
        inside = view.inside[:, place] & view.sure
        clock, waits_ns = view.memory.places[place], view.dwell_ns[inside, place]
        full = bool(clock["since_ns"]) and int(clock["on_ns"]) >= int(self._hold_ns[place])
        started_ns = int(clock["since_ns"]) if full else int(view.first_in_ns[subjects, place].min())
        values = {
            "length": float(inside.sum()),
            "longest_wait_s": float(waits_ns.max()) / NS_PER_S,
            "mean_wait_s": float(waits_ns.mean()) / NS_PER_S,
        }
        return Reason(started_ns, values)
