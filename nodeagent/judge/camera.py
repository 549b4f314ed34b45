"""One camera's judge: clips in, alarm messages out.

Pure: the same clips in the same order give the same messages, however they were cut, and a judge restored from a
snapshot goes on as the one that wrote it.

*Watched time* is the clock of all rules: it advances by the time between two samples, and stands still over a gap (a
missing or unknown clip, a pause longer than `GAP_S`).  So nothing fires, ends or is forgotten for want of input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from nodeagent.contract.alarm import AlarmMessage, Stage
from nodeagent.contract.detections import ClipDetections, DetectionsHeader
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.rule import Rule
from nodeagent.judge.association import Flags, Indices, any_row
from nodeagent.judge.episodes import Episodes, Phase
from nodeagent.judge.evidence import NOTHING, Author, Boxes, Shown
from nodeagent.judge.ledger import Ledger
from nodeagent.judge.presence import Presence, Sighting
from nodeagent.judge.rules.port import View
from nodeagent.judge.ruleset import Corners, RuleSet, remembered, sightings
from nodeagent.judge.tracker import HITS, LABEL, SEEN_BOX, Tracks, centred, update

#: A pause between samples that is longer is a gap, seconds: well over the jitter and the misses of 1 sample a second.
GAP_S: Final = 2.0
#: The same for a camera that is sampled rarely, in sample periods.
GAP_PERIODS: Final = 2.5


class CameraJudge:
    """Everything the judge knows of one camera.

    Attributes:
        author: what its messages have in common.
        rules: compiled rules.
        tracks, presence, episodes: see there; rows of presence are rows of tracks, columns are places.
        memories: what each kind of `rules` remembers, in the order of its `kinds`.
        ledger: what was judged.
        watched_ns: watched time since the camera's first sample.
        torn: whether there is a gap before the next sample, whatever its time says.
        labels: names of the classes that `tracks` refer to.
    """

    def __init__(self, author: Author, rules: Sequence[Rule], sample_fps: float) -> None:
        self.author = author
        self.rules = RuleSet(rules)
        self.tracks = Tracks()
        self.presence = Presence(len(self.rules.places))
        self.memories = self.rules.memories()
        self.episodes = Episodes(len(self.rules.places))
        self.ledger = Ledger()
        self.watched_ns = 0
        self.torn = False
        self.labels: tuple[str, ...] = ()
        self.gap_ns = gap_ns(sample_fps)

    def retarget(self, rules: Sequence[Rule], sample_fps: float) -> list[AlarmMessage]:
        """Take new rules; what did not change keeps tracks, clocks and episodes.  Episodes without a rule end."""
        self.gap_ns = gap_ns(sample_fps)
        if tuple(rules) == self.rules.rules:
            return []
        old, new = self.rules, RuleSet(rules)
        clocks, episodes = new.origins(old)
        gone = sorted(set(range(len(old.places))) - set(episodes.tolist()))
        now_ns = self.ledger.last_sample_ns
        messages = [
            self._tell(place, "ended", self.ledger.epoch, now_ns, NOTHING)
            for place in gone
            if self.episodes.cut(place, now_ns)
        ]
        self.presence.rearrange(clocks)
        self.memories = remembered(new, len(self.tracks), old, self.memories)
        self.episodes.rearrange(episodes)
        self.rules = new
        self.ledger.counters.alarms += len(messages)
        return messages

    def judge(self, clip: ClipDetections, missing: tuple[int, int] | None = None) -> list[AlarmMessage]:
        """Judge the next clip; `missing`: numbers before it that are declared missing."""
        header = clip.header
        if missing is not None:
            self.ledger.declare_missing(header.epoch, missing)
        if missing is not None or header.outcome == "unknown":
            self.torn = True
        first, last = self.ledger.accepted(header) if header.outcome == "ok" else (0, 0)
        messages: list[AlarmMessage] = []
        if last > first:
            messages = self._samples(clip, first, last)
        self.ledger.judged(header, (first, last))
        self.ledger.counters.alarms += len(messages)
        return messages

    def _samples(self, clip: ClipDetections, first: int, last: int) -> list[AlarmMessage]:
        header, rows = clip.header, clip.rows
        self._follow_labels(header.labels)
        corners = Corners.of(rows)
        label = rows["label"].astype(np.int64)
        boxes = centred(corners.x1, corners.y1, corners.x2, corners.y2)
        bounds = np.searchsorted(rows["sample"], np.arange(len(header.sample_ns) + 1))
        seen = sightings(self.rules.inside(corners), self.rules.counts(corners, label, header.labels), bounds)
        messages: list[AlarmMessage] = []
        for number in range(first, last):
            part = slice(bounds[number], bounds[number + 1])
            lapsed = self.rules.arming.step(self.tracks.last_ns, header.sample_ns[number])
            if lapsed is not None:
                messages += self._disarm(lapsed, header.epoch, header.sample_ns[number])
            step_ns, torn = self._watch(header.sample_ns[number])
            matching = update(
                self.tracks,
                boxes[part],
                corners.score[part],
                label[part],
                sample_ns=header.sample_ns[number],
                watched_ns=self.watched_ns,
                settings=self.rules.tracker,
            )
            self.presence.follow(matching)
            for memory in self.memories:
                memory.follow(matching)
            sample = _Sample(header, number, part, matching.track, seen[number], step_ns, torn)
            messages += self._step(clip, sample)
        return messages

    def _disarm(self, places: Flags, epoch: int, sample_ns: int) -> list[AlarmMessage]:
        """These places, (places,) bool, are not armed, or were not for a while: clocks and episodes end with that."""
        self.presence.clear(places)
        for (part, _), memory in zip(self.rules.kinds, self.memories, strict=True):
            memory.clear(places[part])
        last_ns, arming = self.tracks.last_ns, self.rules.arming
        return [
            self._tell(place, "ended", epoch, sample_ns, NOTHING)
            for place in places.nonzero()[0].tolist()
            if self.episodes.cut(place, arming.end_ns(place, last_ns, sample_ns))
        ]

    def _watch(self, sample_ns: int) -> tuple[int, bool]:
        """Advance watched time to this sample; return by how much, and whether there is a gap before it."""
        last_ns = self.tracks.last_ns
        step_ns = sample_ns - last_ns
        torn = not last_ns or self.torn or step_ns > self.gap_ns
        if torn:
            step_ns = 0
        self.torn = False
        self.watched_ns += step_ns
        return step_ns, torn

    def _follow_labels(self, labels: tuple[str, ...]) -> None:
        """A model with other classes: tracks keep theirs by name; one whose class is gone matches nothing any more."""
        if labels == self.labels:
            return
        names = [labels.index(name) if name in labels else -1 for name in self.labels]
        if len(self.tracks) and names:
            self.tracks.facts[:, LABEL] = np.array(names, np.int64)[self.tracks.facts[:, LABEL]]
        self.labels = labels

    def _step(self, clip: ClipDetections, sample: _Sample) -> list[AlarmMessage]:
        """Judge one sample whose boxes are already in the tracks."""
        rules, sample_ns = self.rules, sample.sample_ns
        self.presence.see(
            sample.seen.within(rules.arming.armed) if rules.arming.quiet else sample.seen,
            sample.track,
            sample_ns=sample_ns,
            watched_ns=self.watched_ns,
            step_ns=sample.step_ns,
            grace_ns=rules.grace_ns,
        )
        breaks, holds, broken, views = self._verdict(sample)
        changed = self.episodes.step(
            broken, holds, sample_ns=sample_ns, watched_ns=self.watched_ns, exit_ns=rules.exit_ns
        )
        due = self._transitions(changed, breaks, views, sample_ns)
        if broken.any():
            self._count_subjects(breaks)
        due += [(place, "updated") for place in self.episodes.overdue(sample_ns) if place not in dict(due)]
        if not due:
            return []
        boxes = Boxes(clip.rows[sample.part], sample.track, self.labels)
        return [
            self._tell(
                place, stage, sample.epoch, sample_ns, self._evidence(place, stage, breaks, broken, views, boxes)
            )
            for place, stage in sorted(due)
        ]

    def _verdict(self, sample: _Sample) -> tuple[Flags, Flags, Flags, list[View]]:
        """(tracks, places) who breaks, (places,) what holds, (places,) what is broken, and each kind's view."""
        presence, sure = self.presence, self.tracks.facts[:, HITS] >= self.rules.tracker.min_hits
        seen = np.zeros(len(sure) + 1, np.bool_)
        seen[sample.track] = True
        boxes = self.tracks.motion[:, SEEN_BOX]
        breaks = np.zeros(presence.inside.shape, np.bool_)
        holds = np.zeros(presence.inside.shape[1], np.bool_)
        broken = np.zeros_like(holds)
        views = []
        for (part, kind), memory in zip(self.rules.kinds, self.memories, strict=True):
            view = View(
                sample.sample_ns,
                self.watched_ns,
                sample.step_ns,
                sample.torn,
                sample.aspect,
                sure,
                seen[:-1],
                boxes,
                self.tracks.facts[:, LABEL],
                self.labels,
                presence.inside[:, part],
                presence.dwell_ns[:, part],
                presence.first_in_ns[:, part],
                memory,
            )
            verdict = kind.judge(view)
            breaks[:, part], holds[part] = verdict.breaks, verdict.holds
            if verdict.broken is not None:
                broken[part] = verdict.broken
            views.append(view)
        if self.rules.arming.quiet:
            breaks &= self.rules.arming.armed
            holds &= self.rules.arming.armed
            broken &= self.rules.arming.armed
        broken |= any_row(breaks)
        return breaks, holds, broken, views

    def _transitions(
        self, changed: list[tuple[int, Phase]], breaks: Flags, views: list[View], sample_ns: int
    ) -> list[tuple[int, Stage]]:
        """Carry out changes of phase; return the messages that are due."""
        due: list[tuple[int, Stage]] = []
        for place, left in changed:
            phase = self.episodes.rows["phase"][place]
            if phase == Phase.ACTIVE and left != Phase.CLEARING:
                started_ns = self._reason(place, breaks[:, place], views)[0]
                stage = self.episodes.begin(place, started_ns, sample_ns, int(self.rules.cooldown_ns[place]))
                if stage == "started":
                    self.presence.subject[:, place] = False
                due.append((place, stage))
            elif phase == Phase.ENDED:
                self.episodes.end(place)
                due.append((place, "ended"))
        return due

    def _reason(self, place: int, subjects: Flags, views: list[View]) -> tuple[int, dict[str, float]]:
        for (part, kind), view in zip(self.rules.kinds, views, strict=True):
            if part.start <= place < part.stop:
                reason = kind.reason(view, place - part.start, subjects)
                return reason.started_ns, reason.values
        raise IndexError(f"place {place} belongs to no kind")

    def _count_subjects(self, breaks: Flags) -> None:
        fresh = breaks & ~self.presence.subject
        if fresh.any():
            self.episodes.rows["subjects"] += fresh.sum(axis=0)
            self.presence.subject |= fresh

    def _evidence(
        self, place: int, stage: Stage, breaks: Flags, broken: Flags, views: list[View], boxes: Boxes
    ) -> Shown:
        if stage == "ended":
            return NOTHING
        subjects = breaks[:, place]
        values = self._reason(place, subjects, views)[1] if broken[place] else {}
        return Shown(boxes.show(self.tracks, subjects), values)

    def _tell(self, place: int, stage: Stage, epoch: int, sample_ns: int, shown: Shown) -> AlarmMessage:
        """The message about an episode as it stands now."""
        rows = self.episodes.rows
        rows["subjects_told"][place] = rows["subjects"][place]
        rows["told_ns"][place] = sample_ns
        about = self.rules.places[place]
        return self.author.write(about, rows[place], stage, epoch=epoch, sample_ns=sample_ns, shown=shown)


class _Sample:
    """One sample of a clip, its boxes matched with tracks."""

    __slots__ = ("aspect", "epoch", "part", "sample_ns", "seen", "step_ns", "torn", "track")

    def __init__(
        self,
        header: DetectionsHeader,
        number: int,
        part: slice,
        track: Indices,
        seen: Sighting,
        step_ns: int,
        torn: bool,
    ) -> None:
        self.epoch = header.epoch
        self.sample_ns = header.sample_ns[number]
        self.aspect = header.sample_width / header.sample_height
        self.part = part
        self.track = track
        self.seen = seen
        self.step_ns = step_ns
        self.torn = torn


def gap_ns(sample_fps: float) -> int:
    """The longest pause between samples that is none, nanoseconds."""
    return round(max(GAP_S, GAP_PERIODS / sample_fps) * NS_PER_S)
