"""Made-up scenes with known truth: people on scripted paths, seen by a detector whose faults are scripted too.

A scene is rendered sample by sample and then cut into clips, so that the same scene can be cut in several ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import TypeAdapter

from nodeagent.contract.detections import DETECTION_DTYPE, ClipDetections, DetectionsHeader
from nodeagent.contract.rule import IntrusionRule, LoiteringRule, Rule

T0_NS = 1_700_000_000_000_000_000
S = 1_000_000_000
LABELS = ("person", "car", "helmet", "bag")

#: Left half, right half, and a small square in the middle of the picture.
LEFT = ((0.0, 0.0), (0.45, 0.0), (0.45, 1.0), (0.0, 1.0))
RIGHT = ((0.55, 0.0), (1.0, 0.0), (1.0, 1.0), (0.55, 1.0))
MIDDLE = ((0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6))


def intrusion(polygon=RIGHT, **fields) -> IntrusionRule:
    """An intrusion rule with one zone."""
    doc = {"rule_id": "no-entry", "zones": [{"name": "yard", "polygon": polygon}], **fields}
    return IntrusionRule.model_validate(doc)


def loitering(polygon=RIGHT, **fields) -> LoiteringRule:
    """A loitering rule with one zone."""
    doc = {"rule_id": "no-waiting", "zones": [{"name": "yard", "polygon": polygon}], "dwell_s": 4.0, **fields}
    return LoiteringRule.model_validate(doc)


_RULE: TypeAdapter[Rule] = TypeAdapter(Rule)


def rule(kind: str, polygon=RIGHT, **fields) -> Rule:
    """A rule of any kind that watches zones, with one zone."""
    doc = {"kind": kind, "rule_id": kind, "zones": [{"name": "yard", "polygon": polygon}], **fields}
    return _RULE.validate_python(doc)


def crossing(line=((0.5, 0.0), (0.5, 1.0)), **fields) -> Rule:
    """A line crossing rule with one line, by default from the top to the bottom through the middle."""
    doc = {"kind": "line_crossing", "rule_id": "crossing", "lines": [{"name": "gate", "line": line}], **fields}
    return _RULE.validate_python(doc)


#: The lower half of the picture as 10 m by 10 m of ground.
GROUND = {
    "ground": ((0.0, 0.5), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0)),
    "metres": ((0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0)),
}


@dataclass(frozen=True)
class Person:
    """Somebody on a path.

    Attributes:
        path: (second, x, y of the feet) corners; straight and even in between, absent before and after.
        hidden: (from, to) seconds in which the detector does not see them.
        weak: (from, to) seconds in which their score is 0.2.
    """

    path: tuple[tuple[float, float, float], ...]
    width: float = 0.06
    height: float = 0.2
    score: float = 0.9
    label: int = 0
    hidden: tuple[tuple[float, float], ...] = ()
    weak: tuple[tuple[float, float], ...] = ()

    def at(self, second: float) -> tuple[float, float] | None:
        """Where the feet are; None: not seen."""
        times = [corner[0] for corner in self.path]
        if not times[0] <= second <= times[-1] or _within(second, self.hidden):
            return None
        return (
            float(np.interp(second, times, [corner[1] for corner in self.path])),
            float(np.interp(second, times, [corner[2] for corner in self.path])),
        )


def _within(second: float, spans: Iterable[tuple[float, float]]) -> bool:
    return any(start <= second < end for start, end in spans)


def stands(x: float, y: float, start: float, end: float, **fields) -> Person:
    """Somebody who stands still."""
    return Person(((start, x, y), (end, x, y)), **fields)


def walks(start: float, end: float, x0: float, x1: float, y: float = 0.7, **fields) -> Person:
    """Somebody who crosses the picture at even speed."""
    return Person(((start, x0, y), (end, x1, y)), **fields)


@dataclass(frozen=True)
class Scene:
    """People, a length, and how it is sampled.

    Attributes:
        gone: (from, to) seconds in which the camera gives no sample at all.
    """

    people: tuple[Person, ...]
    seconds: float
    fps: float = 5.0
    jitter: float = 0.0
    seed: int = 0
    gone: tuple[tuple[float, float], ...] = ()
    camera_id: str = "cam"
    epoch: int = 1
    extra: tuple[tuple[float, float, float], ...] = field(default=())

    def samples(self) -> list[tuple[int, np.ndarray]]:
        """Capture time and rows (with sample = 0) of each sample."""
        rng = np.random.default_rng(self.seed)
        found = []
        for number in range(int(self.seconds * self.fps)):
            second = number / self.fps
            if not _within(second, self.gone):
                found.append((T0_NS + round(second * S), self._rows(second, rng)))
        return found

    def _rows(self, second: float, rng: np.random.Generator) -> np.ndarray:
        boxes = []
        for person in self.people:
            feet = person.at(second)
            if feet is None:
                continue
            dx, dy, dw, dh = rng.normal(0.0, self.jitter, 4)
            width, height = person.width * (1 + dw), person.height * (1 + dh)
            x, y = feet[0] + dx * person.width, feet[1] + dy * person.height
            score = 0.2 if _within(second, person.weak) else person.score
            boxes.append((0, x - width / 2, y - height, x + width / 2, y, score, person.label))
        boxes += [(0, x - 0.03, y - 0.2, x + 0.03, y, 0.9, 0) for when, x, y in self.extra if abs(when - second) < 1e-6]
        rows = np.array(boxes, DETECTION_DTYPE)
        for name in ("x1", "y1", "x2", "y2"):
            rows[name] = np.clip(rows[name], 0.0, 1.0)
        return rows

    def clips(self, clip_s: float = 5.0) -> list[ClipDetections]:
        """The scene cut on a grid of `clip_s`."""
        return cut(self.samples(), self.seconds, [k * clip_s for k in range(int(self.seconds / clip_s) + 1)], self)


def cut(samples, seconds: float, starts: Sequence[float], scene: Scene) -> list[ClipDetections]:
    """Samples cut into clips that begin at `starts`, seconds; clips without a sample are left out."""
    bounds = sorted({0.0, *(start for start in starts if 0.0 <= start < seconds)})
    clips = []
    for start, end in zip(bounds, [*bounds[1:], seconds], strict=True):
        part = [item for item in samples if T0_NS + start * S <= item[0] < T0_NS + end * S]
        if part:
            clips.append(clip_of(part, len(clips), round((end - start) * S), scene.camera_id, scene.epoch))
    return clips


def clip_of(part, seq: int, duration_ns: int, camera_id: str = "cam", epoch: int = 1, began: int = T0_NS):
    """One clip of these samples."""
    rows = []
    for number, (_, found) in enumerate(part):
        found = found.copy()
        found["sample"] = number
        rows.append(found)
    header = DetectionsHeader(
        node_id="node",
        camera_id=camera_id,
        epoch=epoch,
        epoch_started_ns=began,
        clip_seq=seq,
        start_ns=part[0][0],
        duration_ns=duration_ns,
        samples_expected=len(part),
        sample_ns=tuple(when for when, _ in part),
        sample_width=640,
        sample_height=360,
        model="m",
        model_version="1",
        labels=LABELS,
        path="ring",
    )
    return ClipDetections(header, np.concatenate(rows) if rows else np.empty(0, DETECTION_DTYPE))


def changed(clip: ClipDetections, **fields) -> ClipDetections:
    """The clip with other header fields."""
    return replace(clip, header=clip.header.model_copy(update=fields))


def unknown(clip: ClipDetections) -> ClipDetections:
    """The clip as inference reports it when it could not look."""
    header = clip.header.model_copy(
        update={"outcome": "unknown", "reason": "undecodable", "sample_ns": (), "path": "none"}
    )
    return ClipDetections(header, np.empty(0, DETECTION_DTYPE))


def later(clips: Sequence[ClipDetections], seconds: float, **fields) -> list[ClipDetections]:
    """The clips moved in time."""
    shift = round(seconds * S)

    def moved(header: DetectionsHeader) -> dict[str, object]:
        return {
            "start_ns": header.start_ns + shift,
            "sample_ns": tuple(when + shift for when in header.sample_ns),
            "epoch_started_ns": header.epoch_started_ns + shift,
            **fields,
        }

    return [changed(clip, **moved(clip.header)) for clip in clips]


def seconds_of(ns: int | None) -> float:
    """Seconds of the scene."""
    assert ns is not None
    return (ns - T0_NS) / S


Feed = Callable[[Sequence[ClipDetections]], list]
