"""A camera's rules, compiled: places, their limits, and the test of a whole clip's boxes against them.

Pure.  Places of one kind lie side by side, so that each kind works on a slice of the presence table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from nodeagent.contract.detections import Rows
from nodeagent.contract.geometry import Anchor, Point, Zone
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.rule import Rule, RuleBase
from nodeagent.judge.association import Flags, Floats, Indices
from nodeagent.judge.memory import Memory
from nodeagent.judge.presence import Sighting
from nodeagent.judge.rules import KINDS
from nodeagent.judge.rules.port import Kind, Place, limits_ns
from nodeagent.judge.schedule import Arming
from nodeagent.judge.tracker import TrackerSettings
from nodeagent.judge.zones import Polygons, anchor_points

#: Longest grace that is kept, seconds of watched time: after it a track is dropped, and its clocks with it.
GRACE_MAX_S: Final = 30.0
#: Shortest time for which an unseen track is kept, seconds of watched time, whatever the rules say.
LOST_MIN_S: Final = 1.0
#: Score from which a box is strong when no rule asks for less.
STRONG: Final = 0.4
#: Score below which boxes are ignored when no rule asks for less.
WEAK: Final = 0.1
#: The whole picture.
EVERYWHERE: Final[tuple[Point, ...]] = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


@dataclass(frozen=True, slots=True)
class _Filter:
    """What of a rule decides whether a box counts for it."""

    labels: tuple[str, ...]
    min_score: float
    min_height: float


@dataclass(frozen=True, slots=True)
class _Spot:
    """What of a place decides whether a box that counts lies in it."""

    anchor: Anchor
    polygon: tuple[Point, ...]
    exclude: tuple[tuple[Point, ...], ...]


@dataclass(frozen=True, slots=True)
class Corners:
    """A clip's boxes as float64 columns, (n,) each, normalised."""

    x1: Floats
    y1: Floats
    x2: Floats
    y2: Floats
    score: Floats

    @classmethod
    def of(cls, rows: Rows) -> Corners:
        """From rows of DETECTION_DTYPE."""
        return cls(*(rows[name].astype(np.float64) for name in ("x1", "y1", "x2", "y2", "score")))


class RuleSet:
    """The compiled rules of one camera.

    Attributes:
        rules: as given.
        places: every zone of every rule, grouped by kind.
        kinds: (slice of `places`, judge) of each kind.
        grace_ns, exit_ns, cooldown_ns: (places,) int64.
        arming: which places are armed.
        tracker: thresholds that fit the rules.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self.places: list[Place] = []
        self.kinds: list[tuple[slice, Kind]] = []
        for name, factory in KINDS.items():
            places = [Place(rule, zone) for rule in rules if rule.kind == name for zone in rule.places]
            if places:
                start = len(self.places)
                self.places += places
                self.kinds.append((slice(start, start + len(places)), factory(places)))
        of_place = [place.rule for place in self.places]
        self.grace_ns = limits_ns([min(rule.grace_s, GRACE_MAX_S) for rule in of_place])
        self.exit_ns = limits_ns([rule.exit_s for rule in of_place])
        self.cooldown_ns = limits_ns([rule.cooldown_s for rule in of_place])
        self.arming = Arming([rule.schedule for rule in of_place])
        self.tracker = _tracker_settings(rules)
        self._compile_filters(of_place)
        self._compile_spots()

    def _compile_filters(self, of_place: Sequence[RuleBase]) -> None:
        filters = [_Filter(rule.labels, rule.min_score, rule.min_height) for rule in of_place]
        self._filters = list(dict.fromkeys(filters))
        self._filter_of = np.array([self._filters.index(item) for item in filters], np.intp)

    def _compile_spots(self) -> None:
        spots = [spot_of(place) for place in self.places]
        self._spots = list(dict.fromkeys(spots))
        self._spot_of = np.array([self._spots.index(spot) for spot in spots], np.intp)
        self._anchors: list[tuple[Anchor, Polygons]] = []
        #: Per spot: which of `_anchors`, its polygon there, and its exclusions there.
        self._lookup: list[tuple[int, int, list[int]]] = [(0, 0, [])] * len(self._spots)
        for anchor in sorted({spot.anchor for spot in self._spots}):
            polygons: list[tuple[Point, ...]] = []
            for number, spot in enumerate(self._spots):
                if spot.anchor == anchor:
                    first = len(polygons)
                    polygons += (spot.polygon, *spot.exclude)
                    self._lookup[number] = (len(self._anchors), first, list(range(first + 1, len(polygons))))
            self._anchors.append((anchor, Polygons(polygons)))

    def counts(self, boxes: Corners, label: Indices, labels: tuple[str, ...]) -> Flags:
        """(n boxes, places) bool: whether a box counts for a place by class, score and size."""
        flags = np.empty((len(boxes.score), len(self._filters)), np.bool_)
        height = boxes.y2 - boxes.y1
        for column, item in enumerate(self._filters):
            flags[:, column] = (boxes.score >= item.min_score) & (height >= item.min_height)
            if item.labels:
                flags[:, column] &= np.array([name in item.labels for name in labels], np.bool_)[label]
        return flags[:, self._filter_of]

    def inside(self, boxes: Corners) -> Flags:
        """(n boxes, places) bool: whether a box's anchor lies in a place and in none of its exclusions."""
        found = [
            polygons.contain(*anchor_points(boxes.x1, boxes.y1, boxes.x2, boxes.y2, anchor))
            for anchor, polygons in self._anchors
        ]
        flags = np.empty((len(boxes.score), len(self._spots)), np.bool_)
        for column, (anchor_no, polygon, exclude) in enumerate(self._lookup):
            flags[:, column] = found[anchor_no][:, polygon]
            if exclude:
                flags[:, column] &= ~found[anchor_no][:, exclude].any(axis=1)
        return flags[:, self._spot_of]

    def memories(self, tracks: int = 0) -> list[Memory]:
        """An empty memory for each of `kinds`."""
        return [
            Memory(kind.TRACK_MEMORY, kind.PLACE_MEMORY, part.stop - part.start, tracks) for part, kind in self.kinds
        ]

    def origins(self, old: RuleSet) -> tuple[Indices, Indices]:
        """Where each place comes from in `old`: (places,) for its clocks, (places,) for its episode; -1: it is new.

        An episode lives on while kind, rule id, zone name and shadow mode stay.  Clocks do only if what they measure
        stays too: the polygon, exclusions, anchor, classes, score and size; and what a kind remembers only if nothing
        of the rule changed but what is done about it, see `remembered`.
        """
        known = {place.key: number for number, place in enumerate(old.places)}
        episodes = np.array([known.get(place.key, -1) for place in self.places], np.intp)
        clocks = episodes.copy()
        for number, source in enumerate(episodes):
            if source >= 0 and _measure(self.places[number]) != _measure(old.places[source]):
                clocks[number] = -1
        return clocks, episodes


