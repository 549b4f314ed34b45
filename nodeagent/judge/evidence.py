"""From an episode's row to the message that the alarm stage reads.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from nodeagent.contract.alarm import AlarmMessage, Evidence, EvidenceBox, Stage, dedup_key
from nodeagent.contract.detections import Rows
from nodeagent.contract.ids import NS_PER_S
from nodeagent.judge.association import Flags, Indices
from nodeagent.judge.rules.port import Place
from nodeagent.judge.tracker import ID, Tracks

#: Boxes in one message at most, subjects first: a crowd's other boxes explain nothing.
BOXES_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Shown:
    """What a message shows of its sample.

    Attributes:
        values: figures of the rule's own, by name with unit.
    """

    boxes: tuple[EvidenceBox, ...] = ()
    values: dict[str, float] = field(default_factory=dict)


NOTHING: Final = Shown()


@dataclass(frozen=True, slots=True)
class Boxes:
    """The boxes of one sample.

    Attributes:
        rows: (n,) of DETECTION_DTYPE.
        track: (n,) row of each box's track; -1: none.
        labels: names of the classes.
    """

    rows: Rows
    track: Indices
    labels: tuple[str, ...]

    def show(self, tracks: Tracks, subjects: Flags) -> tuple[EvidenceBox, ...]:
        """Boxes that have a track; `subjects`: (tracks,) bool, those that break the rule."""
        known = (self.track >= 0).nonzero()[0]
        known = known[np.argsort(~subjects[self.track[known]], kind="stable")][:BOXES_MAX]
        track = self.track[known]
        columns = zip(
            self.rows[known].tolist(), tracks.facts[track, ID].tolist(), subjects[track].tolist(), strict=True
        )
        return tuple(
            EvidenceBox(
                x1=x1,
                y1=y1,
                x2=x2,
                y2=y2,
                score=score,
                label=self.labels[label],
                track_id=track_id,
                subject=subject,
            )
            for (_, x1, y1, x2, y2, score, label), track_id, subject in columns
        )


@dataclass(frozen=True, slots=True)
class Author:
    """What all messages of a camera have in common.

    Attributes:
        replay_before_s: seconds of replay before the confirming sample.
        replay_after_s: seconds of replay after it.
    """

    node_id: str
    camera_id: str
    replay_before_s: float
    replay_after_s: float

    def write(
        self,
        place: Place,
        episode: np.void,
        stage: Stage,
        *,
        epoch: int,
        sample_ns: int,
        shown: Shown,
    ) -> AlarmMessage:
        """The message about `episode`, a row of EPISODE_DTYPE, as of the sample at `sample_ns`."""
        rule, zone = place.rule, place.zone
        started_ns, confirmed_ns = int(episode["started_ns"]), int(episode["confirmed_ns"])
        return AlarmMessage(
            stage=stage,
            dedup_key=dedup_key(self.camera_id, rule.rule_id, zone.name, started_ns, rule.shadow),
            node_id=self.node_id,
            camera_id=self.camera_id,
            epoch=epoch,
            rule_id=rule.rule_id,
            rule_kind=place.kind,
            zone=zone.name,
            severity=rule.severity,
            shadow=rule.shadow,
            storm_per_hour=rule.storm_per_hour,
            episode_started_ns=started_ns,
            confirmed_ns=confirmed_ns,
            ended_ns=int(episode["ended_ns"]) if stage == "ended" else None,
            cooldown_s=rule.cooldown_s,
            evidence=Evidence(
                sample_ns=sample_ns,
                boxes=shown.boxes,
                polygon=zone.polygon,
                subjects=int(episode["subjects"]),
                values=shown.values,
            ),
            replay_from_ns=max(0, confirmed_ns - round(self.replay_before_s * NS_PER_S)),
            replay_to_ns=confirmed_ns + round(self.replay_after_s * NS_PER_S),
        )
