"""What of a camera was judged, what is missing, and what may still come: watermark, fence, gap decisions, counters.

Pure.  The ledger is part of the snapshot, which is replaced as a whole, so its counters are exact: a clip is in the
tracks, in the watermark and in `clips_judged`, or in none of them.

A sample of epoch e is accepted only if it is older than the beginning of every higher epoch that is known, and newer
than the newest sample judged.  So a previous owner's late clips are judged and a stale owner's are not; an owner that
never sent a picture fences nobody.

Clips are told apart from what was judged by epoch first and start second: two owners' clips overlap, so a clip of a
later owner that begins before the last one judged is new all the same, and its samples decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Final

from nodeagent.contract.detections import DetectionsHeader
from nodeagent.judge.reorder import Progress

#: Epochs that are remembered; the lowest are forgotten first.  What they may still send is behind the watermark.
EPOCHS_MAX: Final = 16
#: Ranges of missing clips that are remembered; a clip of a forgotten one counts as a duplicate when it comes.
GAPS_MAX: Final = 256


class Arrival(Enum):
    """What a clip is when it arrives."""

    #: To be judged when it is its turn.
    NEW = "new"
    #: Judged before.
    DUPLICATE = "duplicate"
    #: Never judged, but the time it tells of is over: it was declared missing, or a later owner's clips were judged.
    LATE = "late"
    #: Taken by an owner that had lost the camera already.
    FENCED = "fenced"


@dataclass(slots=True)
class Counters:
    """What was done with a camera's clips since its first; exact, see the module's docstring."""

    #: Clips judged, those with unknown outcome included.
    clips_judged: int = 0
    #: Samples judged.
    samples_judged: int = 0
    #: Deliveries of a clip beyond the one that was judged.
    duplicates: int = 0
    #: Clips declared missing.
    gaps: int = 0
    #: Clips that came after they were declared missing, or after a later owner's were judged.
    late: int = 0
    #: Clips of which at least one sample was refused by the fence.
    fenced: int = 0
    #: Clips judged whose samples nobody looked at.
    unknown: int = 0
    #: Alarm messages made.
    alarms: int = 0

    def items(self) -> Iterator[tuple[str, int]]:
        """Name and value of each."""
        return ((item.name, getattr(self, item.name)) for item in fields(self))


@dataclass(slots=True)
class Ledger:
    """The books of one camera.

    Attributes:
        epochs: every epoch known, by number.
        epoch: that of the newest clip judged; 0: none was.
        start_ns: capture time at which the newest clip judged starts.
        last_sample_ns: capture time of the newest sample judged; 0: none was.
        missing: ranges declared missing: epoch, first and last number.
        counters: see there.
    """

    epochs: dict[int, Progress] = field(default_factory=dict)
    epoch: int = 0
    start_ns: int = 0
    last_sample_ns: int = 0
    missing: list[tuple[int, int, int]] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)

    @property
    def watermark(self) -> tuple[int, int]:
        """What snapshots are ordered by: it never goes back."""
        return self.epoch, self.start_ns

    def fence_ns(self, epoch: int) -> int | None:
        """Capture time from which on samples of `epoch` are refused; None: never."""
        return min((known.started_ns for number, known in self.epochs.items() if number > epoch), default=None)

    def arrive(self, header: DetectionsHeader) -> Arrival:
        """Say what a clip is, and learn of its epoch."""
        if (header.epoch, header.start_ns) <= self.watermark:
            return self._behind(header)
        if header.epoch not in self.epochs:
            # Without any state left the first clip seen is taken for the first one due.
            first = None if not self.epoch else 0
            self.epochs[header.epoch] = Progress(header.epoch_started_ns, first)
            while len(self.epochs) > EPOCHS_MAX:
                del self.epochs[min(self.epochs)]
        fence_ns = self.fence_ns(header.epoch)
        is_over = fence_ns is not None and header.start_ns >= fence_ns
        return Arrival.NEW if header.epoch in self.epochs and not is_over else Arrival.FENCED

    def _behind(self, header: DetectionsHeader) -> Arrival:
        seq = header.clip_seq
        if any(epoch == header.epoch and first <= seq <= last for epoch, first, last in self.missing):
            return Arrival.LATE
        if header.epoch < self.epoch and header.start_ns >= (self.fence_ns(header.epoch) or header.start_ns + 1):
            return Arrival.FENCED
        progress = self.epochs.get(header.epoch)
        if progress is None or progress.next_seq is None or seq >= progress.next_seq:
            # Never judged, but another owner's samples of that time or later were.
            return Arrival.LATE
        return Arrival.DUPLICATE

    def count(self, arrival: Arrival) -> None:
        """Count a clip that is not judged."""
        match arrival:
            case Arrival.DUPLICATE:
                self.counters.duplicates += 1
            case Arrival.LATE:
                self.counters.late += 1
            case Arrival.FENCED:
                self.counters.fenced += 1
            case Arrival.NEW:
                raise ValueError("a new clip is judged")

    def declare_missing(self, epoch: int, missing: tuple[int, int]) -> None:
        """Write down that clips of these numbers, first and last, are not waited for any more."""
        self.missing = [*self.missing, (epoch, *missing)][-GAPS_MAX:]
        self.counters.gaps += missing[1] - missing[0] + 1

    def accepted(self, header: DetectionsHeader) -> tuple[int, int]:
        """Which samples of a clip may be judged: first and one past the last."""
        sample_ns = header.sample_ns
        fence_ns = self.fence_ns(header.epoch)
        first = sum(1 for when in sample_ns if when <= self.last_sample_ns)
        last = len(sample_ns) if fence_ns is None else sum(1 for when in sample_ns if when < fence_ns)
        if last < len(sample_ns):
            self.counters.fenced += 1
        return first, max(first, last)

    def judged(self, header: DetectionsHeader, samples: tuple[int, int]) -> None:
        """Move the watermark over a clip of which `samples`, as from `accepted`, were judged."""
        progress = self.epochs[header.epoch]
        progress.next_seq = max(progress.next_seq or 0, header.clip_seq + 1)
        progress.end_ns = max(progress.end_ns, header.end_ns)
        self.epoch, self.start_ns = max(self.epoch, header.epoch), header.start_ns
        first, last = samples
        if last > first:
            self.last_sample_ns = header.sample_ns[last - 1]
        self.counters.clips_judged += 1
        self.counters.samples_judged += last - first
        self.counters.unknown += header.outcome == "unknown"
