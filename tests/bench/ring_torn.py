"""A thousand ring writers killed at any instruction, under a reader that never stops: is a torn frame ever returned?

Every frame is one value all over and carries its sequence as its time, so a frame of two writes, or under another
frame's name, is seen at once.  The control takes the same slots' bytes without asking the lock word.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nodeagent.ring import RingReader, RingWriter, layout
from tests.bench.harness import Result, result

CAMERA = "bench"
#: Small, so that a million reads end within minutes; large enough that a copy can be interrupted: 86 KB.
WIDTH, HEIGHT, SLOTS = 320, 180, 8
#: Values of frames; a prime, so that a slot never gets the same one twice in a row.
VALUES = 251
KILLS, QUICK_KILLS = 1000, 20
#: Frames that the reader must have got during each writer's life.
FRAMES_EACH = 1001
#: Seconds that a writer may take for its first frames.
START_S = 30.0
SHM = Path("/dev/shm")


def run(quick: bool) -> Iterator[Result]:
    """Kill, read, kill; then count."""
    kills = QUICK_KILLS if quick else KILLS
    with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None, prefix="nodeagent-bench-") as folder:
        first = RingWriter.open(Path(folder), CAMERA, 1, WIDTH, HEIGHT, SLOTS)
        first.close()
        watch = Watch(RingReader.open(Path(folder), CAMERA, first.generation))
        chance, inside, started_s = random.Random(1), 0, time.monotonic()
        for _ in range(kills):
            with writer(Path(folder)):
                watch.during_a_life(chance)
            inside += watch.slots_left_odd()
            watch.everything()
        took_s = time.monotonic() - started_s
        if len(list((Path(folder) / "rings").iterdir())) != 1:
            raise AssertionError("a killed writer's successor did not go on in the same ring")
    how = f"{WIDTH}x{HEIGHT}, {SLOTS} slots, one process writing without a pause, one reading, {took_s:.0f} s"
    yield result("kills", kills, "kills", "", f"kill -9 of the writer; {inside} of them inside a frame")
    yield result("kills_inside_a_frame", inside, "kills", "> 0", "the lock word was left odd")
    yield result(
        "reads", watch.whole, "frames", f">= {kills * 1000}", f"returned as whole, of {watch.asked} asked; {how}"
    )
    yield result("torn", watch.torn, "frames", "== 0", "of those: other bytes or another time than were written")
    detail = f"of {watch.unguarded} slots read without the lock word: without it, frames do tear here"
    yield result("control_torn", watch.control_torn, "frames", "> 0", detail)


@contextmanager
def writer(folder: Path) -> Iterator[int]:
    """A process that adopts the ring and writes as fast as it can; killed at the end."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _write_for_ever(folder, parent)
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _write_for_ever(folder: Path, parent: int) -> None:
    end = RingWriter.open(folder, CAMERA, 1, WIDTH, HEIGHT, SLOTS)
    pictures = [np.full(end.geometry.shape, value, np.uint8) for value in range(VALUES)]
    # It must not outlive a bench that is killed itself.
    while os.getppid() == parent:
        for _ in range(1000):
            end.write(pictures[end.head % VALUES], end.head)


class Watch:
    """Reads, and counts."""

    def __init__(self, reader: RingReader) -> None:
        self.reader = reader
        self.out = np.empty(reader_shape(reader), np.uint8)
        self.right = [bytes([value]) * self.out.size for value in range(VALUES)]
        self.asked = self.whole = self.torn = self.unguarded = self.control_torn = 0

    def during_a_life(self, chance: random.Random) -> None:
        """Read until this writer has given enough frames, the newest and the one that is overwritten next."""
        before, end_s = self.reader.head, time.monotonic() + START_S
        while self.reader.head <= before + SLOTS:
            if time.monotonic() > end_s:
                raise AssertionError("the writer stands still")
        # A different moment of its work each time.
        enough = self.whole + FRAMES_EACH + chance.randrange(50)
        while self.whole < enough:
            head = self.reader.head
            for seq in (head - 1, head - 2, head - SLOTS + 1):
                self.look(seq)
            self.look_unguarded(head - SLOTS + 1)

    def everything(self) -> None:
        """Read every slot of a ring whose writer is dead."""
        for seq in range(self.reader.head - SLOTS, self.reader.head + 1):
            self.look(seq)

    def look(self, seq: int) -> None:
        """Read as the product does."""
        self.asked += 1
        captured_ns = self.reader.read_into(seq, self.out)
        if captured_ns is not None:
            self.whole += 1
            self.torn += captured_ns != seq or self.out.tobytes() != self.right[seq % VALUES]

    def look_unguarded(self, seq: int) -> None:
        """What a reader would take that does not ask the lock word: the slot's bytes as they are now."""
        self.unguarded += 1
        np.copyto(self.out, self.reader._frames[seq % SLOTS])
        self.control_torn += self.out.tobytes() != self.right[int(self.out[0, 0]) % VALUES]

    def slots_left_odd(self) -> int:
        """Whether the dead writer was inside a frame."""
        locks = [self.reader._words[layout.slot_word(seq, SLOTS) + layout.S_LOCK] for seq in range(SLOTS)]
        return sum(lock % 2 for lock in locks)


def reader_shape(reader: RingReader) -> tuple[int, int]:
    """Shape of a reader's frames."""
    return reader.height * 3 // 2, reader.width
