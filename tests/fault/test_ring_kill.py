"""Writers that are killed, stopped and woken in the middle of frames, and a /dev/shm that is full.

Every frame is one value all over, so a torn one is seen at once; a control without the lock word shows that it would
be.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nodeagent.contract.errors import Fenced, Unavailable
from nodeagent.ring import RingReader, RingWriter, layout
from nodeagent.ring.layout import Geometry
from tests.support.disks import mounted_tmpfs

CAMERA = "cam-1"
WIDTH, HEIGHT, SLOTS = 640, 360, 4
KILLS = 40
#: Exit code of a child whose write was fenced.
FENCED = 17


@pytest.fixture
def memory_dir() -> Iterator[Path]:
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="nodeagent-test-", dir=shm if shm.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


def open_writer(memory_dir: Path, epoch: int = 1, slots: int = SLOTS) -> RingWriter:
    return RingWriter.open(memory_dir, CAMERA, epoch, WIDTH, HEIGHT, slots)


def write_until_killed(memory_dir: Path) -> None:
    writer = open_writer(memory_dir)
    picture = np.empty(writer.geometry.shape, np.uint8)
    while True:
        picture.fill(writer.head % 251)
        writer.write(picture, writer.head)


@contextmanager
def child(run: Callable[[], None]) -> Iterator[int]:
    """A process that runs so; killed and reaped at the end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run()
        except Fenced:
            code = FENCED
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def until(check: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait without a pause: the sooner the writer is hit, the more often it is inside a frame."""
    end = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < end, "the writer stands still"


def is_torn(picture: NDArray[np.uint8]) -> bool:
    return bool((picture != picture[0, 0]).any())


class Watch:
    """Reads as fast as it can, and counts."""

    def __init__(self, reader: RingReader) -> None:
        self.reader = reader
        self.out = np.empty((HEIGHT * 3 // 2, WIDTH), np.uint8)
        self.whole = self.torn = self.control_torn = 0

    def look(self, seq: int) -> None:
        captured_ns = self.reader.read_into(seq, self.out)
        if captured_ns is not None:
            self.whole += 1
            self.torn += is_torn(self.out) or captured_ns != seq or self.out[0, 0] != seq % 251

    def look_unguarded(self, seq: int) -> None:
        """What a reader without the lock word would take: the slot's bytes as they are now."""
        np.copyto(self.out, self.reader._frames[seq % SLOTS])
        self.control_torn += is_torn(self.out)

    def watch(self, until_s: float) -> None:
        while time.monotonic() < until_s:
            head = self.reader.head
            for seq in (head - 1, head - SLOTS + 1, head - SLOTS, head):
                self.look(seq)
            # The oldest slot is the one that the writer takes next.
            self.look_unguarded(head - SLOTS)


def test_no_frame_is_torn_when_writers_are_killed_inside_frames(memory_dir: Path) -> None:
    first = open_writer(memory_dir)
    generation = first.generation
    first.close()
    reader = RingReader.open(memory_dir, CAMERA, generation)
    watch, chance, left_odd = Watch(reader), random.Random(1), 0
    for _ in range(KILLS):
        before = reader.head
        with child(lambda: write_until_killed(memory_dir)):
            until(lambda: reader.head > before + SLOTS)  # noqa: B023
            watch.watch(time.monotonic() + 0.03 + 0.02 * chance.random())
        assert reader.head > before
        locks = [reader._words[layout.slot_word(seq, SLOTS)] for seq in range(SLOTS)]
        left_odd += sum(lock % 2 for lock in locks)
        for seq in range(reader.head - SLOTS, reader.head + 1):
            watch.look(seq)
    assert [path.name for path in (memory_dir / "rings").iterdir()] == [f"{CAMERA}.g{generation}"]
    assert watch.torn == 0
    assert watch.whole > 10 * KILLS
    assert left_odd > 0, "no kill hit a writer inside a frame: the test shows nothing"
    assert watch.control_torn > 0, "tearing cannot be seen here: the test shows nothing"


def test_a_stopped_writer_wakes_into_its_own_old_ring(memory_dir: Path) -> None:
    open_writer(memory_dir).close()
    generation = max(int(path.name.rpartition(".g")[2]) for path in (memory_dir / "rings").iterdir())
    old = RingReader.open(memory_dir, CAMERA, generation)
    with child(lambda: write_until_killed(memory_dir)) as pid:
        until(lambda: old.head > SLOTS)
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        writer = open_writer(memory_dir, epoch=2)
        assert writer.generation > generation
        for seq in range(SLOTS):
            writer.write(np.full(writer.geometry.shape, seq, np.uint8), seq)
        os.kill(pid, signal.SIGCONT)
        # WNOWAIT: `child` reaps it.
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert ended.si_status == FENCED
    watch = Watch(RingReader.open(memory_dir, CAMERA, writer.generation))
    for seq in range(SLOTS):
        watch.look(seq)
    assert (watch.whole, watch.torn, writer.head) == (SLOTS, 0, SLOTS)
    assert [path.name for path in (memory_dir / "rings").iterdir()] == [f"{CAMERA}.g{writer.generation}"]


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs that holds one ring of SLOTS, not two."""
    with mounted_tmpfs(tmp_path / "shm", str(Geometry(WIDTH, HEIGHT, SLOTS).file_bytes * 3 // 2)) as mount:
        yield mount


def test_a_full_memory_refuses_a_second_camera_and_hurts_no_first(small_memory: Path) -> None:
    writer = open_writer(small_memory)
    reader = RingReader.open(small_memory, CAMERA, writer.generation)
    wanted = writer.geometry.file_bytes
    with pytest.raises(Unavailable, match=rf"cam-2: No space left on device.*/dev/shm.*{wanted} bytes wanted"):
        RingWriter.open(small_memory, "cam-2", 1, WIDTH, HEIGHT, SLOTS)
    picture = np.full(writer.geometry.shape, 3, np.uint8)
    for i in range(3 * SLOTS):
        writer.write(picture, i)
    assert reader.read_into(3 * SLOTS - 1, picture) == 3 * SLOTS - 1
    assert [path.name for path in (small_memory / "rings").iterdir()] == [f"{CAMERA}.g{writer.generation}"]


def test_a_full_memory_gives_the_old_rings_room_to_the_new_size(small_memory: Path) -> None:
    old = open_writer(small_memory)
    old.close()
    writer = open_writer(small_memory, slots=SLOTS + 1)
    assert writer.write(np.zeros(writer.geometry.shape, np.uint8), 1) == 0
    assert [path.name for path in (small_memory / "rings").iterdir()] == [f"{CAMERA}.g{writer.generation}"]
