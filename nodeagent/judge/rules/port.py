"""What a kind of rule is to the rest of the judge.

Pure.  A new kind is one model in `contract/rule.py`, one file here with a class that fits `Kind`, and one line in
`rules/__init__.py`.  A kind judges all rules of its sort of one camera at once, because a call per rule and sample
would cost more than the judging.

`breaks` and `holds` are two questions: the first starts an episode, the second keeps it from ending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from nodeagent.contract.geometry import Line, Zone
from nodeagent.contract.rule import RuleBase
from nodeagent.judge.association import Flags, Floats
from nodeagent.judge.memory import Memory
from nodeagent.judge.tracker import Ints


@dataclass(frozen=True, slots=True)
class Place:
    """One zone or line of one rule: what episodes belong to."""

    rule: RuleBase
    zone: Zone | Line

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
    """One sample as the places of one kind see it.

    Attributes:
        sample_ns: capture time.
        watched_ns: the camera's watched time.
        step_ns: watched time since the sample before; 0 over a gap.
        torn: whether a gap lies before this sample.
        aspect: width of the picture over its height.
        sure: (tracks,) bool, whether the track is confirmed.
        seen: (tracks,) bool, whether this sample shows it.
        boxes: (tracks, 4) float64, centre x, centre y, width, height as last seen, normalised.
        label: (tracks,) int64, class of each track, an index of `labels`; -1: one that the model does not have now.
        labels: names of the model's classes.
        inside: (tracks, places of the kind) bool, whether it counts as inside now; for a line: as there at all.
        dwell_ns: the same shape, int64, watched time inside.
        first_in_ns: the same shape, int64, capture time at which it came in.
        memory: what the kind remembers; `judge` brings it up to date.
    """

    sample_ns: int
    watched_ns: int
    step_ns: int
    torn: bool
    aspect: float
    sure: Flags
    seen: Flags
    boxes: Floats
    label: Ints
    labels: tuple[str, ...]
    inside: Flags
    dwell_ns: Ints
    first_in_ns: Ints
    memory: Memory


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a kind says of one sample.

    Attributes:
        breaks: (tracks, places) bool, which tracks break the rule.
        holds: (places,) bool, whether an episode that goes on would go on.
        broken: (places,) bool, where the rule is broken by nobody in particular; None: nowhere.
    """

    breaks: Flags
    holds: Flags
    broken: Flags | None = None


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
    """All rules of one sort of one camera.

    Attributes:
        TRACK_MEMORY, PLACE_MEMORY: what it remembers per (track, place) and per place, see `Memory`.
    """

    TRACK_MEMORY: ClassVar[np.dtype[np.void]]
    PLACE_MEMORY: ClassVar[np.dtype[np.void]]

    def judge(self, view: View) -> Verdict:
        """Judge one sample, and remember of it what the next ones need."""
        ...

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """Say why; only asked when an episode starts or is told of.

        Args:
            view: what `judge` saw.
            place: column of the view.
            subjects: (tracks,) bool, those that break the rule there; none where `Verdict.broken` says so.
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


def anchor_of(place: Place) -> float:
    """Where the deciding point lies in a box, in box heights from its centre, downwards."""
    return {"top_centre": -0.5, "centre": 0.0, "bottom_centre": 0.5}[place.rule.anchor]
