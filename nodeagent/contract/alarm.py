"""The message by which an episode leaves the judge."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from nodeagent.contract.geometry import Point, Unit
from nodeagent.contract.ids import CameraId, Epoch, Frozen, NodeId, RuleId, UtcNs
from nodeagent.contract.rule import Severity

Stage = Literal["started", "updated", "ended"]


def dedup_key(camera_id: str, rule_id: str, zone: str, episode_started_ns: int, shadow: bool = False) -> str:
    """Key of an episode: the same for every message about it, whoever sends it and however often (32 hex digits).

    One of a rule in shadow mode has another key than one that is told of, though all else is the same.
    """
    text = "\x1f".join((camera_id, rule_id, zone, str(episode_started_ns), *(["shadow"] if shadow else [])))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceBox:
    """One object of the confirming sample, normalised coordinates.

    No model of its own: a crowd has many, each alarm shows them, and a model's making costs ten times as much.
    """

    x1: Unit
    y1: Unit
    x2: Unit
    y2: Unit
    score: Unit
    label: str
    track_id: int
    #: Whether this object is one that broke the rule.
    subject: bool = True


class Evidence(Frozen):
    """Why an alarm fired."""

    #: Capture time of the sample that confirmed it.
    sample_ns: UtcNs
    boxes: tuple[EvidenceBox, ...] = ()
    #: Corners of the zone, normalised.
    polygon: tuple[Point, ...] = ()
    #: Distinct tracks that broke the rule so far.
    subjects: Annotated[int, Field(ge=0)] = 0
    #: Figures of the rule's own, for example `dwell_s`.
    values: dict[str, float] = Field(default_factory=dict)


class AlarmMessage(Frozen):
    """One state of one episode.  Messages of an episode may come in any order and more than once."""

    v: Literal[1] = 1
    kind: Literal["violation", "system"] = "violation"
    stage: Stage
    dedup_key: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    node_id: NodeId
    camera_id: CameraId
    epoch: Epoch
    rule_id: RuleId
    rule_kind: str
    zone: str
    severity: Severity
    #: Whether the rule is in shadow mode: it is recorded, and nobody is told.
    shadow: bool = False
    #: Most alarms of the rule within an hour that are told of; 0: all, also of a sender that does not know of it.
    storm_per_hour: Annotated[int, Field(ge=0)] = 0
    #: Capture time at which the zone became occupied against the rule.
    episode_started_ns: UtcNs
    #: Capture time of the sample that made it an alarm.
    confirmed_ns: UtcNs
    #: Capture time at which the zone was clear again; none while it lasts.
    ended_ns: UtcNs | None = None
    cooldown_s: float
    evidence: Evidence
    replay_from_ns: UtcNs
    replay_to_ns: UtcNs
    #: Wall clock, UTC ns, by name of the step (those of the detections, and `judged`).
    timings: dict[str, int] = Field(default_factory=dict)
