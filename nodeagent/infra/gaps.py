"""The gap ledger: what was not recorded, and why.  One file per camera and UTC day, appended to and never changed.

Lines are `{"v": 1, "from_ns": ..., "to_ns": ..., "reason": ..., "detail": ...}`.  A gap that lasts is written in parts,
so the ledger is at most `capture.ledger.PIECE_NS` behind.  Written by capture, read by the CLI.
"""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from pydantic import Field, ValidationError

from nodeagent.contract.ids import NS_PER_MS, NS_PER_S, Frozen, UtcNs
from nodeagent.infra.files import sync_file, write_atomically

#: Shorter holes between two clips are the spacing of frames, not gaps, ns.
LEAST_GAP_NS = 100 * NS_PER_MS
#: File beside a camera's days: when its recording was first begun, UTC ns.
_BEGAN = "began"


class GapReason(StrEnum):
    """Why seconds of a camera were not recorded."""

    #: Between the first start of recording and the first frame.
    START = "start"
    #: The capture process was not running (stopped, killed, restarted), or opened its source anew after that.
    RESTART = "restart"
    #: A clip that was being written at a kill held nothing that could be read.
    LOST_TAIL = "lost_tail"
    #: The source did not answer, or closed the connection.
    SOURCE_DOWN = "source_down"
    #: The source sent nothing any more.
    STALLED = "stalled"
    #: The source refused user or password.
    AUTH_FAILED = "auth_failed"
    #: The source carries no video.
    NO_VIDEO = "no_video"
    #: The source's packets cannot be put into a clip.
    BAD_STREAM = "bad_stream"
    #: The file was at its end.
    SOURCE_ENDED = "source_ended"
    #: No disk of the pool had room, or every one refused to be written.
    STORAGE_FULL = "storage_full"
    #: No disk of the pool had its marker.
    STORAGE_MISSING = "storage_missing"
    #: The stream's time line stepped: the wall clock was set, or the source left out frames.
    TIME_JUMP = "time_jump"


class Gap(Frozen):
    """One stretch of time that was not recorded."""

    from_ns: UtcNs
    to_ns: UtcNs
    reason: GapReason
    detail: str = Field(default="", max_length=300)

    @property
    def duration_ns(self) -> int:
        """Its length."""
        return self.to_ns - self.from_ns


def _folder(state_dir: Path, camera_id: str) -> Path:
    return state_dir / "gaps" / camera_id


def _day(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // NS_PER_S, UTC).strftime("%Y-%m-%d")


def append_gap(state_dir: Path, camera_id: str, gap: Gap) -> None:
    """Write a gap durably, into the file of the day on which it begins.

    A line that a power cut left half written is closed first, so that it spoils no other.

    Raises:
        OSError: the state folder cannot be written.
    """
    folder = _folder(state_dir, camera_id)
    folder.mkdir(parents=True, exist_ok=True)
    line = f'{{"v":1,{gap.model_dump_json()[1:]}\n'.encode()
    fd = os.open(folder / f"{_day(gap.from_ns)}.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line
        # A full disk takes a part of it first, and refuses with the next write.
        while line:
            line = line[os.write(fd, line) :]
        sync_file(fd)
    finally:
        os.close(fd)


def _read(path: Path) -> list[Gap]:
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(Gap.model_validate_json(line))
        except ValidationError:
            # Half a line from a power cut; its time is found again as the gap after a restart.
            continue
    return found


def _files(state_dir: Path, camera_id: str) -> list[Path]:
    return sorted(_folder(state_dir, camera_id).glob("????-??-??.jsonl"))


def read_gaps(state_dir: Path, camera_id: str, from_ns: int, to_ns: int) -> list[Gap]:
    """Gaps of a camera that overlap `[from_ns, to_ns)`, ordered by start."""
    first, last = _day(max(0, from_ns)), _day(max(0, to_ns))
    files = [path for path in _files(state_dir, camera_id) if path.stem <= last]
    # A gap stands in the file of the day of its start.  That may be long ago, when the agent was stopped meanwhile; but
    # gaps follow each other, so no older file than the newest before has one that reaches this far.
    before = [path for path in files if path.stem < first][-1:]
    gaps = [gap for path in before + [path for path in files if path.stem >= first] for gap in _read(path)]
    return sorted((gap for gap in gaps if gap.from_ns < to_ns and gap.to_ns > from_ns), key=lambda gap: gap.from_ns)


def began(state_dir: Path, camera_id: str, now_ns: int) -> int:
    """When recording of the camera was first begun here, UTC ns: now, unless an earlier start left word of it.

    Before the first clip nothing else knows: a capture that is killed again and again would begin anew each time.
    """
    path = _folder(state_dir, camera_id) / _BEGAN
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_bytes())
    # Without word of it only a kill before the first clip or gap goes unaccounted.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, str(now_ns).encode())
    return now_ns


def first_gap_start(state_dir: Path, camera_id: str) -> int | None:
    """Start of the earliest gap in the ledger; None when it is empty."""
    for path in _files(state_dir, camera_id):
        gaps = _read(path)
        if gaps:
            return min(gap.from_ns for gap in gaps)
    return None


def last_gap_end(state_dir: Path, camera_id: str) -> int | None:
    """End of the latest gap in the ledger; None when it is empty."""
    for path in reversed(_files(state_dir, camera_id)):
        gaps = _read(path)
        if gaps:
            return max(gap.to_ns for gap in gaps)
    return None
