"""Follows objects through the samples of one camera.

Pure.  BYTE association (Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022,
algorithm 1): strong boxes first, then weak boxes for the tracks left over, then a wider net (buffered IoU) for what is
still free.  Each of the four box coordinates has its own Kalman filter of constant velocity, so that a covariance is
three numbers instead of an 8x8 matrix.  Real time stamps drive it: samples may come irregularly.

A new id never continues an old object: ids only grow, and a track is matched only with boxes of its own class.  Two
clocks must not be mixed up: motion runs on capture time, death runs on *watched* time, which stands still in gaps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from nodeagent.contract.ids import NS_PER_S
from nodeagent.judge.association import Floats, Indices, best_pairs, buffered_iou, no_pairs

Ints = npt.NDArray[np.int64]

#: Columns of `Tracks.motion`, float64, in fractions of the picture and ticks: box (centre x, centre y, width, height),
#: its velocity, the covariance per coordinate (position, position-velocity, velocity), and the box as last seen.
BOX: Final = slice(0, 4)
VELOCITY: Final = slice(4, 8)
P_XX: Final = slice(8, 12)
P_XV: Final = slice(12, 16)
P_VV: Final = slice(16, 20)
SEEN_BOX: Final = slice(20, 24)
MOTION_COLUMNS: Final = 24
#: Columns of `Tracks.facts`, int64: id, samples seen so far, class, watched time (ns) when last seen.
ID: Final = 0
HITS: Final = 1
LABEL: Final = 2
SEEN: Final = 3
FACT_COLUMNS: Final = 4

#: One tick of the motion model, seconds: the noise below is that of the literature, which counts frames at 30 a second.
TICK_S: Final = 1.0 / 30.0
#: Noise of a position and of a velocity per tick, as a fraction of the box (SORT/DeepSORT's constants).
POSITION_NOISE: Final = 1.0 / 20.0
VELOCITY_NOISE: Final = 1.0 / 160.0
#: Spread of a new track's position and velocity, in units of the noise above (DeepSORT's constants).
BIRTH_POSITION: Final = 2.0
BIRTH_VELOCITY: Final = 10.0
#: Longest motion that is predicted over one step, seconds: nobody keeps a straight line through a gap.
COAST_MAX_S: Final = 1.0
#: Smallest width and height that a prediction may shrink to, fraction of the picture.
SIZE_MIN: Final = 1e-4


@dataclass(frozen=True, slots=True)
class TrackerSettings:
    """Thresholds; scores and likenesses in [0, 1].

    Attributes:
        strong: boxes from this score on are matched first.
        weak: boxes below are ignored.
        birth: a free box from this score on starts a track.
        strong_iou: least IoU x score of a strong match.
        weak_iou: least IoU of a weak match.
        wide_iou: least buffered IoU of the last try.
        wide_buffer: how much that try grows boxes, fraction of their size.
        min_hits: samples after which a track is confirmed.
        max_lost_ns: watched time after which an unseen track is dropped.
    """

    strong: float = 0.4
    weak: float = 0.1
    birth: float = 0.4
    strong_iou: float = 0.15
    weak_iou: float = 0.4
    wide_iou: float = 0.15
    wide_buffer: float = 0.3
    min_hits: int = 2
    max_lost_ns: int = NS_PER_S


@dataclass(slots=True)
class Tracks:
    """All tracks of a camera, one row each.

    Attributes:
        motion: (n, MOTION_COLUMNS) float64.
        facts: (n, FACT_COLUMNS) int64.
        next_id: id of the next track; starts at 1.
        last_ns: capture time of the newest sample; 0 before the first.
    """

    motion: Floats = field(default_factory=lambda: np.empty((0, MOTION_COLUMNS)))
    facts: Ints = field(default_factory=lambda: np.empty((0, FACT_COLUMNS), np.int64))
    next_id: int = 1
    last_ns: int = 0

    def __len__(self) -> int:
        return len(self.facts)


@dataclass(frozen=True, slots=True)
class Matching:
    """What one sample did to the tracks.

    Attributes:
        track: (n,) row of `Tracks` for each box; -1: the box belongs to none.
        kept: rows of the tracks before the sample that are still there, in their order; None: all.
        born: rows added at the end.
    """

    track: Indices
    kept: Indices | None
    born: int


def centred(x1: Floats, y1: Floats, x2: Floats, y2: Floats) -> Floats:
    """(n, 4) centre x, centre y, width, height from corners."""
    boxes = np.empty((len(x1), 4))
    boxes[:, 0] = 0.5 * (x1 + x2)
    boxes[:, 1] = 0.5 * (y1 + y2)
    np.maximum(x2 - x1, SIZE_MIN, out=boxes[:, 2])
    np.maximum(y2 - y1, SIZE_MIN, out=boxes[:, 3])
    return boxes


def predict(motion: Floats, elapsed_s: float) -> None:
    """Move all tracks on by `elapsed_s`, in place (Kalman prediction, x += v t, P = F P F' + Q, per coordinate)."""
    ticks = min(elapsed_s, COAST_MAX_S) / TICK_S
    box, velocity = motion[:, BOX], motion[:, VELOCITY]
    p_xx, p_xv, p_vv = motion[:, P_XX], motion[:, P_XV], motion[:, P_VV]
    box += ticks * velocity
    np.maximum(box[:, 2:], SIZE_MIN, out=box[:, 2:])
    spread = _sizes(box)
    spread *= spread
    p_xx += ticks * (2.0 * p_xv + ticks * p_vv) + (POSITION_NOISE**2 * ticks) * spread
    p_xv += ticks * p_vv
    p_vv += (VELOCITY_NOISE**2 * ticks) * spread


def correct(motion: Floats, rows: Indices, seen: Floats) -> None:
    """Take what was seen, (n, 4) boxes, into tracks `rows`, in place (Kalman update, K = P / (P + R))."""
    part = motion[rows]
    noise = _sizes(seen)
    noise *= POSITION_NOISE
    noise *= noise
    p_xx, p_xv = part[:, P_XX], part[:, P_XV]
    total = p_xx + noise
    gain, velocity_gain = p_xx / total, p_xv / total
    surprise = seen - part[:, BOX]
    part[:, BOX] += gain * surprise
    part[:, VELOCITY] += velocity_gain * surprise
    part[:, P_VV] -= velocity_gain * p_xv
    rest = 1.0 - gain
    p_xv *= rest
    p_xx *= rest
    part[:, SEEN_BOX] = seen
    motion[rows] = part


def _sizes(boxes: Floats) -> Floats:
    """(n, 4): width, height, width, height: what each coordinate's noise is measured by."""
    sizes = np.empty((len(boxes), 4))
    sizes[:, 0:2] = boxes[:, 2:4]
    sizes[:, 2:4] = boxes[:, 2:4]
    return sizes


def _newborn(boxes: Floats) -> Floats:
    motion = np.zeros((len(boxes), MOTION_COLUMNS))
    motion[:, BOX] = boxes
    motion[:, SEEN_BOX] = boxes
    sizes = _sizes(boxes)
    motion[:, P_XX] = (BIRTH_POSITION * POSITION_NOISE * sizes) ** 2
    motion[:, P_VV] = (BIRTH_VELOCITY * VELOCITY_NOISE * sizes) ** 2
    return motion


class _Round:
    """The matching of one sample's boxes with the tracks, three tries one after the other."""

    def __init__(self, tracks: Tracks, boxes: Floats, score: Floats, label: Ints, settings: TrackerSettings) -> None:
        self.settings = settings
        self.motion, self.facts = tracks.motion, tracks.facts
        self.boxes, self.score, self.label = boxes, score, label
        self.sure = self.facts[:, HITS] >= settings.min_hits
        self.free = np.ones(len(self.facts), np.bool_)
        self.track: Indices = np.full(len(boxes), -1, np.intp)
        #: Classes are compared only when there is more than one.
        self.one_class = not len(self.facts) or not len(label) or self._is_one_class()
        strong = score >= settings.strong
        self.strong = strong.nonzero()[0]
        self.weak = (~strong & (score >= settings.weak)).nonzero()[0] if not strong.all() else self.strong[:0]

    def _is_one_class(self) -> bool:
        first = self.label[0]
        return bool((self.label == first).all() and (self.facts[:, LABEL] == first).all())

    def run(self) -> Indices:
        """Match; return the strong boxes that are still free."""
        if self.strong.size and self.sure.any():
            likeness = self._likeness(None, self.strong)
            likeness *= self.score[self.strong]
            if not self.sure.all():
                likeness *= self.sure[:, None]
            self._take(*best_pairs(likeness, self.settings.strong_iou), None, self.strong)
        if self.weak.size:
            self._try_weak()
        rest = self.strong[self.track[self.strong] < 0]
        if rest.size and self.free.any():
            self._try_wide(rest)
            rest = rest[self.track[rest] < 0]
        return rest

    def _try_weak(self) -> None:
        rows = (self.free & self.sure).nonzero()[0]
        if rows.size:
            self._take(*best_pairs(self._likeness(rows, self.weak), self.settings.weak_iou), rows, self.weak)

    def _try_wide(self, rest: Indices) -> None:
        rows = self.free.nonzero()[0]
        buffer = self.settings.wide_buffer
        likeness = self._likeness(rows, rest, buffer)
        # Where it was last seen counts too: who stands still is not where a wrong velocity puts him.
        seen = buffered_iou(self.motion[rows, SEEN_BOX], self.boxes[rest], buffer)
        if not self.one_class:
            seen *= self.facts[rows, LABEL][:, None] == self.label[rest]
        np.maximum(likeness, seen, out=likeness)
        pairs = best_pairs(likeness, self.settings.wide_iou) if likeness.size else no_pairs()
        self._take(*pairs, rows, rest)

    def _likeness(self, rows: Indices | None, columns: Indices, buffer: float = 0.0) -> Floats:
        motion = self.motion if rows is None else self.motion[rows]
        boxes = self.boxes if len(columns) == len(self.boxes) else self.boxes[columns]
        likeness = buffered_iou(motion, boxes, buffer)
        if not self.one_class:
            labels = self.facts[:, LABEL] if rows is None else self.facts[rows, LABEL]
            likeness *= labels[:, None] == self.label[columns]
        return likeness

    def _take(self, picked_rows: Indices, picked: Indices, rows: Indices | None, columns: Indices) -> None:
        hit = picked_rows if rows is None else rows[picked_rows]
        self.track[columns[picked]] = hit
        self.free[hit] = False


def update(
    tracks: Tracks,
    boxes: Floats,
    score: Floats,
    label: Ints,
    *,
    sample_ns: int,
    watched_ns: int,
    settings: TrackerSettings,
) -> Matching:
    """Take one sample into `tracks`, in place.

    Args:
        tracks: what was known before.
        boxes: (n, 4) float64, see `centred`.
        score: (n,) float64.
        label: (n,) int64.
        sample_ns: capture time; grows from call to call.
        watched_ns: the camera's watched time, which stands still in gaps.
        settings: thresholds.
    """
    before = len(tracks)
    if before and sample_ns > tracks.last_ns:
        predict(tracks.motion, (sample_ns - tracks.last_ns) / NS_PER_S)
    tracks.last_ns = sample_ns
    match = _Round(tracks, boxes, score, label, settings)
    rest = match.run()
    hit = (match.track >= 0).nonzero()[0]
    if hit.size:
        rows = match.track[hit]
        correct(tracks.motion, rows, boxes[hit])
        tracks.facts[rows, HITS] += 1
        tracks.facts[rows, SEEN] = watched_ns
    track = match.track
    kept = _bury(tracks, match, watched_ns, settings)
    if kept is not None:
        new_row = np.full(before + 1, -1, np.intp)
        new_row[kept] = np.arange(len(kept))
        track = new_row[track]
    births = rest[score[rest] >= settings.birth]
    if births.size:
        track[births] = len(tracks) + np.arange(births.size)
        _give_birth(tracks, boxes[births], label[births], watched_ns)
    return Matching(track, kept, int(births.size))


def _bury(tracks: Tracks, match: _Round, watched_ns: int, settings: TrackerSettings) -> Indices | None:
    """Drop tracks unseen for too long, and those that were never confirmed and not seen again."""
    if not match.free.any():
        return None
    lost = watched_ns - tracks.facts[:, SEEN] > settings.max_lost_ns
    dead = lost | (match.free & ~match.sure)
    if not dead.any():
        return None
    kept = (~dead).nonzero()[0]
    tracks.motion, tracks.facts = tracks.motion[kept], tracks.facts[kept]
    return kept


def _give_birth(tracks: Tracks, boxes: Floats, label: Ints, watched_ns: int) -> None:
    born = len(boxes)
    facts = np.empty((born, FACT_COLUMNS), np.int64)
    facts[:, ID] = np.arange(tracks.next_id, tracks.next_id + born)
    facts[:, HITS] = 1
    facts[:, LABEL] = label
    facts[:, SEEN] = watched_ns
    tracks.next_id += born
    tracks.motion = np.concatenate((tracks.motion, _newborn(boxes)))
    tracks.facts = np.concatenate((tracks.facts, facts))
