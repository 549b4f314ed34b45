"""The fence: what it is made of, in the order that makes it one, and where the ring and the board put it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nodeagent.contract.report import Kind
from nodeagent.contract.states import State
from nodeagent.infra import board, board_layout, fence
from nodeagent.infra.board import Board
from nodeagent.ring import RingReader, RingWriter, layout, reader, writer

SLOTS = 4


class Words:
    """Words that write down each load and store of a few of them."""

    def __init__(self, words: memoryview, names: dict[int, str], done: list[str]) -> None:
        self._words, self._names, self._done = words, names, done

    def __getitem__(self, word: int) -> int:
        if word in self._names:
            self._done.append(f"load {self._names[word]}")
        value: int = self._words[word]
        return value

    def __setitem__(self, word: int, value: int) -> None:
        if word in self._names:
            self._done.append(f"store {self._names[word]}")
        self._words[word] = value


class Frames(tuple[NDArray[np.uint8], ...]):
    """Frames that write down when one is asked for."""

    done: list[str]

    def __getitem__(self, slot: object) -> NDArray[np.uint8]:  # type: ignore[override]
        self.done.append("frame")
        found: NDArray[np.uint8] = tuple.__getitem__(self, slot)  # type: ignore[call-overload]
        return found


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
def note_fence(done: list[str]) -> Callable[[], None]:
    return lambda: done.append("fence")


def watch(end: RingReader | RingWriter, seq: int, done: list[str]) -> None:
    slot = layout.slot_word(seq, SLOTS)
    names = {slot + layout.S_LOCK: "lock", slot + layout.S_CAPTURED_NS: "time", layout.H_HEAD: "head"}
    frames = Frames(end._frames)
    frames.done = done
    end._words = Words(end._words, names, done)  # type: ignore[assignment]
    end._frames = frames


def test_a_lock_is_given_back_before_it_is_taken_again(monkeypatch: pytest.MonkeyPatch, done: list[str]) -> None:
    class Lock:
        def acquire(self) -> None:
            done.append("take")

        def release(self) -> None:
            done.append("give back")

    monkeypatch.setattr(fence, "allocate_lock", Lock)
    fence.fence()
    assert done == ["take", "give back", "take"]


def test_a_writer_fences_its_frame_on_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: list[str], note_fence: Callable[[], None]
) -> None:
    end = RingWriter.open(tmp_path, "cam-1", 1, 4, 4, SLOTS)
    watch(end, 0, done)
    monkeypatch.setattr(writer, "fence", note_fence)
    end.write(np.zeros((6, 4), np.uint8), 1)
    assert done == ["store lock", "fence", "frame", "store time", "fence", "store lock", "store head"]


def test_a_reader_fences_its_frame_on_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: list[str], note_fence: Callable[[], None]
) -> None:
    source = RingWriter.open(tmp_path, "cam-1", 1, 4, 4, SLOTS)
    source.write(np.zeros((6, 4), np.uint8), 1)
    end = RingReader.open(tmp_path, "cam-1", source.generation)
    watch(end, 0, done)
    monkeypatch.setattr(reader, "fence", note_fence)
    assert end.read_into(0, np.empty((6, 4), np.uint8)) == 1
    assert done == ["load lock", "fence", "frame", "load time", "fence", "load lock"]


def test_the_board_fences_what_a_lock_word_guards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: list[str], note_fence: Callable[[], None]
) -> None:
    cell = Board.create(tmp_path / "board", "n1", 1, 2, cells=1).claim("capture:a", Kind.CAPTURE)
    names = {board_layout.W_STATE_LOCK: "lock", board_layout.W_SINCE_NS: "since"}
    monkeypatch.setattr(board, "fence", note_fence)
    cell._words = Words(cell._words, names, done)  # type: ignore[assignment]
    cell.state(State.CAPTURING)
    stores = [step for step in done if step != "load lock" and step != "load since"]
    assert stores == ["store lock", "fence", "store since", "fence", "store lock"]
    done.clear()
    cell.row(0.0)
    assert done[-5:] == ["load lock", "fence", "load since", "fence", "load lock"]
    done.clear()
    cell.beat(allow_s=5.0)
    cell.beat()
    assert done == ["fence", "fence"]
