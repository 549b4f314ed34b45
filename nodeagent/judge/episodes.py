"""Episodes: a zone occupied against its rule, from confirmation to the end, whoever is in it.

Pure.  The table NEXT has every way from one phase to another; all places of a camera take a step at once, and Python
only runs for those whose phase changes.

One place has one episode at a time.  After its end, who breaks the rule again within the cooldown continues the same
episode under the same key (`updated` without an end, later `ended` with the later end); who comes in later than that
starts a new one.  The cooldown is compared with the time at which the newcomer came *in*, which is also how the alarm
stage merges, so both always decide alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from nodeagent.contract.alarm import Stage
from nodeagent.contract.ids import NS_PER_S
from nodeagent.judge.association import Flags, Indices
from nodeagent.judge.tracker import Ints


class Phase(IntEnum):
    """Where a place is."""

    #: Nobody is there, and nobody ever broke the rule.
    IDLE = 0
    #: Somebody is there, not yet against the rule.
    CANDIDATE = 1
    #: The rule is broken.
    ACTIVE = 2
    #: It was broken; the place has been clear for less than `exit_s`.
    CLEARING = 3
    #: The last episode is over; its key may be needed again within the cooldown.
    ENDED = 4


class Signal(IntEnum):
    """What one sample says of a place."""

    CLEAR = 0
    #: Clear for at least `exit_s`.
    CLEAR_LONG = 1
    HELD = 2
    BROKEN = 3


NEXT: Final[dict[Phase, dict[Signal, Phase]]] = {
    Phase.IDLE: {
        Signal.CLEAR: Phase.IDLE,
        Signal.CLEAR_LONG: Phase.IDLE,
        Signal.HELD: Phase.CANDIDATE,
        Signal.BROKEN: Phase.ACTIVE,
    },
    Phase.CANDIDATE: {
        Signal.CLEAR: Phase.IDLE,
        Signal.CLEAR_LONG: Phase.IDLE,
        Signal.HELD: Phase.CANDIDATE,
        Signal.BROKEN: Phase.ACTIVE,
    },
    Phase.ACTIVE: {
        Signal.CLEAR: Phase.CLEARING,
        Signal.CLEAR_LONG: Phase.ENDED,
        Signal.HELD: Phase.ACTIVE,
        Signal.BROKEN: Phase.ACTIVE,
    },
    Phase.CLEARING: {
        Signal.CLEAR: Phase.CLEARING,
        Signal.CLEAR_LONG: Phase.ENDED,
        Signal.HELD: Phase.ACTIVE,
        Signal.BROKEN: Phase.ACTIVE,
    },
    Phase.ENDED: {
        Signal.CLEAR: Phase.ENDED,
        Signal.CLEAR_LONG: Phase.ENDED,
        Signal.HELD: Phase.ENDED,
        Signal.BROKEN: Phase.ACTIVE,
    },
}
_TABLE: Final = np.array([[NEXT[phase][signal] for signal in Signal] for phase in Phase], np.int8)
#: The same numbers without the enums' cost, which is paid per sample.
_CLEAR, _CLEAR_LONG, _HELD, _BROKEN = (int(signal) for signal in Signal)
_ACTIVE, _CLEARING = int(Phase.ACTIVE), int(Phase.CLEARING)
#: Phases in which an episode is open.
OPEN: Final = (Phase.ACTIVE, Phase.CLEARING)

#: New subjects are told of after this capture time since the last message if they at least doubled the number told,
#: and else after the longer one, seconds: a crowd must not flood the alarm queue.  The end tells of all of them.
UPDATE_SOON_S: Final = 5.0
UPDATE_LATE_S: Final = 60.0

#: One row per place.  Times ending in `_ns` are capture times; `held_at` is watched time.
EPISODE_DTYPE: Final = np.dtype(
    [
        ("phase", "<i1"),
        ("started_ns", "<i8"),
        ("confirmed_ns", "<i8"),
        ("clear_ns", "<i8"),
        ("ended_ns", "<i8"),
        ("told_ns", "<i8"),
        ("held_at", "<i8"),
        ("subjects", "<i8"),
        ("subjects_told", "<i8"),
    ]
)


class Episodes:
    """The episodes of all places of a camera.

    Attributes:
        rows: (places,) of EPISODE_DTYPE.
    """

    def __init__(self, places: int) -> None:
        self.rows: npt.NDArray[np.void] = np.zeros(places, EPISODE_DTYPE)

    def step(
        self, broken: Flags, holds: Flags, *, sample_ns: int, watched_ns: int, exit_ns: Ints
    ) -> list[tuple[int, Phase]]:
        """Take one sample; return the places that changed their phase, with the phase they left.

        Args:
            broken: (places,) bool, somebody breaks the rule.
            holds: (places,) bool, the episode would go on.
            sample_ns: capture time.
            watched_ns: watched time.
            exit_ns: (places,) int64.
        """
        rows = self.rows
        phase, held_at = rows["phase"], rows["held_at"]
        held = holds | broken
        held_at[held] = watched_ns
        signal = np.where(held, _HELD, np.where(held_at <= watched_ns - exit_ns, _CLEAR_LONG, _CLEAR))
        signal[broken] = _BROKEN
        then = _TABLE[phase, signal]
        changed = (then != phase).nonzero()[0]
        if not changed.size:
            return []
        left = [(int(place), Phase(int(phase[place]))) for place in changed]
        # An episode that ends at its first clear sample never was CLEARING: that sample is the one that found it clear.
        cleared = changed[phase[changed] == _ACTIVE]
        rows["clear_ns"][cleared] = sample_ns
        phase[changed] = then[changed]
        return left

    def begin(self, place: int, started_ns: int, sample_ns: int, cooldown_ns: int) -> Stage:
        """Open an episode at `place`, or continue the last one when that ended less than the cooldown before."""
        row = self.rows[place]
        again = bool(row["confirmed_ns"]) and started_ns - int(row["ended_ns"]) <= cooldown_ns
        row["told_ns"] = sample_ns
        if again:
            return "updated"
        row["started_ns"] = started_ns
        row["confirmed_ns"] = sample_ns
        row["subjects"] = 0
        row["subjects_told"] = 0
        return "started"

    def end(self, place: int) -> None:
        """Close the episode at `place`; it ended when it was first found clear."""
        self.rows["ended_ns"][place] = self.rows["clear_ns"][place]

    def cut(self, place: int, last_ns: int) -> bool:
        """End the episode at `place` because its rule is gone or disarmed; return whether there was an open one."""
        row = self.rows[place]
        if row["phase"] not in OPEN:
            return False
        row["ended_ns"] = row["clear_ns"] if row["phase"] == Phase.CLEARING else last_ns
        row["phase"] = Phase.ENDED
        return True

    def overdue(self, sample_ns: int) -> Iterator[int]:
        """Occupied places with subjects that nobody was told of yet.

        One that is clear by now waits: its end tells of all of them, and a message from after its last subject would
        make the episode reach further than it did.
        """
        rows = self.rows
        more = rows["subjects"] > rows["subjects_told"]
        if more.any():
            waited_ns = sample_ns - rows["told_ns"]
            doubled = rows["subjects"] >= 2 * rows["subjects_told"]
            due = (waited_ns >= UPDATE_LATE_S * NS_PER_S) | (doubled & (waited_ns >= UPDATE_SOON_S * NS_PER_S))
            yield from (int(place) for place in (more & due & (rows["phase"] == _ACTIVE)).nonzero()[0])

    def rearrange(self, origin: Indices) -> None:
        """Take over episodes when the places change: row i comes from row `origin[i]`; -1: starts idle."""
        fresh = np.zeros(len(origin), EPISODE_DTYPE)
        fresh[origin >= 0] = self.rows[origin[origin >= 0]]
        self.rows = fresh
