"""Violation definitions, as bound to one camera.

A new kind of rule is one model here and one file in `judge/rules`.  Every duration is in seconds of capture time, every
length a fraction of the picture's height.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from nodeagent.contract.geometry import Anchor, Unit, Zone
from nodeagent.contract.ids import FrozenStrict, Number, RuleId, Switch
from nodeagent.contract.schedule import Schedule

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
Seconds = Annotated[Number, Field(ge=0.0, le=86_400.0)]


class RuleBase(FrozenStrict):
    """What every kind of rule has."""

    #: Name of the rule, unique within its camera.
    rule_id: RuleId
    #: Places that the rule watches; each has episodes of its own.
    zones: Annotated[tuple[Zone, ...], Field(min_length=1, max_length=32)]
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

    @model_validator(mode="after")
    def _zone_names_differ(self) -> RuleBase:
        names = [zone.name for zone in self.zones]
        if len(set(names)) != len(names):
            raise PydanticCustomError("names_differ", "two zones have one name: {names}", {"names": str(sorted(names))})
        return self


class IntrusionRule(RuleBase):
    """Somebody is in a zone where nobody may be."""

    #: Kind of rule.
    kind: Literal["intrusion"] = "intrusion"
    #: How long a track must be in the zone before it counts.
    enter_s: Seconds = 0.6


class LoiteringRule(RuleBase):
    """One object stays in a zone for longer than `dwell_s`."""

    #: Kind of rule.
    kind: Literal["loitering"] = "loitering"
    #: How long an object may stay before it counts.
    dwell_s: Annotated[Number, Field(gt=0.0, le=86_400.0)] = 10.0


Rule = Annotated[IntrusionRule | LoiteringRule, Field(discriminator="kind")]
