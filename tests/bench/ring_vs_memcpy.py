"""Cost of the ring against copying the same bytes: what its promises cost on top of moving the pixels.

Both ways copy the same source frames into memory of the same kind (a mapped file on tmpfs) and of the same size, slot
after slot, so caches and pages treat them alike.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodeagent.ring import RingReader, RingWriter
from nodeagent.ring.layout import Geometry
from tests.bench.harness import Result, compare, result

#: Default size of samples, and full HD, at which the aim stands.
SIZES = ((640, 360), (1920, 1080))
#: 75 slots are the default; 1080p takes fewer, to stay at a size that every machine has (about 100 MB).
SLOTS = {640: 75, 1920: 32}
#: Rounds through the ring that one measurement makes: some 10 ms of work each.
PASSES = {640: 3, 1920: 1}
AIM_WIDTH = 1920
SHM = Path("/dev/shm")


def run(quick: bool) -> Iterator[Result]:
    """Write, read by copy and read in place, at both sizes."""
    rounds = 5 if quick else 25
    with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None, prefix="nodeagent-bench-") as folder:
        for width, height in SIZES:
            yield from _size(Path(folder), width, height, rounds)


class Subject:
    """One ring and as much plain memory, with the ways of moving frames that are compared."""

    def __init__(self, folder: Path, width: int, height: int) -> None:
        self.slots = SLOTS[width]
        self.frames = self.slots * PASSES[width]
        self.writer = RingWriter.open(folder, f"bench-{width}", 1, width, height, self.slots)
        self.reader = RingReader.open(folder, f"bench-{width}", self.writer.generation)
        self.plain = _plain(folder / f"plain-{width}", self.writer.geometry)
        rng = np.random.default_rng(1)
        self.pictures = [rng.integers(0, 256, self.writer.geometry.shape, np.uint8) for _ in range(4)]
        self.out = np.empty(self.writer.geometry.shape, np.uint8)

    def write_ring(self) -> None:
        for i in range(self.frames):
            self.writer.write(self.pictures[i & 3], i)

    def write_plain(self) -> None:
        for i in range(self.frames):
            np.copyto(self.plain[i % self.slots], self.pictures[i & 3])

    def read_ring(self) -> None:
        first = self.reader.head - self.slots
        for i in range(self.frames):
            self.reader.read_into(first + i % self.slots, self.out)

    def read_plain(self) -> None:
        for i in range(self.frames):
            np.copyto(self.out, self.plain[i % self.slots])

    def read_in_place(self) -> None:
        first = self.reader.head - self.slots
        for i in range(self.frames):
            self.reader.view(first + i % self.slots)
            self.reader.still(first + i % self.slots)


def _size(folder: Path, width: int, height: int, rounds: int) -> Iterator[Result]:
    subject = Subject(folder, width, height)
    size, aim = f"{width}x{height}", ">= 0.95" if width == AIM_WIDTH else ""
    how = f"I420, {subject.slots} slots, best of {rounds} interleaved rounds in CPU time"
    wrote = compare(subject.write_ring, subject.write_plain, rounds)
    each_us = wrote.a_s / subject.frames * 1e6
    yield result(f"write {size}", wrote.speed, "ratio", aim, f"ring / numpy copyto; {each_us:.0f} us a frame; {how}")
    read = compare(subject.read_ring, subject.read_plain, rounds)
    yield result(f"read {size}", read.speed, "ratio", aim, f"ring read_into / numpy copyto; {how}")
    held = compare(subject.read_in_place, subject.read_plain, rounds)
    each_us = held.a_s / subject.frames * 1e6
    yield result(f"read in place {size}", each_us, "us", "", f"view and still: what the check costs a frame; {how}")
    if subject.reader.missed:
        raise AssertionError("nobody wrote meanwhile, so every frame must have been there")


def _plain(path: Path, geometry: Geometry) -> list[NDArray[np.uint8]]:
    """As many frames as the ring has, in the same kind of memory."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        size = geometry.slots * geometry.stride
        os.posix_fallocate(fd, 0, size)
        memory = mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    finally:
        os.close(fd)
    starts = range(0, size, geometry.stride)
    return [np.frombuffer(memory, np.uint8, geometry.frame_bytes, at).reshape(geometry.shape) for at in starts]
