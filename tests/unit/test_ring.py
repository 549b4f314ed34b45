"""The ring's two ends, its files, and what a crash at any step of `open` leaves."""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nodeagent.contract.errors import AgentError, DecodeError, Fenced, Unavailable
from nodeagent.ring import RingReader, RingWriter, folder, forget_rings, layout, ring_path
from nodeagent.ring.layout import Geometry

WIDTH, HEIGHT, SLOTS = 64, 36, 4
TraceFunction = Callable[[FrameType, str, Any], Any]
SIZE = Geometry(WIDTH, HEIGHT, SLOTS).file_bytes


@dataclass
class HandClock:
    """A wall clock that the test turns."""

    wall: int = 5_000_000

    def wall_ns(self) -> int:
        return self.wall

    def monotonic_s(self) -> float:
        raise AssertionError("a ring measures no duration")


def frame(value: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    return np.full((height * 3 // 2, width), value % 256, np.uint8)


def open_writer(tmp_path: Path, epoch: int = 1, slots: int = SLOTS, camera: str = "cam-1") -> RingWriter:
    return RingWriter.open(tmp_path, camera, epoch, WIDTH, HEIGHT, slots)


@pytest.fixture
def writer(tmp_path: Path) -> RingWriter:
    return open_writer(tmp_path)


@pytest.fixture
def reader(tmp_path: Path, writer: RingWriter) -> RingReader:
    return RingReader.open(tmp_path, "cam-1", writer.generation)


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "rings").iterdir())


def test_a_frame_comes_back_as_written(writer: RingWriter, reader: RingReader) -> None:
    rng = np.random.default_rng(1)
    sent = [rng.integers(0, 256, (HEIGHT * 3 // 2, WIDTH), np.uint8) for _ in range(3)]
    assert [writer.write(picture, 1_700_000_000_000_000_000 + i) for i, picture in enumerate(sent)] == [0, 1, 2]
    assert (reader.head, reader.width, reader.height) == (3, WIDTH, HEIGHT)
    for seq, picture in enumerate(sent):
        out = np.empty_like(picture)
        assert reader.read_into(seq, out) == 1_700_000_000_000_000_000 + seq
        assert np.array_equal(out, picture)
        seen = reader.view(seq)
        assert seen is not None
        assert np.array_equal(seen[0], picture)
        assert reader.still(seq)
    assert reader.missed == 0


def test_a_view_is_the_rings_own_memory_and_read_only(writer: RingWriter, reader: RingReader) -> None:
    writer.write(frame(1), 10)
    seen = reader.view(0)
    assert seen is not None
    with pytest.raises(ValueError, match="read-only"):
        seen[0][0, 0] = 9
    for i in range(SLOTS):
        writer.write(frame(7), 11 + i)
    assert seen[0][0, 0] == 7
    assert not reader.still(0)
    assert reader.missed == 1


def test_overwritten_frames_are_counted_and_others_are_not(writer: RingWriter, reader: RingReader) -> None:
    out = frame(0)
    for i in range(SLOTS + 2):
        writer.write(frame(i), i)
    assert [reader.read_into(seq, out) for seq in range(-1, SLOTS + 4)] == [None, None, None, 2, 3, 4, 5, None, None]
    assert reader.missed == 2


def test_a_sequence_before_the_first_is_nothing(reader: RingReader) -> None:
    assert [reader.view(seq) for seq in (-1, -SLOTS, 0)] == [None, None, None]
    assert reader.missed == 0


def test_a_frame_that_is_being_written_is_not_returned(writer: RingWriter, reader: RingReader) -> None:
    writer.write(frame(0), 1)
    lock = layout.slot_word(1, SLOTS)
    writer._words[lock] = layout.writing(1)
    assert reader.view(1) is None
    assert reader.missed == 0
    writer._words[layout.slot_word(0, SLOTS)] = layout.writing(SLOTS)
    assert reader.view(0) is None
    assert reader.missed == 1


def test_a_wrong_picture_is_refused_and_changes_nothing(writer: RingWriter, reader: RingReader) -> None:
    for wrong in (frame(1)[:-1], frame(1)[0], np.zeros((HEIGHT * 3 // 2, WIDTH), np.int8)):
        with pytest.raises(ValueError, match="ring wants"):
            writer.write(wrong, 5)
    assert (reader.head, reader.view(0)) == (0, None)


def test_a_strided_picture_is_stored(writer: RingWriter, reader: RingReader) -> None:
    wide = np.arange(HEIGHT * 3 // 2 * WIDTH * 2, dtype=np.uint32).astype(np.uint8).reshape(-1, WIDTH * 2)
    writer.write(wide[:, ::2], 5)
    seen = reader.view(0)
    assert seen is not None
    assert np.array_equal(seen[0], wide[:, ::2])


@pytest.mark.parametrize(
    ("width", "height", "slots"), [(63, 36, 4), (64, 35, 4), (0, 36, 4), (64, 36, 1), (9000, 36, 4)]
)
def test_an_impossible_size_is_refused(tmp_path: Path, width: int, height: int, slots: int) -> None:
    with pytest.raises(AgentError, match="impossible size"):
        RingWriter.open(tmp_path, "cam-1", 1, width, height, slots)
    assert not (tmp_path / "rings").exists()


def test_the_file_is_reserved_private_and_of_the_size_it_should_be(tmp_path: Path, writer: RingWriter) -> None:
    found = ring_path(tmp_path, "cam-1", writer.generation).stat()
    assert (found.st_size, found.st_mode & 0o777) == (SIZE, 0o600)
    assert found.st_blocks * 512 >= SIZE
    assert names(tmp_path) == [f"cam-1.g{writer.generation}"]


def test_default_ring_size_is_as_documented() -> None:
    assert Geometry(640, 360, 75).file_bytes / 1e6 == pytest.approx(26, abs=0.5)


# Adoption.


def test_a_successor_keeps_samples_and_goes_on(tmp_path: Path, writer: RingWriter, reader: RingReader) -> None:
    for i in range(3):
        writer.write(frame(i), i)
    writer.close()
    after = open_writer(tmp_path, epoch=2)
    assert (after.generation, after.head) == (writer.generation, 3)
    out = frame(0)
    assert [reader.read_into(seq, out) for seq in range(3)] == [0, 1, 2]
    assert after.write(frame(3), 3) == 3
    assert reader.read_into(3, out) == 3


def test_a_slot_that_was_killed_half_written_is_written_again(
    tmp_path: Path, writer: RingWriter, reader: RingReader
) -> None:
    writer.write(frame(0), 0)
    writer._words[layout.slot_word(1, SLOTS)] = layout.writing(1)
    writer.close()
    after = open_writer(tmp_path)
    assert after.head == 1
    after.write(frame(8), 80)
    assert reader.read_into(1, frame(0)) == 80


def test_a_frame_that_was_whole_but_not_counted_is_counted(
    tmp_path: Path, writer: RingWriter, reader: RingReader
) -> None:
    writer.write(frame(0), 0)
    writer.write(frame(1), 10)
    writer._words[layout.H_HEAD] = 1
    writer.close()
    after = open_writer(tmp_path)
    assert (after.head, reader.head) == (2, 2)
    assert reader.read_into(1, frame(0)) == 10


def test_a_writer_that_still_lives_is_fenced_and_never_shares_a_file(
    tmp_path: Path, writer: RingWriter, reader: RingReader
) -> None:
    writer.write(frame(1), 1)
    after = open_writer(tmp_path, epoch=2)
    assert after.generation > writer.generation
    with pytest.raises(Fenced, match="newer writer"):
        writer.write(frame(2), 2)
    assert (reader.head, after.head, names(tmp_path)) == (1, 0, [f"cam-1.g{after.generation}"])


def test_a_living_writer_of_the_same_epoch_is_fenced_too(tmp_path: Path, writer: RingWriter) -> None:
    open_writer(tmp_path)
    with pytest.raises(Fenced):
        writer.write(frame(2), 2)


def test_an_earlier_epoch_cannot_open_the_ring(tmp_path: Path) -> None:
    writer = open_writer(tmp_path, epoch=5)
    writer.close()
    with pytest.raises(Fenced, match="epoch 5 has written it, ours is 4"):
        open_writer(tmp_path, epoch=4)
    assert open_writer(tmp_path, epoch=5).generation == writer.generation


def test_a_closed_writer_cannot_write(writer: RingWriter) -> None:
    writer.close()
    with pytest.raises(ValueError, match="released"):
        writer.write(frame(1), 1)


def test_closing_under_a_view_leaves_the_view_readable(writer: RingWriter, reader: RingReader) -> None:
    writer.write(frame(9), 1)
    seen = reader.view(0)
    assert seen is not None
    reader.close()
    assert seen[0][5, 5] == 9


def test_closing_gives_the_mapping_back(tmp_path: Path, writer: RingWriter) -> None:
    def maps() -> int:
        return Path("/proc/self/maps").read_text().count(f"cam-1.g{writer.generation}")

    before = maps()
    reader = RingReader.open(tmp_path, "cam-1", writer.generation)
    assert maps() == before + 1
    reader.close()
    assert maps() == before
    writer.close()
    assert maps() == before - 1


# Generations.


@pytest.mark.parametrize(("width", "height", "slots"), [(32, 36, 4), (64, 18, 4), (64, 36, 5)])
def test_another_size_makes_a_new_generation(
    tmp_path: Path, writer: RingWriter, reader: RingReader, width: int, height: int, slots: int
) -> None:
    writer.write(frame(3), 30)
    writer.close()
    after = RingWriter.open(tmp_path, "cam-1", 1, width, height, slots)
    assert after.generation > writer.generation
    assert (after.head, names(tmp_path)) == (0, [f"cam-1.g{after.generation}"])
    assert reader.read_into(0, frame(0)) == 30
    with pytest.raises(Unavailable, match="No such file"):
        RingReader.open(tmp_path, "cam-1", writer.generation)


def test_generations_grow_within_a_millisecond_and_when_the_clock_goes_back(tmp_path: Path) -> None:
    clock = HandClock()
    seen = []
    for slots, wall in ((4, 5_000_000), (5, 5_000_000), (6, 0), (7, 900_000_000)):
        clock.wall = wall
        writer = RingWriter.open(tmp_path, "cam-1", 1, WIDTH, HEIGHT, slots, clock)
        seen.append(writer.generation)
        writer.close()
    assert seen == [5, 6, 7, 900]


def test_an_emptied_folder_does_not_bring_an_old_generation_back(tmp_path: Path) -> None:
    clock = HandClock()
    before = RingWriter.open(tmp_path, "cam-1", 1, WIDTH, HEIGHT, SLOTS, clock)
    before.close()
    ring_path(tmp_path, "cam-1", before.generation).unlink()
    clock.wall += 1_000_000
    assert RingWriter.open(tmp_path, "cam-1", 1, WIDTH, HEIGHT, SLOTS, clock).generation == before.generation + 1


def test_the_highest_generation_wins_and_leftovers_go(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    writer.write(frame(1), 10)
    writer.close()
    rings = tmp_path / "rings"
    for leftover in ("cam-1.g9", "cam-1.g10", ".cam-1.g77.123.tmp"):
        (rings / leftover).write_bytes(b"half")
    after = open_writer(tmp_path)
    assert (after.generation, after.head) == (writer.generation, 1)
    assert names(tmp_path) == [f"cam-1.g{writer.generation}"]


def test_cameras_whose_names_look_alike_do_not_meet(tmp_path: Path) -> None:
    cameras = ("a", "a.g1", "a.g1.g2", "a.tmp", "x" * 63, "1.g5.7")
    writers = {name: RingWriter.open(tmp_path, name, 1, WIDTH, HEIGHT, SLOTS) for name in cameras}
    (tmp_path / "rings" / ".a.g1.g3.99.tmp").write_bytes(b"another camera's")
    for value, writer in enumerate(writers.values()):
        writer.write(frame(value), value)
        writer.close()
    again = RingWriter.open(tmp_path, "a", 1, 32, HEIGHT, SLOTS)
    assert again.generation > writers["a"].generation
    assert (tmp_path / "rings" / ".a.g1.g3.99.tmp").exists()
    for value, name in enumerate(cameras[1:], start=1):
        reader = RingReader.open(tmp_path, name, writers[name].generation)
        assert reader.read_into(0, frame(0)) == value
        assert RingWriter.open(tmp_path, name, 1, WIDTH, HEIGHT, SLOTS).generation == writers[name].generation


def test_a_forgotten_camera_leaves_nothing_and_its_writer_stops(
    tmp_path: Path, writer: RingWriter, reader: RingReader
) -> None:
    other = open_writer(tmp_path, camera="cam-10")
    writer.write(frame(2), 20)
    (tmp_path / "rings" / ".cam-1.g77.123.tmp").write_bytes(b"half")
    forget_rings(tmp_path, "cam-1")
    assert names(tmp_path) == [f"cam-10.g{other.generation}"]
    with pytest.raises(Fenced):
        writer.write(frame(3), 30)
    assert reader.read_into(0, frame(0)) == 20
    forget_rings(tmp_path, "cam-1")


def test_forgetting_where_no_ring_ever_was_is_harmless(tmp_path: Path) -> None:
    forget_rings(tmp_path, "cam-1")
    assert not (tmp_path / "rings").exists()


def test_files_that_are_no_rings_are_left_alone(tmp_path: Path, writer: RingWriter) -> None:
    writer.close()
    for name in ("README", "cam-1.gx", "cam-1.g", ".hidden"):
        (tmp_path / "rings" / name).write_text("mine")
    open_writer(tmp_path, slots=6)
    assert {"README", "cam-1.gx", "cam-1.g", ".hidden"} < set(names(tmp_path))


# Files that are no rings.


def damaged(word: int, value: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(word * layout.WORD_BYTES)
            file.write(value.to_bytes(8, "little"))

    return damage


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"hello"),
    "page of noise": lambda path: path.write_bytes(b"x" * 8192),
    "cut short": lambda path: os.truncate(path, SIZE - 4096),
    "other generation": damaged(layout.H_GENERATION, 3),
    "huge width": damaged(layout.H_WIDTH, 2**40),
    "no slots": damaged(layout.H_SLOTS, 0),
    "other slots": damaged(layout.H_SLOTS, SLOTS + 1),
    "header alone": lambda path: (damaged(layout.H_SLOTS, 0)(path), os.truncate(path, layout.PAGE_BYTES)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_ring_is_refused_by_readers_and_replaced_by_writers(
    tmp_path: Path, writer: RingWriter, kind: str
) -> None:
    writer.close()
    DAMAGE[kind](ring_path(tmp_path, "cam-1", writer.generation))
    with pytest.raises(DecodeError, match=r"cam-1\.g\d+: (no ring|a ring)"):
        RingReader.open(tmp_path, "cam-1", writer.generation)
    after = open_writer(tmp_path)
    assert after.generation > writer.generation
    assert names(tmp_path) == [f"cam-1.g{after.generation}"]


# A full /dev/shm.


def refuse_memory(times: int) -> Callable[[int, int, int], None]:
    left = [times]
    real = os.posix_fallocate

    def fallocate(fd: int, offset: int, length: int) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd, offset, length)

    return fallocate


def test_short_memory_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", refuse_memory(1))
    with pytest.raises(Unavailable, match=rf"cam-1: No space left.*/dev/shm\): {SIZE} bytes wanted"):
        open_writer(tmp_path)
    assert names(tmp_path) == []
    assert open_writer(tmp_path).head == 0


def test_short_memory_takes_the_older_rings_first(
    tmp_path: Path, writer: RingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.close()
    monkeypatch.setattr(os, "posix_fallocate", refuse_memory(1))
    after = open_writer(tmp_path, slots=8)
    assert names(tmp_path) == [f"cam-1.g{after.generation}"]


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "rings").write_text("a file is in the way")
    with pytest.raises(Unavailable, match="File exists"):
        open_writer(tmp_path)


# Killed at any step of `open`.


def die_at_line(step: int) -> None:
    """Make this process end without a farewell, as by kill -9, before the step-th line of the ring's own code."""
    left = [step]

    def trace(stack: FrameType, event: str, _: object) -> TraceFunction | None:
        if "nodeagent/ring" not in stack.f_code.co_filename:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
        return trace

    sys.settrace(trace)


def open_and_die(home: Path, step: int, slots: int) -> bool:
    """Whether a process died in `open` at that line; False when it had fewer lines."""
    pid = os.fork()
    if pid == 0:
        die_at_line(step)
        open_writer(home, slots=slots)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.parametrize(("slots", "lines"), [(SLOTS, 40), (SLOTS + 1, 90)], ids=["adopts", "new size"])
def test_killed_at_any_line_of_open_the_next_open_repairs(tmp_path: Path, slots: int, lines: int) -> None:
    step, died = 0, True
    while died:
        step += 1
        home = tmp_path / f"line-{step}"
        first = open_writer(home)
        first.write(frame(5), 50)
        first.close()
        died = open_and_die(home, step, slots)
        after = open_writer(home, slots=slots)
        assert names(home) == [f"cam-1.g{after.generation}"], f"line {step}"
        assert after.head == (1 if slots == SLOTS else 0)
        seq = after.write(frame(6), 60)
        reader = RingReader.open(home, "cam-1", after.generation)
        assert reader.read_into(seq, frame(0)) == 60
        if slots == SLOTS:
            assert reader.read_into(0, frame(0)) == 50
    assert step > lines


def open_fds() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_failing_opens_leak_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_writer(tmp_path, epoch=5).close()
    gc.collect()
    before = open_fds()
    with pytest.raises(Fenced):
        open_writer(tmp_path, epoch=1)
    monkeypatch.setattr(os, "posix_fallocate", refuse_memory(2))
    with pytest.raises(Unavailable):
        open_writer(tmp_path, epoch=6, slots=9)
    gc.collect()
    assert open_fds() == before
    assert folder.generations(tmp_path, "cam-1") == []
