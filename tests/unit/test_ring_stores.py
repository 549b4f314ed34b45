"""A ring's writer that dies by kill -9 instead of each of its stores, and a reader that comes back hours later."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nodeagent.ring import RingReader, RingWriter, layout

WIDTH, HEIGHT, SLOTS = 16, 8, 3
SHAPE = (HEIGHT * 3 // 2, WIDTH)
#: Frames that five samples a second make in six hours.
SIX_HOURS = 6 * 3600 * 5


def frame(value: int) -> NDArray[np.uint8]:
    return np.full(SHAPE, value % 256, np.uint8)


def open_writer(folder: Path) -> RingWriter:
    return RingWriter.open(folder, "cam-1", 1, WIDTH, HEIGHT, SLOTS)


class Fate:
    """Counts a writer's stores; the process dies by kill -9 instead of the `last`-th."""

    def __init__(self, last: int) -> None:
        self._left = last

    def strikes(self) -> bool:
        """Whether this store is the last that is begun."""
        self._left -= 1
        return self._left == 0


class LastWords:
    """A writer's words under its fate."""

    def __init__(self, words: memoryview, fate: Fate) -> None:
        self._words, self._fate = words, fate

    def __getitem__(self, word: int) -> int:
        value: int = self._words[word]
        return value

    def __setitem__(self, word: int, value: int) -> None:
        if self._fate.strikes():
            os.kill(os.getpid(), signal.SIGKILL)
        self._words[word] = value


class LastFrames:
    """A writer's frames under its fate: a frame is half copied when it strikes."""

    def __init__(self, frames: Sequence[NDArray[np.uint8]], value: int, fate: Fate) -> None:
        self._frames, self._value, self._fate = frames, value, fate

    def __getitem__(self, slot: int) -> NDArray[np.uint8]:
        if self._fate.strikes():
            self._frames[slot].reshape(-1)[: SHAPE[0] * SHAPE[1] // 2] = self._value
            os.kill(os.getpid(), signal.SIGKILL)
        return self._frames[slot]


def write_and_die(folder: Path, value: int, last: int) -> bool:
    """Whether a writer died instead of its `last`-th store; False when one frame has fewer."""
    pid = os.fork()
    if pid == 0:
        writer, fate = open_writer(folder), Fate(last)
        writer._words = LastWords(writer._words, fate)  # type: ignore[assignment]
        writer._frames = LastFrames(writer._frames, value, fate)  # type: ignore[assignment]
        writer.write(frame(value), value)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def whole(reader: RingReader, seqs: range) -> dict[int, int]:
    """Value of each frame that can be read; every one must be whole and carry its own value as time."""
    out, found = frame(0), {}
    for seq in seqs:
        if (captured_ns := reader.read_into(seq, out)) is not None:
            assert (out == captured_ns).all(), f"{seq} is torn"
            found[seq] = captured_ns
    return found


@pytest.mark.parametrize("before", [0, 2, 7], ids=["empty", "filling", "wrapped"])
def test_killed_instead_of_any_store_readers_get_whole_frames_and_the_next_writer_goes_on(
    tmp_path: Path, before: int
) -> None:
    store, died = 0, True
    while died:
        store += 1
        folder = tmp_path / str(store)
        first = open_writer(folder)
        for seq in range(before):
            first.write(frame(seq), seq)
        first.close()
        reader = RingReader.open(folder, "cam-1", first.generation)
        died = write_and_die(folder, 100, store)
        seen = whole(reader, range(before + 2))
        kept = {seq: seq for seq in range(max(0, before - SLOTS + 1), before)}
        # The frame in the killed writer's hands is there or not, and so is the one that it was to overwrite.
        assert kept.items() <= seen.items() <= (kept | {before - SLOTS: before - SLOTS, before: 100}).items()
        after = open_writer(folder)
        assert after.generation == first.generation
        assert after.head == before + (before in seen)
        seq = after.write(frame(200), 200)
        assert whole(reader, range(before + 3)) == {
            kept_seq: value for kept_seq, value in seen.items() if kept_seq > seq - SLOTS
        } | {seq: 200}
        assert reader.head == after.head == seq + 1
    assert store == 6, "each store of the lock word, the frame, the time, the lock word and the head was the last once"


def test_a_reader_that_comes_back_after_hours_knows_what_it_missed(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    reader = RingReader.open(tmp_path, "cam-1", writer.generation)
    writer.write(frame(1), 1)
    seen = reader.view(0)
    assert seen is not None
    # Frames of hours, without the hours: words as a writer leaves them that came this far.
    for seq in range(SIX_HOURS - SLOTS, SIX_HOURS):
        writer._words[layout.H_HEAD] = writer._head = seq
        writer.write(frame(seq), seq % 256)
    assert not reader.still(0)
    out = frame(0)
    got = [reader.read_into(seq, out) for seq in range(1, SIX_HOURS)]
    assert got[:-SLOTS] == [None] * (SIX_HOURS - 1 - SLOTS)
    assert got[-SLOTS:] == [seq % 256 for seq in range(SIX_HOURS - SLOTS, SIX_HOURS)]
    assert reader.missed == SIX_HOURS - SLOTS
