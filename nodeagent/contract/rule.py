"""Violation definitions, as bound to one camera.

A new kind of rule is one model here and one file in `judge/rules`.  Every duration is in seconds of capture time, every
length a fraction of the picture's height.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from nodeagent.contract.geometry import Anchor, Line, Point, Unit, Zone, polygon_area
from nodeagent.contract.ids import FrozenStrict, Number, RuleId, Switch, Whole
from nodeagent.contract.schedule import Schedule

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
Seconds = Annotated[Number, Field(ge=0.0, le=86_400.0)]
LongSeconds = Annotated[Number, Field(gt=0.0, le=86_400.0)]
ClassNames = Annotated[tuple[str, ...], Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=1000)]
Metres = Annotated[Number, Field(ge=-10_000.0, le=10_000.0)]
GroundPoint = tuple[Metres, Metres]
#: Largest `storm_per_hour`: one alarm a second; so many rows are read at most to see whether an hour is full.
STORM_MAX = 3_600


class RuleBase(FrozenStrict):
    """What every kind of rule has."""

    #: Name of the rule, unique within its camera.
    rule_id: RuleId
    #: Places where the rule does not look, whatever zone they lie in.
    exclude: tuple[Zone, ...] = ()
    #: Point of a box that decides whether the object is in a zone.
    anchor: Anchor = "bottom_centre"
    #: Class names of the model that count; empty: all of them.
    labels: tuple[str, ...] = ()
    #: Lowest score of a box that counts.
    min_score: Unit = 0.4
    #: Smallest box that counts, as a fraction of the picture's height.
    min_height: Unit = 0.0
    #: How long a track may go unseen before it counts as gone from the zone.
    grace_s: Seconds = 1.0
    #: How long the zone must be clear before the episode ends.
    exit_s: Seconds = 2.0
    #: How long after an episode's end a new one is the same alarm.
    cooldown_s: Seconds = 30.0
    #: How urgent the alarm is for who receives it.
    severity: Severity = "warning"
    #: When the rule is armed; none: always.
    schedule: Schedule | None = None
    #: Judged and recorded, but nobody is told: for trying a rule before it counts.
    shadow: Switch = False
    #: Most alarms within an hour that are told of; further ones are recorded, and one summary is told.  0: tell all.
    storm_per_hour: Annotated[Whole, Field(ge=0, le=STORM_MAX)] = 20

    @model_validator(mode="after")
    def _zone_names_differ(self) -> RuleBase:
        names = [place.name for place in self.places]
        if len(set(names)) != len(names):
            raise PydanticCustomError(
                "names_differ", "two zones or lines have one name: {names}", {"names": str(sorted(names))}
            )
        return self

    @property
    def places(self) -> tuple[Zone | Line, ...]:
        """What the rule watches; each has episodes of its own."""
        return ()

    @property
    def named_labels(self) -> dict[str, tuple[str, ...]]:
        """The class names that the rule refers to, by the key that does."""
        return {"labels": self.labels}


class ZoneRule(RuleBase):
    """A rule that watches zones."""

    #: Places that the rule watches; each has episodes of its own.
    zones: Annotated[tuple[Zone, ...], Field(min_length=1, max_length=32)]

    @property
    def places(self) -> tuple[Zone | Line, ...]:
        """The zones."""
        return self.zones


class IntrusionRule(ZoneRule):
    """Somebody is in a zone where nobody may be."""

    #: Kind of rule.
    kind: Literal["intrusion"] = "intrusion"
    #: How long a track must be in the zone before it counts.
    enter_s: Seconds = 0.6


class LoiteringRule(ZoneRule):
    """One object stays in a zone for longer than `dwell_s`."""

    #: Kind of rule.
    kind: Literal["loitering"] = "loitering"
    #: How long an object may stay before it counts.
    dwell_s: LongSeconds = 10.0


class LineCrossingRule(RuleBase):
    """An object crosses a line."""

    #: Kind of rule.
    kind: Literal["line_crossing"] = "line_crossing"
    #: Lines that the rule watches; each has episodes of its own.
    lines: Annotated[tuple[Line, ...], Field(min_length=1, max_length=32)]
    #: Which way counts: to the right or left of who goes from the line's first end to its second, or both.
    direction: Literal["both", "to_right", "to_left"] = "both"
    #: How far from the line an object must be seen on both sides, as a fraction of the picture's height.
    min_distance: Unit = 0.02
    #: Samples in a row that must show it on the far side.
    min_samples: Annotated[int, Field(ge=1, le=50)] = 2

    @property
    def places(self) -> tuple[Zone | Line, ...]:
        """The lines."""
        return self.lines


class WrongDirectionRule(ZoneRule):
    """An object moves against the direction of a lane."""

    #: Kind of rule.
    kind: Literal["wrong_direction"] = "wrong_direction"
    #: Two points: the allowed direction leads from the first to the second.
    heading: tuple[Point, Point]
    #: How far a movement may differ from the opposite of the allowed direction and still be wrong, degrees.
    tolerance_deg: Annotated[Number, Field(gt=0.0, le=90.0)] = 45.0
    #: How far an object must go the wrong way, as a fraction of the picture's height.
    min_distance: Annotated[Number, Field(ge=0.01, le=1.0)] = 0.1

    @model_validator(mode="after")
    def _heading_has_length(self) -> WrongDirectionRule:
        if self.heading[0] == self.heading[1]:
            raise PydanticCustomError("no_heading", "heading: both points are one; a direction has two")
        return self


class CrowdRule(ZoneRule):
    """At least `min_count` objects are in a zone for `hold_s`."""

    #: Kind of rule.
    kind: Literal["crowd"] = "crowd"
    #: Objects that are a crowd.
    min_count: Count = 5
    #: How long there must be that many.
    hold_s: Seconds = 3.0


class AbsenceRule(ZoneRule):
    """A post is left: fewer than `min_count` objects are in a zone for `absent_s`."""

    #: Kind of rule.
    kind: Literal["absence"] = "absence"
    #: Objects that man the post.
    min_count: Count = 1
    #: How long the post may be left.
    absent_s: LongSeconds = 60.0


class PresenceRule(ZoneRule):
    """Something of a class (a phone, smoke, fire) is in a zone for `hold_s`, whatever its tracks are."""

    #: Kind of rule.
    kind: Literal["presence"] = "presence"
    #: Class names of the model that count.
    labels: ClassNames
    #: How long it must be there.
    hold_s: Seconds = 2.0
    #: Least share of the samples of that time in which it is seen.
    min_share: Unit = 0.5


class QueueRule(ZoneRule):
    """A queue is too long, or somebody waits too long in it."""

    #: Kind of rule.
    kind: Literal["queue"] = "queue"
    #: Length from which the queue is too long.
    max_length: Count = 8
    #: How long it must be that long.
    hold_s: Seconds = 10.0
    #: How long one may wait; 0: any time.
    max_wait_s: Seconds = 0.0


class SpeedRule(ZoneRule):
    """An object moves faster over the ground than it may."""

    #: Kind of rule.
    kind: Literal["speed"] = "speed"
    #: Four points of the ground in the picture, no three of them on one line.
    ground: tuple[Point, Point, Point, Point]
    #: Where these points lie on the ground, `[x, y]` in metres.
    metres: tuple[GroundPoint, GroundPoint, GroundPoint, GroundPoint]
    #: Allowed speed, kilometres an hour.
    limit_kmh: Annotated[Number, Field(gt=0.0, le=500.0)]
    #: Time over which a speed is measured.
    over_s: Annotated[Number, Field(ge=0.2, le=10.0)] = 1.0
    #: Measurements in a row that must be too fast.
    min_times: Annotated[int, Field(ge=1, le=50)] = 2

    @model_validator(mode="after")
    def _points_span_a_plane(self) -> SpeedRule:
        sides = []
        for name, points in (("ground", self.ground), ("metres", self.metres)):
            threes = [tuple(point for at, point in enumerate(points) if at != left_out) for left_out in range(4)]
            areas = [polygon_area(three) for three in threes]
            if min(abs(area) for area in areas) < 1e-6:
                raise PydanticCustomError(
                    "on_one_line", "{name}: three of the four points lie on one line", {"name": name}
                )
            sides.append([area > 0.0 for area in areas])
        if sides[0] != sides[1] and sides[0] != [not side for side in sides[1]]:
            raise PydanticCustomError("other_order", "metres: the points are not in the order of those of ground")
        return self


class MissingPpeRule(ZoneRule):
    """A person is seen without an item that must be worn."""

    #: Kind of rule.
    kind: Literal["missing_ppe"] = "missing_ppe"
    #: Class names of persons.
    labels: ClassNames
    #: Class names of the item, any of which will do.
    items: ClassNames
    #: Class names that say that the item is missing, as a bare head does; with any, only they count as missing.
    without: tuple[str, ...] = ()
    #: Part of the person on which the item is worn.
    region: Literal["head", "torso"] = "head"
    #: How long a person must be seen without; time with the item counts backward, unknown time not at all.
    missing_s: LongSeconds = 1.0
    #: Persons that are smaller are unknown, as a fraction of the picture's height.
    min_person_height: Unit = 0.1

    @property
    def named_labels(self) -> dict[str, tuple[str, ...]]:
        """Those of persons and items."""
        return {"labels": self.labels, "items": self.items, "without": self.without}


class FallRule(ZoneRule):
    """Somebody who stood lies, and stays there."""

    #: Kind of rule.
    kind: Literal["fall"] = "fall"
    #: Least width of the box over its height, both in the same unit.
    min_ratio: Annotated[Number, Field(ge=0.8, le=5.0)] = 1.0
    #: Greatest height of the box, as a fraction of its height when it last was upright.
    max_height: Annotated[Number, Field(gt=0.0, le=1.0)] = 0.7
    #: How far the box may move while it counts as still, as a fraction of the picture's height.
    max_move: Unit = 0.05
    #: How long it must lie still.
    still_s: Seconds = 2.0


class AbandonedRule(ZoneRule):
    """Something stands where it was put, and nobody is with it."""

    #: Kind of rule.
    kind: Literal["abandoned"] = "abandoned"
    #: Class names of objects.
    labels: ClassNames
    #: Class names of who may own one.
    owner_labels: ClassNames = ("person",)
    #: How near an owner must be, from the object's middle to the owner's box, as a fraction of the picture's height.
    owner_distance: Unit = 0.15
    #: How far the box may move while it counts as standing, as a fraction of the picture's height.
    max_move: Unit = 0.02
    #: How long it must have stood.
    still_s: Seconds = 3.0
    #: How long nobody must have been near.
    left_s: LongSeconds = 10.0

    @property
    def named_labels(self) -> dict[str, tuple[str, ...]]:
        """Those of objects and owners."""
        return {"labels": self.labels, "owner_labels": self.owner_labels}


Rule = Annotated[
    IntrusionRule
    | LoiteringRule
    | LineCrossingRule
    | WrongDirectionRule
    | CrowdRule
    | AbsenceRule
    | PresenceRule
    | QueueRule
    | SpeedRule
    | MissingPpeRule
    | FallRule
    | AbandonedRule,
    Field(discriminator="kind"),
]
