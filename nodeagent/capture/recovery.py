"""Makes clips of the files that a killed predecessor, or a disk that refused, left unfinished.

The file is cut to its last whole fragment in place; its samples are chosen by the same rule that chose them live, so a
repaired clip differs from an ordinary one only in that its samples are not in the ring.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from nodeagent.capture.closing import Closer, finish_renames
from nodeagent.capture.fragments import truncate_to, wholeness
from nodeagent.capture.journal import Closed, Journal
from nodeagent.capture.ledger import Ledger
from nodeagent.capture.sampler import Sampler
from nodeagent.contract.clip import ClipId, ClipTask, parse_clip_name
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


@dataclass(frozen=True, slots=True)
class Before:
    """What came before the file.

    Attributes:
        clip_seq: number that the repaired clip gets.
        epoch_started_ns: capture time of the epoch's first sample; none when this clip has it.
        last_frame_ns: the frame before its first, if known.
    """

    clip_seq: int
    epoch_started_ns: int | None
    last_frame_ns: int | None


def repair(path: Path, clip: ClipId, plan: Plan, before: Before, closed_ns: int) -> Closed | None:
    """Cut the file to what is whole and say what it holds; None when nothing in it can be read.

    Killed at any instant: the file stays a part, and doing it again gives the same.

    Raises:
        OSError: the disk refused.
    """
    length = wholeness(path).length
    if not length:
        return None
    if length < path.stat().st_size:
        truncate_to(path, length)
    try:
        times, (width, height) = _frame_times(path, clip)
    except BadMedia as exc:
        log.warning("clip %s cannot be repaired: %s", clip, exc, extra={"event": "repair_failed"})
        return None
    if not times:
        return None
    sampler = Sampler(plan.sample_fps, before.last_frame_ns)
    samples = tuple(time_ns for time_ns in times if sampler.take(time_ns))
    out_width, out_height = sample_size(width, height, plan.sample_width)
    step_ns = (times[-1] - times[0]) // (len(times) - 1) if len(times) > 1 else 0
    task = ClipTask(
        node_id=plan.node_id,
        camera_id=clip.camera_id,
        epoch=clip.epoch,
        epoch_started_ns=before.epoch_started_ns if before.epoch_started_ns is not None else times[0],
        clip_seq=before.clip_seq,
        start_ns=clip.start_ns,
        duration_ns=times[-1] + step_ns - clip.start_ns,
        sample_ns=samples,
        sample_width=out_width,
        sample_height=out_height,
        closed_ns=closed_ns,
    )
    return Closed(task, path.parent, times[-1])


def before_of(clip: ClipId, closer: Closer) -> Before:
    """What is known of the time before a file that has no record."""
    last = closer.last
    return Before(
        clip_seq=closer.next_seq(clip.epoch),
        epoch_started_ns=closer.epoch_started_ns(clip.epoch),
        last_frame_ns=last.last_frame_ns if last is not None and last.last_frame_ns < clip.start_ns else None,
    )


def salvage(path: Path, clip: ClipId, plan: Plan, closer: Closer, closed_ns: int) -> Closed | None:
    """Make a clip of an unfinished file; None when that cannot be.  A file without a picture in it is removed."""
    try:
        closed = repair(path, clip, plan, before_of(clip, closer), closed_ns)
        if closed is None:
            path.unlink(missing_ok=True)
            return None
    except OSError as exc:
        log.warning("clip %s stays unfinished: %s", clip, exc.strerror, extra={"event": "repair_failed"})
        return None
    closer.close(closed)
    return closed


def recover(storage: Storage, plan: Plan, books: tuple[Closer, Ledger], camera_id: str, clock: Clock) -> int:
    """Finish all that a killed predecessor of this camera left; returns how many clips were repaired."""
    closer, ledger = books
    finish_renames(closer.journal)
    repaired = 0
    for clip, path in storage.parts(camera_id):
        try:
            changed_ns = path.stat().st_mtime_ns
        except OSError:
            continue
        closed = salvage(path, clip, plan, closer, clock.wall_ns())
        if closed is not None:
            repaired += 1
            # What lies before a clip is written when its first second is on the disk: it may be killed before that.
            ledger.reach(clip.start_ns)
            ledger.end(closed.task.end_ns)
            log.info("clip %s: repaired, %.1f s", clip, closed.task.duration_ns / NS_PER_S, extra={"event": "repaired"})
        elif not os.path.lexists(path) and changed_ns > max(clip.start_ns, ledger.accounted_ns):
            ledger.reach(clip.start_ns)
            from_ns = max(clip.start_ns, ledger.accounted_ns)
            ledger.write(from_ns, changed_ns, GapReason.LOST_TAIL, "the clip being written held no whole fragment")
    return repaired


def epoch_for(storage: Storage, journal: Journal, camera_id: str, wall_ns: int) -> int:
    """The epoch to record with: the journal's, or a new one above every epoch that the pool knows."""
    if journal.epoch:
        return journal.epoch
    known = (
        parsed[0].epoch
        for folder in storage.hour_folders(camera_id)
        for name in _names(folder)
        if (parsed := parse_clip_name(name)) is not None
    )
    return max(wall_ns // NS_PER_MS, max(known, default=0) + 1)


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        # A sick disk costs its word only: epochs are instants of the wall clock, so a new one is later without it too.
        return []


def _frame_times(path: Path, clip: ClipId) -> tuple[list[int], tuple[int, int]]:
    with opened(path) as (container, stream):
        size = (stream.width, stream.height)
        times = packet_times(container, stream, clip.start_ns)
    if times and times[-1] - times[0] > DECODED_MOST_NS:
        return times, size
    with opened(path) as (container, stream):
        return [time_ns for time_ns, _ in frames(container, stream, clip.start_ns)], size
