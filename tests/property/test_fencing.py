"""Owners of one camera come, go and go on though they should not: whose samples the judge accepts.

The owners capture in clips of their own, by clocks that differ.  Messages come late, twice and in any order, to a judge
that is killed and moved.  The judge is the real one; what is expected of it is worked out from the owners' samples.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.detections import DETECTION_DTYPE, ClipDetections
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.evidence import Author
from nodeagent.judge.reorder import HANDOVER_WAIT_S, UNKNOWN_WAIT_S
from nodeagent.judge.shard import Batch, Shard
from nodeagent.judge.snapshot import pack, unpack
from tests.support.scenarios import T0_NS, S, changed, clip_of, unknown

AUTHOR = Author("node", "cam", 15.0, 15.0)
SPEC = CameraSpec.model_validate({"camera_id": "cam", "record": {"url": "a.mp4"}})
REORDER_WAIT_S = 25.0
#: Seconds between two samples, the shortest clip, how long an owner goes on when another one has its first picture, and
#: how late a message may be so that nothing of that is lost: together no more than the wait for a predecessor.
STEP_S, CLIP_MIN_S, OVERLAP_S, LATE_S = 0.5, 1.0, 2.0, 8.0
assert OVERLAP_S + LATE_S < CLIP_MIN_S + HANDOVER_WAIT_S

SLOW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
#: Seeds; to draw each delay would take longer than to judge.
_chances = st.randoms(use_true_random=True)


@dataclass(frozen=True)
class Reign:
    """One owner's time, seconds.

    Attributes:
        began_s: when its first picture comes.
        ended_s: when it stops.
        skew_s: how far its node's clock is ahead.
        first_s: from a clip's first picture to its first sample.
        cuts: lengths of its clips, over and over.
        pictures: whether it gets any.
    """

    epoch: int
    began_s: float
    ended_s: float
    skew_s: float
    first_s: float
    cuts: tuple[float, ...]
    pictures: bool

    def clips(self) -> list[ClipDetections]:
        """What it announces, in order."""
        found: list[ClipDetections] = []
        start_s, shift_ns = self.began_s, T0_NS + round((100.0 + self.skew_s) * S)
        started_ns = shift_ns + round((start_s + self.first_s) * S)
        while self.pictures and start_s + self.first_s < self.ended_s:
            end_s = min(self.ended_s, start_s + self.cuts[len(found) % len(self.cuts)])
            times = np.arange(start_s + self.first_s, end_s, STEP_S).tolist() or [start_s + self.first_s]
            part = [(shift_ns + round(when * S), np.empty(0, DETECTION_DTYPE)) for when in times]
            clip = clip_of(part, len(found), round((end_s - start_s) * S), epoch=self.epoch, began=started_ns)
            found.append(changed(clip, start_ns=shift_ns + round(start_s * S)))
            start_s = end_s
        return found


@st.composite
def histories(draw: st.DrawFn, *, stale: bool) -> list[Reign]:
    """Reigns in a row; `stale`: owners may go on for long, beside several that come after them."""
    skews = draw(st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3))
    reigns: list[Reign] = []
    began_s, epoch = 0.0, 0
    for _ in range(draw(st.integers(1, 5))):
        epoch += draw(st.integers(1, 1000))
        next_s = began_s + draw(st.floats(4.0, 20.0))
        over_s = draw(st.floats(-3.0, OVERLAP_S))
        if stale and draw(st.booleans()):
            over_s = draw(st.floats(0.0, 60.0))
        reigns.append(
            Reign(
                epoch=epoch,
                began_s=began_s,
                ended_s=next_s + over_s,
                skew_s=draw(st.sampled_from(skews)),
                first_s=draw(st.sampled_from([0.0, 0.2, 0.4])),
                cuts=tuple(draw(st.lists(st.floats(CLIP_MIN_S, 6.0), min_size=1, max_size=4))),
                pictures=not reigns or draw(st.integers(0, 3)) > 0,
            )
        )
        began_s = next_s
    return reigns


@dataclass(frozen=True)
class Message:
    """A delivery: when it comes, seconds, and what it brings."""

    at_s: float
    clip: ClipDetections


def messages(chance: random.Random, reigns: Sequence[Reign], late_s: float) -> list[Message]:
    """Everything that is announced, each once or twice, in the order in which it comes."""
    found: list[Message] = []
    for reign in reigns:
        for clip in reign.clips():
            closed_s = (clip.header.end_ns - T0_NS) / S - reign.skew_s
            # Before anything was judged there is no owner before this one to wait for.
            delay_s = chance.choice([0.0, chance.uniform(0.0, late_s), late_s]) if found else 0.0
            found.append(Message(closed_s + delay_s, clip))
            if chance.random() < 0.1:
                # Another node could not look at it, and said so first.
                sooner_s = chance.uniform(0.0, 0.9 * UNKNOWN_WAIT_S)
                found.append(Message(max(closed_s, found[-1].at_s - sooner_s), unknown(clip)))
            elif chance.random() < 0.2:
                found.append(Message(found[-1].at_s + chance.uniform(0.0, 40.0), clip))
    return sorted(found, key=lambda message: message.at_s)


@dataclass
class Judges:
    """The camera's judge in one life after the other; the store is what outlives them.

    Attributes:
        accepted: epoch and capture time of every sample judged, in order, with the number of deliveries until then.
        judged: identities of the clips judged, in order.
    """

    store: bytes | None = None
    saved: int = 0
    delivered: list[ClipDetections] = field(default_factory=list)
    unsettled: dict[int, ClipDetections] = field(default_factory=dict)
    accepted: list[tuple[int, int, int]] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)
    #: What a life judged and did not store; void if it is killed.
    open: tuple[list[tuple[int, int, int]], list[str]] = field(default_factory=lambda: ([], []))

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Another life, here or on another node: what was not settled is delivered again."""
        self.open = ([], [])
        self.shard: Shard[int] = Shard(self._load, REORDER_WAIT_S)
        self.shard.want([SPEC])

    def _load(self, spec: CameraSpec) -> CameraJudge:
        judge = CameraJudge(AUTHOR, (), spec.sample_fps) if self.store is None else unpack(self.store, AUTHOR, 5.0)
        whole, samples = judge.judge, judge._samples

        def watched(clip: ClipDetections, missing: tuple[int, int] | None = None) -> list:
            header = clip.header
            self.open[1].append(f"{header.epoch}/{header.start_ns}")
            return whole(clip, missing)

        def seen(clip: ClipDetections, first: int, last: int) -> list:
            header = clip.header
            self.open[0].extend((header.epoch, when, len(self.delivered)) for when in header.sample_ns[first:last])
            return samples(clip, first, last)

        judge.judge, judge._samples = watched, seen  # type: ignore[method-assign]
        return judge

    def take(self, message: Message) -> None:
        """One more delivery."""
        token = len(self.delivered)
        self.delivered.append(message.clip)
        self.unsettled[token] = message.clip
        self.step(message.at_s, [token])

    def step(self, at_s: float, tokens: Sequence[int] = (), *, killed: str = "") -> None:
        """A round of the worker; `killed` before it stores (`judging`) or before it settles (`storing`)."""
        batch: Batch[int] = Batch()
        for token in tokens:
            self.shard.take(self.unsettled[token], token, at_s, batch)
        self.shard.judge_due(at_s, batch)
        if killed != "judging":
            for judge in batch.judges.values():
                self.saved += 1
                self.store = pack(judge, self.saved)
                self.accepted += self.open[0]
                self.judged += self.open[1]
            self.open = ([], [])
            if killed != "storing":
                for token in batch.settled:
                    del self.unsettled[token]
        if killed:
            self.start()
            self.step(at_s, sorted(self.unsettled))


