"""Makes clips of the files that a killed predecessor, or a disk that refused, left unfinished.

The file is cut to its last whole fragment in place; its samples are chosen by the same rule that chose them live, so a
repaired clip differs from an ordinary one only in that its samples are not in the ring.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.capture.closing import Closer, finish_renames, give_unannounced_name
from nodeagent.capture.doubles import without_doubles
from nodeagent.capture.fragments import truncate_to, wholeness
from nodeagent.capture.journal import Closed, Journal
from nodeagent.capture.ledger import Ledger
from nodeagent.capture.sampler import Sampler
from nodeagent.contract.camera import SampleMode
from nodeagent.contract.clip import ClipId, ClipTask, StreamName
from nodeagent.contract.errors import BadMedia
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.infra.clock import Clock
from nodeagent.infra.gaps import GapReason
from nodeagent.infra.storage import Storage
from nodeagent.infra.video import frames, opened, packet_times, sample_size

log = logging.getLogger(__name__)

#: Longer clips are repaired by their packets alone, ns: decoding them might take longer than a beat, and a source
#: without key frames makes clips of any length.
DECODED_MOST_NS = 20 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Plan:
    """What the camera's configuration says about samples."""

    node_id: str
    sample_fps: float
    sample_width: int
    sample_mode: SampleMode = "frames"


@dataclass(frozen=True, slots=True)
class LeftPart:
    """A clip that was not finished.

    Attributes:
        path: its file.
        clip: its identity.
        stream: which of the camera's streams it is of.
        announced: whether it is analysed, so that it has to be announced.
    """

    path: Path
    clip: ClipId
    stream: StreamName
    announced: bool


