"""Cost of the ring against copying the same bytes: what its promises cost on top of moving the pixels.

Both ways copy the same source frames into the same memory, slot after slot: what differs is the ring's own code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np

from nodeagent.ring import RingReader, RingWriter
from tests.bench.harness import Result, compare, result

#: Default size of samples, and full HD, at which the aim stands.
SIZES = ((640, 360), (1920, 1080))
#: 75 slots are the default; 1080p takes fewer, to stay at a size that every machine has (about 100 MB).
SLOTS = {640: 75, 1920: 32}
AIM_WIDTH = 1920
SHM = Path("/dev/shm")


def run(quick: bool) -> Iterator[Result]:
    """Write, read by copy and read in place, at both sizes."""
    frames = 500 if quick else 4000
    with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None, prefix="nodeagent-bench-") as folder:
        for width, height in SIZES:
            yield from _size(Subject(Path(folder), width, height), frames)


class Subject:
    """One full ring, with the ways of moving one frame that are compared.

    The two ways are half a ring apart, so that neither finds its slot in a cache that the other has just filled.
    """

    def __init__(self, folder: Path, width: int, height: int) -> None:
        self.name = f"{width}x{height}"
        self.aim = ">= 0.95" if width == AIM_WIDTH else ""
        self.slots = SLOTS[width]
        self.writer = RingWriter.open(folder, f"bench-{width}", 1, width, height, self.slots)
        self.reader = RingReader.open(folder, f"bench-{width}", self.writer.generation)
        self.picture = np.random.default_rng(1).integers(0, 256, self.writer.geometry.shape, np.uint8)
        self.out = np.empty(self.writer.geometry.shape, np.uint8)
        for i in range(self.slots):
            self.writer.write(self.picture, i)
        # The ring's own memory: other pages alone make a difference of 5 to 10 %.
        self.plain_to = self.writer._frames
        self.plain_from = self.reader._frames
        self.ring_turn = self.plain_turn = 0

    def write_ring(self) -> None:
        self.writer.write(self.picture, self.writer.head)

    def write_plain(self) -> None:
        np.copyto(self.plain_to[self._plain_slot()], self.picture)

    def read_ring(self) -> None:
        self.reader.read_into(self._next_seq(), self.out)

    def read_plain(self) -> None:
        np.copyto(self.out, self.plain_from[self._plain_slot()])

    def read_in_place(self) -> None:
        seq = self._next_seq()
        self.reader.view(seq)
        self.reader.still(seq)

    def _next_seq(self) -> int:
        self.ring_turn += 1
        return self.writer.head - self.slots + self.ring_turn % self.slots

    def _plain_slot(self) -> int:
        self.plain_turn += 1
        return (self.plain_turn + self.slots // 2) % self.slots


def _size(subject: Subject, frames: int) -> Iterator[Result]:
    how = f"I420, {subject.slots} slots, median of {frames} frames each, interleaved, CPU time"
    wrote = compare(subject.write_ring, subject.write_plain, frames, pick=median)
    each = f"{wrote.a_s * 1e6:.0f} us a frame"
    yield result(f"write {subject.name}", wrote.speed, "ratio", subject.aim, f"ring / numpy copyto; {each}; {how}")
    read = compare(subject.read_ring, subject.read_plain, frames, pick=median)
    each = f"{read.a_s * 1e6:.0f} us a frame"
    yield result(f"read {subject.name}", read.speed, "ratio", subject.aim, f"read_into / numpy copyto; {each}; {how}")
    held = compare(subject.read_in_place, subject.read_plain, frames, pick=median)
    yield result(f"read in place {subject.name}", held.a_s * 1e6, "us", "", f"view and still, no copy; {how}")
    if subject.reader.missed:
        raise AssertionError("nobody wrote meanwhile, so every frame must have been there")
