"""Puts clips of one camera back into their order, and says when one is missing.

Pure.  The broker promises no order.  Clips of an epoch carry numbers without holes, so a clip is due when its number
is the next one.  When a *later* clip is here and the next one is not, a wait starts; when it is over, the hole is a
gap.  The wait starts anew at each clip that comes in its order meanwhile: after an outage fresh clips overtake a
backlog that may take minutes, and a backlog that moves is not missing.  The wait runs on `served_s`, a clock that
stands still while the bus is away (`ServedClock`): what cannot arrive must not be declared missing.

Between two epochs there is no number that tells whether the older one is complete.  If its newest clip does not reach
the younger one's first sample, the younger one waits a little for what its predecessor may still send:
`HANDOVER_WAIT_S`, which starts anew at each clip of the predecessor.  What comes after that is late, for good.

A camera that just moved is bound to two nodes, and both look at its clips.  One of them may not reach the file, so a
clip of which nothing is known waits a little for the other one's word.

Clips that wait here are unsettled on the bus: they are no part of a snapshot, and come again after a kill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from nodeagent.contract.detections import ClipDetections, DetectionsHeader

#: How long a new epoch waits for clips of the one before, seconds: a spilled clip takes 8 s in its queue, 2 s of work.
#: However long ago that one ended: its clips may have waited for the broker all the while.
HANDOVER_WAIT_S: Final = 10.0
#: How long a clip of which nothing is known waits for a copy of which something is, seconds: another node's inference
#: takes less for a short backlog.
UNKNOWN_WAIT_S: Final = 5.0

Token = TypeVar("Token")


class ServedClock:
    """Seconds during which the bus was there."""

    def __init__(self) -> None:
        self.served_s = 0.0
        self._last_s: float | None = None

    def tick(self, now_s: float, connected: bool) -> float:
        """Advance to monotonic time `now_s`; `connected`: whether the bus answers now."""
        if self._last_s is not None and connected:
            self.served_s += now_s - self._last_s
        self._last_s = now_s if connected else None
        return self.served_s


@dataclass(slots=True)
class Held(Generic[Token]):
    """A clip that waits, with the deliveries that brought it."""

    clip: ClipDetections
    tokens: list[Token]
    since_s: float


@dataclass(frozen=True, slots=True)
class Ready(Generic[Token]):
    """A clip whose turn it is.

    Attributes:
        missing: numbers before it that are declared missing, first and last; None: none.
    """

    clip: ClipDetections
    tokens: tuple[Token, ...]
    missing: tuple[int, int] | None = None


@dataclass(slots=True)
class Progress:
    """What the judge remembers of an epoch; part of the snapshot.

    Attributes:
        started_ns: capture time of the epoch's first sample.
        next_seq: number of the clip that is due; None: not known, because no state survived.
        end_ns: capture time at which the newest judged clip ended; 0: none was.
    """

    started_ns: int
    next_seq: int | None = 0
    end_ns: int = 0


@dataclass(slots=True)
class Reorder(Generic[Token]):
    """The waiting clips of one camera, by epoch, then by number and start: the number alone is no identity.

    `moved_s` is when the newest arrival among the clips released so far came.  That, and not the time of their release:
    several holes in what is here already must not cost a wait each.
    """

    wait_s: float
    held: dict[int, dict[tuple[int, int], Held[Token]]] = field(default_factory=dict)
    moved_s: float = 0.0

    def __len__(self) -> int:
        return sum(len(clips) for clips in self.held.values())

    def add(self, clip: ClipDetections, token: Token, served_s: float) -> None:
        """Take a clip that was not judged yet.  One that is here already only adds its delivery."""
        clips = self.held.setdefault(clip.header.epoch, {})
        key = (clip.header.clip_seq, clip.header.start_ns)
        if key in clips:
            held = clips[key]
            held.tokens.append(token)
            if held.clip.header.outcome == "unknown":
                held.clip = clip
        else:
            clips[key] = Held(clip, [token], served_s)

    def sift(self, keep: Callable[[DetectionsHeader], bool]) -> list[Ready[Token]]:
        """Take out what is not to be kept: a clip that will be refused anyway must hold up no other one."""
        taken = []
        for clips in self.held.values():
            for key in [key for key, held in clips.items() if not keep(held.clip.header)]:
                held = clips.pop(key)
                taken.append(Ready(held.clip, tuple(held.tokens)))
        return taken

    def ready(self, epochs: dict[int, Progress], served_s: float) -> Iterator[Ready[Token]]:
        """Yield clips whose turn it is, oldest epoch first.

        The caller judges each one, which moves `epochs` on, before it asks for the next.
        """
        while self.held:
            epoch = min(self.held)
            if not self.held[epoch]:
                del self.held[epoch]
                continue
            ready = self._next_of(epoch, epochs, served_s)
            if ready is None:
                return
            yield ready

    def _next_of(self, epoch: int, epochs: dict[int, Progress], served_s: float) -> Ready[Token] | None:
        clips, progress = self.held[epoch], epochs.get(epoch)
        key = min(clips)
        seq = key[0]
        if progress is None:
            # An epoch that is over and forgotten: nothing to wait for; the caller refuses the clip.
            return self._release(clips, key)
        if not progress.end_ns and self._predecessor_may_send(epoch, epochs, served_s):
            return None
        first = clips[key]
        if first.clip.header.outcome == "unknown" and served_s - first.since_s < min(UNKNOWN_WAIT_S, self.wait_s):
            return None
        due = progress.next_seq
        missing = None
        if due is None or seq > due:
            # The oldest of the later clips started the wait, or the last one that came in its order.
            since_s = max(self.moved_s, min(held.since_s for held in clips.values()))
            if seq > 0 and served_s - since_s < self.wait_s:
                return None
            missing = (due, seq - 1) if due is not None else None
        return self._release(clips, key, missing)

    def _release(
        self, clips: dict[tuple[int, int], Held[Token]], key: tuple[int, int], missing: tuple[int, int] | None = None
    ) -> Ready[Token]:
        held = clips.pop(key)
        self.moved_s = max(self.moved_s, held.since_s)
        return Ready(held.clip, tuple(held.tokens), missing)

    def _predecessor_may_send(self, epoch: int, epochs: dict[int, Progress], served_s: float) -> bool:
        # Of an epoch that is known and was never judged nothing was accepted, and nothing is waited for.
        ends = [known.end_ns for number, known in epochs.items() if number < epoch and known.end_ns]
        if not ends:
            return False
        clips = self.held[epoch]
        # A node that was granted its camera anew begins a clip where the last one ended, and a sample a little later.
        if max(ends) >= epochs[epoch].started_ns or max(ends) == min(clips)[1]:
            return False
        since_s = max(self.moved_s, min(held.since_s for held in clips.values()))
        return served_s - since_s < min(HANDOVER_WAIT_S, self.wait_s)

    def tokens(self) -> Iterator[Token]:
        """The deliveries of everything that waits."""
        for clips in self.held.values():
            for held in clips.values():
                yield from held.tokens