@dataclass(frozen=True, slots=True)
class Whole:
    """What is whole of a file.

    Attributes:
        times: capture times of its frames, growing; not empty.
        keys: which of them are key frames.
        width, height: of its pictures, pixels.
    """

    times: list[int]
    keys: list[bool]
    width: int
    height: int

    @property
    def end_ns(self) -> int:
        """Capture time at which it ends, by the mean spacing of its frames."""
        count = len(self.times)
        return self.times[-1] + ((self.times[-1] - self.times[0]) // (count - 1) if count > 1 else 0)


def make_whole(left: LeftPart) -> Whole | None:
    """Cut the file to what is whole and say what it holds; None when nothing in it can be read.

    Killed at any instant: the file stays a part, and doing it again gives the same.

    Raises:
        OSError: the disk refused.
    """
    length = wholeness(left.path).length
    if not length:
        return None
    if length < left.path.stat().st_size:
        truncate_to(left.path, length)
    try:
        found = _frames_of(left)
    except BadMedia as exc:
        log.warning("clip %s cannot be repaired: %s", left.clip, exc, extra={"event": "repair_failed"})
        return None
    return found if found.times else None


def as_closed(left: LeftPart, whole: Whole, plan: Plan, closer: Closer, closed_ns: int) -> Closed:
    """The record of a repaired clip: numbered after the last one, its samples chosen as they were live."""
    clip, last = left.clip, closer.last
    sampler = Sampler(plan.sample_fps, last.last_frame_ns if last and last.last_frame_ns < clip.start_ns else None)
    every = plan.sample_mode == "frames"
    samples = tuple(t for t, key in zip(whole.times, whole.keys, strict=True) if (key or every) and sampler.take(t))
    width, height = sample_size(whole.width, whole.height, plan.sample_width)
    started_ns = closer.epoch_started_ns(clip.epoch)
    task = ClipTask(
        node_id=plan.node_id,
        camera_id=clip.camera_id,
        epoch=clip.epoch,
        epoch_started_ns=started_ns if started_ns is not None else whole.times[0],
        clip_seq=closer.next_seq(clip.epoch),
        start_ns=clip.start_ns,
        duration_ns=whole.end_ns - clip.start_ns,
        stream=left.stream,
        sample_ns=samples,
        sample_width=width,
        sample_height=height,
        closed_ns=closed_ns,
    )
    return Closed(task, left.path.parent, whole.times[-1])


def salvage(left: LeftPart, plan: Plan, closer: Closer, closed_ns: int) -> int | None:
    """Make a clip of an unfinished file; returns its end, None when that cannot be.

    A file without a picture in it is removed.
    """
    try:
        whole = make_whole(left)
        if whole is None:
            left.path.unlink(missing_ok=True)
            return None
    except OSError as exc:
        log.warning("clip %s stays unfinished: %s", left.clip, exc.strerror, extra={"event": "repair_failed"})
        return None
    if left.announced:
        closer.close(as_closed(left, whole, plan, closer, closed_ns))
    else:
        duration_ns = whole.end_ns - left.clip.start_ns
        closer.on_disk(left.path, left.clip, lambda: give_unannounced_name(left.path, left.clip, duration_ns))
    return whole.end_ns


def recover(storage: Storage, plan: Plan, books: tuple[Closer, Ledger], camera_id: str, clock: Clock) -> int:
    """Finish all that a killed predecessor of this camera left; returns how many clips were repaired.

    The sub-stream's come first: where they reach, the main stream was not analysed.  What lies on a disk that is set
    aside waits for the next start: a disk that hangs would hold this one up.
    """
    closer, ledger = books
    shunned = storage.shunned(clock.wall_ns())
    finish_renames(closer.journal, shunned)
    repaired = 0
    for clip, path in _left(storage, closer.journal, camera_id, "analyse", shunned):
        repaired += salvage(LeftPart(path, clip, "analyse", True), plan, closer, clock.wall_ns()) is not None
    for clip, path in _left(storage, closer.journal, camera_id, "record", shunned):
        try:
            changed_ns = path.stat().st_mtime_ns
        except OSError:
            continue
        announced = not _is_analysed(storage, clip, changed_ns)
        end_ns = salvage(LeftPart(path, clip, "record", announced), plan, closer, clock.wall_ns())
        if end_ns is not None:
            repaired += 1
            # What lies before a clip is written when its first second is on the disk: it may be killed before that.
            ledger.reach(clip.start_ns)
            ledger.end(end_ns)
            log.info(
                "clip %s: repaired, %.1f s", clip, (end_ns - clip.start_ns) / NS_PER_S, extra={"event": "repaired"}
            )
        elif not os.path.lexists(path) and changed_ns > max(clip.start_ns, ledger.accounted_ns):
            ledger.reach(clip.start_ns)
            from_ns = max(clip.start_ns, ledger.accounted_ns)
            ledger.write(from_ns, changed_ns, GapReason.LOST_TAIL, "the clip being written held no whole fragment")
    return repaired


def _left(
    storage: Storage, journal: Journal, camera_id: str, stream: StreamName, shunned: Sequence[Path]
) -> list[tuple[ClipId, Path]]:
    """Unfinished files of a stream, one for each clip, on disks that are not shunned."""
    parts = storage.parts(camera_id, stream)
    known = [part for part in parts if not any(part[1].is_relative_to(disk) for disk in shunned)]
    return without_doubles(storage, journal, known, stream)


def _is_analysed(storage: Storage, clip: ClipId, end_ns: int) -> bool:
    """Whether clips of the sub-stream cover at least half of this one of the main stream."""
    others = storage.clips(clip.camera_id, clip.start_ns, end_ns, stream="analyse")
    covered_ns = sum(min(end_ns, other.end_ns) - max(clip.start_ns, other.clip.start_ns) for other in others)
    return 0 < end_ns - clip.start_ns <= 2 * covered_ns


def last_recorded_ns(storage: Storage, journal: Journal, camera_id: str) -> int | None:
    """Where the recording of the main stream ends; None when there is none."""
    ends = [storage.newest_end(camera_id, "record")]
    if journal.last is not None and journal.last.task.stream == "record":
        ends.append(journal.last.task.end_ns)
    return max((end for end in ends if end is not None), default=None)


def epoch_for(storage: Storage, journal: Journal, camera_id: str, wall_ns: int, granted: int = 0) -> int:
    """The epoch to record with: the journal's, the granted one, or a new one above every epoch that the pool knows.

    It never goes back: what was recorded with a later epoch than the granted one is of this node too, and a judge
    would take what came after it for a stale owner's.

    Args:
        storage: the pool.
        journal: the camera's, after the recovery.
        camera_id: the camera.
        wall_ns: now.
        granted: by the registry; 0 where none decides.
    """
    if journal.epoch and journal.epoch >= granted:
        return journal.epoch
    newest = storage.newest_epoch(camera_id)
    # Without a journal the numbers of the epoch's clips are lost, so clips of it cannot be continued.
    if granted > newest or (granted == newest and journal.epoch):
        return granted
    return newest + 1 if granted else max(wall_ns // NS_PER_MS, newest + 1)


def _frames_of(left: LeftPart) -> Whole:
    """What the file holds, by decoding it where that matters.

    Raises:
        BadMedia: it cannot be read.
    """
    start_ns = left.clip.start_ns
    with opened(left.path) as (container, stream):
        size = (stream.width, stream.height)
        seen = packet_times(container, stream, start_ns)
    times, keys = [time_ns for time_ns, _ in seen], [key for _, key in seen]
    if left.announced and times and times[-1] - times[0] <= DECODED_MOST_NS:
        with opened(left.path) as (container, stream):
            decoded = [(time_ns, bool(frame.key_frame)) for time_ns, frame in frames(container, stream, start_ns)]
        times, keys = [time_ns for time_ns, _ in decoded], [key for _, key in decoded]
    return Whole(times, keys, *size)
