"""What a kind of rule is to the rest of the judge.

Pure.  A new kind is one model in `contract/rule.py`, one file here with a class that fits `Kind`, and one line in
`rules/__init__.py`.  A kind judges all rules of its sort of one camera at once, because a call per rule and sample
would cost more than the judging.

`breaks` and `holds` are two questions: the first starts an episode, the second keeps it from ending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nodeagent.contract.geometry import Zone
from nodeagent.contract.rule import RuleBase
from nodeagent.judge.association import Flags
from nodeagent.judge.tracker import Ints


@dataclass(frozen=True, slots=True)
class Place:
    """One zone of one rule: what episodes belong to."""

    rule: RuleBase
    zone: Zone

    @property
    def kind(self) -> str:
        """Kind of the rule."""
        return str(self.rule.kind)  # type: ignore[attr-defined]  # every rule of the union has one

    @property
    def key(self) -> tuple[str, str, str, bool]:
        """What makes it the same place after a change of rules.  What was not told of is no part of what is."""
        return self.kind, self.rule.rule_id, self.zone.name, self.rule.shadow


@dataclass(frozen=True, slots=True)
class View:
    """One sample as the places of one kind see it; all arrays but `sure` are (tracks, places of the kind).

    Attributes:
        watched_ns: the camera's watched time.
        sure: (tracks,) bool, whether the track is confirmed.
        inside: bool, whether it counts as inside now.
        dwell_ns: int64, watched time inside.
        first_in_ns: int64, capture time at which it came in.
    """

    watched_ns: int
    sure: Flags
    inside: Flags
    dwell_ns: Ints
    first_in_ns: Ints


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a kind says of one sample.

    Attributes:
        breaks: (tracks, places) bool, which tracks break the rule.
        holds: (places,) bool, whether an episode that goes on would go on.
    """

    breaks: Flags
    holds: Flags


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an episode starts.

    Attributes:
        started_ns: capture time at which the zone became occupied against the rule.
        values: figures for the evidence, by name with unit.
    """

    started_ns: int
    values: dict[str, float]


class Kind(Protocol):
    """All rules of one sort of one camera."""

    def judge(self, view: View) -> Verdict:
        """Judge one sample."""
        ...

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """Say why; only asked when an episode starts or is told of.

        Args:
            view: what `judge` saw.
            place: column of the view.
            subjects: (tracks,) bool, those that break the rule there; at least one.
        """
        ...


class KindFactory(Protocol):
    """Makes the judge of a kind from its places."""

    def __call__(self, places: Sequence[Place]) -> Kind:
        """Places are those of this kind only, in the order of the view's columns."""
        ...


def limits_ns(seconds: Sequence[float]) -> Ints:
    """Seconds as int64 nanoseconds."""
    return np.round(np.array(seconds, np.float64) * 1e9).astype(np.int64)