def run(chance: random.Random, coming: Sequence[Message]) -> Judges:
    """Deliver everything, with kills in between, and wait until nothing waits any more."""
    judges = Judges()
    for message in coming:
        judges.take(message)
        if chance.random() < 0.1:
            judges.step(message.at_s, killed=chance.choice(["judging", "storing"]))
    end_s = coming[-1].at_s
    for turn in range(1, 100):
        judges.step(end_s + turn * REORDER_WAIT_S)
        if not judges.unsettled:
            break
    return judges


def fence_ns(epoch: int, clips: Sequence[ClipDetections]) -> int:
    """Where the samples of an epoch end by what these clips tell of later ones."""
    return min((c.header.epoch_started_ns for c in clips if c.header.epoch > epoch), default=2**63)


def check_safety(judges: Judges) -> None:
    """What holds whatever happens."""
    assert not judges.unsettled
    times = [when for _, when, _ in judges.accepted]
    assert times == sorted(set(times)), "time went back, or an instant was accepted twice"
    assert len(judges.judged) == len(set(judges.judged))
    for epoch, when, delivered in judges.accepted:
        assert when < fence_ns(epoch, judges.delivered[:delivered]), "a stale owner's sample was accepted"


def names(clips: Iterable[ClipDetections]) -> set[str]:
    """Identities, as `Judges.judged` has them."""
    return {f"{clip.header.epoch}/{clip.header.start_ns}" for clip in clips}


@SLOW
@given(histories(stale=True), _chances, st.sampled_from([LATE_S, 70.0]))
def test_stale_owners_are_never_judged_beside_the_new_one(
    reigns: list[Reign], chance: random.Random, late_s: float
) -> None:
    judges = run(chance, messages(chance, reigns, late_s))
    check_safety(judges)
    last = next(reign for reign in reversed(reigns) if reign.pictures)
    if late_s == LATE_S:
        assert names(last.clips()) <= set(judges.judged), "whoever goes on beside it keeps the owner from being judged"


@SLOW
@given(histories(stale=False), _chances)
def test_without_stale_owners_every_clip_is_judged_once_and_nothing_of_a_sole_owner_is_refused(
    reigns: list[Reign], chance: random.Random
) -> None:
    judges = run(chance, messages(chance, reigns, LATE_S))
    check_safety(judges)
    clips = [clip for reign in reigns for clip in reign.clips()]
    accepted = {(epoch, when) for epoch, when, _ in judges.accepted}
    for clip in clips:
        epoch, times = clip.header.epoch, clip.header.sample_ns
        until_ns = fence_ns(epoch, clips)
        before_ns = max((c.header.sample_ns[-1] for c in clips if c.header.epoch < epoch), default=0)
        assert {(epoch, when) for when in times if before_ns < when < until_ns} <= accepted
        # Of a clip that begins where the next owner's first sample is, both nodes have every picture.
        assert times[0] >= until_ns or names([clip]) <= set(judges.judged)
