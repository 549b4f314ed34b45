"""Tries the pool's disks: brings back those that were set aside, sets aside those that fail, and tells which are slow.

A probe writes a small file, syncs it, gives it another name and removes it, in a thread of the disk; so a disk that
hangs costs the keeper a moment, and no clip is risked to find out whether a disk works again.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from nodeagent.capture.disk_writer import STALL_S, DiskStalled, Hands, Job
from nodeagent.contract.errors import StorageUnavailable
from nodeagent.infra.clock import Clock
from nodeagent.infra.disk_notes import Aside, DiskNotes
from nodeagent.infra.disks import opened_disk
from nodeagent.infra.files import sync_file

log = logging.getLogger(__name__)

#: Size of a probe, bytes: a small fragment of a clip.
PROBE_BYTES = 1 << 16
#: How often a disk that works, and one that was set aside, is tried, seconds.
WELL_S, ASIDE_S = 60.0, 10.0
#: Weight of the newest measurement in the mean.
NEWEST = 0.3
_NAME = ".nodeagent-probe"
_PART = f"{_NAME}.part"


def probe(disk: Path, clock: Clock) -> float:
    """Write to the disk as a clip is written; returns how long that took, seconds.

    Raises:
        StorageMissing: no marker, so nothing was written.
        OSError: the disk refused.
    """
    began_s = clock.monotonic_s()
    with opened_disk(disk) as root:
        try:
            fd = os.open(_PART, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=root)
            try:
                os.write(fd, b"\0" * PROBE_BYTES)
                sync_file(fd)
            finally:
                os.close(fd)
            os.replace(_PART, _NAME, src_dir_fd=root, dst_dir_fd=root)
            sync_file(root)
            return clock.monotonic_s() - began_s
        finally:
            for left in (_PART, _NAME):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(left, dir_fd=root)


@dataclass(slots=True)
class _Try:
    job: Job[float]
    asked_ns: int
    next_s: float
    taken: bool = False


class Probes:
    """The keeper's view of the disks' health."""

    def __init__(self, notes: DiskNotes, clock: Clock) -> None:
        self._notes = notes
        self._clock = clock
        self._hands = Hands(clock)
        self._tries: dict[Path, _Try] = {}
        self._took_s, self._room = notes.measured(), notes.room()

    def step(self, disks: list[Path]) -> dict[Path, Aside]:
        """Take in what the probes found, and begin those that are due; returns the disks that are set aside."""
        aside = self._notes.aside(self._clock.wall_ns())
        for disk in disks:
            self._take_in(disk, aside.get(disk))
            self._begin(disk, disk in aside)
        for known in (self._took_s, self._room):
            for gone in known.keys() - set(disks):
                del known[gone]
        return {disk: note for disk, note in self._notes.aside(self._clock.wall_ns()).items() if disk in disks}

    def _begin(self, disk: Path, aside: bool) -> None:
        now_s = self._clock.monotonic_s()
        known = self._tries.get(disk)
        if known is not None and aside:
            # A capture may have set it aside since.
            known.next_s = min(known.next_s, known.job.asked_s + ASIDE_S)
        if known is None or (known.next_s <= now_s and not self._hands.of(disk).waits_s):
            job = self._hands.of(disk).ask(lambda: probe(disk, self._clock))
            self._tries[disk] = _Try(job, self._clock.wall_ns(), now_s + (ASIDE_S if aside else WELL_S))

    def _take_in(self, disk: Path, aside: Aside | None) -> None:
        known = self._tries.get(disk)
        if known is None or known.taken:
            return
        try:
            took_s = known.job.result(0)
        except DiskStalled:
            if self._clock.monotonic_s() - known.job.asked_s >= STALL_S:
                self._keep_aside(disk, f"no answer for more than {STALL_S:.0f} s", aside is not None)
            return
        except StorageUnavailable:
            # Missing: told as that.
            known.taken, known.next_s = True, min(known.next_s, self._clock.monotonic_s() + ASIDE_S)
            return
        except OSError as exc:
            self._keep_aside(disk, f"refused: {exc.strerror}", aside is not None)
            known.taken, known.next_s = True, min(known.next_s, self._clock.monotonic_s() + ASIDE_S)
            return
        known.taken = True
        # What worked before the disk was set aside says nothing of now.
        if aside is not None and known.asked_ns > aside.since_ns:
            self._notes.bring_back(disk)
            log.info("disk %s works again", disk, extra={"event": "disk_back", "disk": str(disk)})
        self._measure(disk, took_s)

    def _keep_aside(self, disk: Path, why: str, aside: bool) -> None:
        if not aside:
            log.warning("disk %s is set aside: %s", disk, why, extra={"event": "disk_aside", "disk": str(disk)})
        self._notes.set_aside(disk, why, self._clock.wall_ns())

    def has_room(self, room: dict[Path, float]) -> None:
        """Tell what part of each disk's quota is free, 0 to 1, when it is another one, to a tenth, than was told."""
        told = {disk: round(part, 1) for disk, part in room.items()}
        if told != self._room:
            self._room = told
            self._write()

    def _measure(self, disk: Path, took_s: float) -> None:
        before_s = self._took_s.get(disk, took_s)
        self._took_s[disk] = before_s + NEWEST * (took_s - before_s)
        self._write()

    def _write(self) -> None:
        try:
            self._notes.write_measured(self._took_s, self._room)
        except OSError as exc:
            log.debug("what was measured of disks not written: %s", exc.strerror, extra={"event": "speeds"})