def remembered(rules: RuleSet, tracks: int, old_rules: RuleSet, old: Sequence[Memory]) -> list[Memory]:
    """Memories for `rules` that know what `old` knew of places whose rules ask the same as before."""
    new = rules.memories(tracks)
    before = {old_rules.places[part.start].kind: (part, old[at]) for at, (part, _) in enumerate(old_rules.kinds)}
    for (part, _), memory in zip(rules.kinds, new, strict=True):
        places = rules.places[part]
        if places[0].kind in before:
            old_part, old_memory = before[places[0].kind]
            sources = [_question(place) for place in old_rules.places[old_part]]
            questions = [_question(place) for place in places]
            origin = [sources.index(question) if question in sources else -1 for question in questions]
            memory.take_over(old_memory, np.array(origin, np.intp))
    return new


#: Keys of a rule that say what is done about an answer, and those of which a place is one.
_ANSWERS: Final = {"severity", "cooldown_s", "exit_s", "schedule", "storm_per_hour", "zones", "lines"}


def _question(place: Place) -> tuple[object, ...]:
    """What the place asks: its rule without what is done about the answer."""
    about = place.rule.model_dump(exclude=_ANSWERS)
    return place.key, place.zone, about


def spot_of(place: Place) -> _Spot:
    """What decides whether a box lies in the place; a line's is the whole picture."""
    rule = place.rule
    polygon = place.zone.polygon if isinstance(place.zone, Zone) else EVERYWHERE
    return _Spot(rule.anchor, polygon, tuple(zone.polygon for zone in rule.exclude))


def sightings(inside: Flags, counts: Flags, bounds: Indices) -> list[Sighting]:
    """Cut a clip's boxes into its samples.

    Args:
        inside: (n boxes, places), see `RuleSet.inside`.
        counts: (n boxes, places), see `RuleSet.counts`.
        bounds: (samples + 1,) first box of each sample, and the number of boxes.
    """
    box, place = np.nonzero(inside & counts)
    cuts = np.searchsorted(box, bounds)
    return [
        Sighting(
            box[cuts[i] : cuts[i + 1]] - bounds[i], place[cuts[i] : cuts[i + 1]], counts[bounds[i] : bounds[i + 1]]
        )
        for i in range(len(bounds) - 1)
    ]


def _measure(place: Place) -> tuple[_Spot, tuple[str, ...], float, float]:
    rule = place.rule
    return spot_of(place), rule.labels, rule.min_score, rule.min_height


def _tracker_settings(rules: Sequence[Rule]) -> TrackerSettings:
    """A box that a rule would count must be able to start a track; a track must outlive every grace."""
    least = min((rule.min_score for rule in rules), default=STRONG)
    strong = min(STRONG, least)
    grace_s = max((rule.grace_s for rule in rules), default=0.0)
    lost_s = min(max(LOST_MIN_S, grace_s), GRACE_MAX_S)
    return TrackerSettings(strong=strong, weak=min(WEAK, strong), birth=strong, max_lost_ns=round(lost_s * NS_PER_S))
