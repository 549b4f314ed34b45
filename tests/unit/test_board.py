"""The status board: cells, counters, states, and what a killed writer leaves."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from nodeagent.contract.errors import AgentError, DecodeError, Unavailable
from nodeagent.contract.report import COUNTERS, ChildRow, Kind, NodeReport, Phase
from nodeagent.contract.states import State
from nodeagent.infra import board as module
from nodeagent.infra import board_layout as at
from nodeagent.infra.board import Board, BoardCell


@dataclass
class HandClock:
    """A clock that the test turns."""

    wall: int = 1_000
    monotonic: float = 10.0

    def wall_ns(self) -> int:
        return self.wall

    def monotonic_s(self) -> float:
        return self.monotonic


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def board(tmp_path: Path, clock: HandClock) -> Board:
    return Board.create(tmp_path / "board", "node-1", 4242, 99, cells=4, clock=clock)


def report(board: Board, now_s: float = 10.0) -> NodeReport:
    return board.report(now_s, version="1.2", host="rack-7")


def row(board: Board, name: str, now_s: float = 10.0) -> ChildRow:
    return next(row for row in report(board, now_s).rows if row.name == name)


def test_an_empty_board_reports_the_node(board: Board) -> None:
    assert report(board) == NodeReport(
        node_id="node-1", host="rack-7", version="1.2", agent_pid=4242, started_ns=99, rows=()
    )


def test_a_row_shows_what_supervisor_and_worker_wrote(tmp_path: Path, board: Board, clock: HandClock) -> None:
    cell = board.claim("capture:gate-2", Kind.CAPTURE)
    cell.begin(wall_ns=500)
    cell.phase(Phase.RUNNING, pid=77, restarts=3)
    child = Board.open(tmp_path / "board", clock).cell(cell.index)
    assert (child.name, child.kind) == ("capture:gate-2", Kind.CAPTURE)
    child.state(State.SOURCE_DOWN, "refused, the camera is off")
    child.add("frames")
    child.add("frames", 4)
    child.set("last_sample_ns", 123_456_789_012)
    child.beat()
    assert row(board, "capture:gate-2", now_s=12.5) == ChildRow(
        name="capture:gate-2",
        kind=Kind.CAPTURE,
        pid=77,
        phase=Phase.RUNNING,
        state=State.SOURCE_DOWN,
        state_since_ns=1_000,
        detail="refused, the camera is off",
        beat_age_s=2.5,
        restarts=3,
        started_ns=500,
        counters=dict.fromkeys(COUNTERS[Kind.CAPTURE], 0) | {"frames": 5, "last_sample_ns": 123_456_789_012},
    )


def test_rows_are_sorted_by_kind_and_name(board: Board) -> None:
    for name, kind in (("judge:0", Kind.JUDGE), ("capture:b", Kind.CAPTURE), ("capture:a", Kind.CAPTURE)):
        board.claim(name, kind)
    assert [row.name for row in report(board).rows] == ["capture:a", "capture:b", "judge:0"]


def test_a_claimed_name_keeps_its_cell_and_counters(board: Board) -> None:
    first = board.claim("judge:0", Kind.JUDGE)
    first.add("alarms", 7)
    again = board.claim("judge:0", Kind.JUDGE)
    assert (again.index, again.get("alarms")) == (first.index, 7)


def test_a_restart_keeps_counters_only(board: Board) -> None:
    cell = board.claim("judge:0", Kind.JUDGE)
    cell.phase(Phase.RUNNING, 50, 1)
    cell.state(State.IDLE, "nothing to do")
    cell.ready()
    cell.beat(allow_s=30)
    cell.add("clips", 2)
    assert (cell.is_ready, cell.beat_monotonic_s, cell.allow_s) == (True, 10.0, 30.0)
    cell.begin(wall_ns=2_000)
    assert (cell.is_ready, cell.beat_monotonic_s, cell.allow_s) == (False, None, None)
    shown = row(board, "judge:0")
    assert (shown.pid, shown.started_ns, shown.state, shown.state_since_ns, shown.detail) == (
        0,
        2_000,
        State.STARTING,
        2_000,
        "",
    )
    assert (shown.counters["clips"], shown.beat_age_s, shown.restarts) == (2, None, 1)


def test_a_released_child_that_comes_back_finds_its_counters(board: Board) -> None:
    board.claim("capture:a", Kind.CAPTURE).add("clips_made", 9)
    board.release("capture:a")
    assert report(board).rows == ()
    board.claim("capture:b", Kind.CAPTURE)
    assert board.claim("capture:a", Kind.CAPTURE).get("clips_made") == 9


def test_a_reused_cell_starts_from_zero(board: Board) -> None:
    cells = [board.claim(f"capture:{i}", Kind.CAPTURE) for i in range(4)]
    cells[2].state(State.STALLED, "old")
    cells[2].add("bytes", 5)
    board.release("capture:2")
    reused = board.claim("alarm:0", Kind.ALARM)
    assert reused.index == 2
    shown = row(board, "alarm:0")
    assert set(shown.counters) == set(COUNTERS[Kind.ALARM])
    assert (sum(shown.counters.values()), shown.state, shown.detail) == (0, State.STARTING, "")


def test_a_full_board_says_who_found_no_room(board: Board) -> None:
    for i in range(4):
        board.claim(f"capture:{i}", Kind.CAPTURE)
    with pytest.raises(AgentError, match="all 4 cells are taken, none left for capture:9"):
        board.claim("capture:9", Kind.CAPTURE)


def test_names_have_limits(board: Board) -> None:
    for name in ("", "x" * 129):
        with pytest.raises(AgentError, match="1 to 128 bytes"):
            board.claim(name, Kind.CAPTURE)
    with pytest.raises(AgentError, match="no cell 4"):
        board.cell(4)


def test_releasing_an_unknown_name_is_harmless(board: Board) -> None:
    board.claim("judge:0", Kind.JUDGE)
    board.release("judge:1")
    assert len(report(board).rows) == 1


@pytest.mark.parametrize("kind", Kind)
def test_an_unknown_counter_is_refused(board: Board, kind: Kind) -> None:
    cell = board.claim(kind.value, kind)
    for touch in (cell.add, cell.get, lambda name: cell.set(name, 1)):
        with pytest.raises(KeyError):
            touch("no_such_counter")


def test_every_counter_fits_before_the_texts() -> None:
    assert max(len(names) for names in COUNTERS.values()) <= at.COUNTERS_MAX
    assert (at.W_COUNTERS + at.COUNTERS_MAX) * at.WORD_BYTES <= at.NAME_AT
    assert at.NAME_AT + at.NAME_BYTES <= at.DETAIL_AT
    assert at.DETAIL_AT + at.DETAIL_BYTES <= at.CELL_BYTES


def test_since_moves_only_when_the_state_changes(board: Board, clock: HandClock) -> None:
    cell = board.claim("capture:a", Kind.CAPTURE)
    cell.state(State.CONNECTING, "first try")
    clock.wall = 2_000
    cell.state(State.CONNECTING, "second try")
    assert (row(board, "capture:a").state_since_ns, row(board, "capture:a").detail) == (1_000, "second try")
    cell.state(State.CAPTURING)
    assert (row(board, "capture:a").state_since_ns, row(board, "capture:a").detail) == (2_000, "")
    assert cell.current_state is State.CAPTURING


def test_the_first_state_is_stamped_also_when_it_is_starting(board: Board) -> None:
    cell = board.claim("capture:a", Kind.CAPTURE)
    cell.state(State.STARTING, "reading the model")
    assert row(board, "capture:a").state_since_ns == 1_000


def test_a_long_detail_is_cut_at_a_character(board: Board) -> None:
    cell = board.claim("capture:a", Kind.CAPTURE)
    cell.state(State.BAD_STREAM, "x" + "é" * 300)
    assert row(board, "capture:a").detail == "x" + "é" * 99


def test_an_allowance_ends_with_the_next_beat(board: Board, clock: HandClock) -> None:
    cell = board.claim("inference:0", Kind.INFERENCE)
    cell.beat(allow_s=30)
    assert cell.allow_s == 30.0
    clock.monotonic = 20.5
    cell.beat()
    assert (cell.allow_s, cell.beat_monotonic_s) == (None, 20.5)


def test_a_clock_read_before_the_beat_gives_no_negative_age(board: Board) -> None:
    cell = board.claim("inference:0", Kind.INFERENCE)
    cell.beat()
    assert row(board, "inference:0", now_s=9.9).beat_age_s == 0.0


def killed_inside(cell: BoardCell, lock_word: int) -> None:
    """What a kill -9 between the two stores of the lock word leaves behind."""
    cell._words[lock_word] += 1


@pytest.mark.parametrize("lock_word", [at.W_STATE_LOCK, at.W_OWNER_LOCK])
def test_a_writer_killed_inside_a_write_blocks_nobody(board: Board, lock_word: int) -> None:
    cell = board.claim("capture:a", Kind.CAPTURE)
    cell.phase(Phase.RUNNING, 5, 0)
    cell.state(State.CAPTURING, "fine")
    killed_inside(cell, lock_word)
    shown = row(board, "capture:a")
    assert (shown.pid, shown.detail) == (5, "fine")
    cell.begin(3_000)
    cell.phase(Phase.STARTING, 6, 1)
    cell.state(State.CONNECTING, "again")
    assert cell._words[lock_word] % 2 == 0
    shown = row(board, "capture:a")
    assert (shown.pid, shown.restarts, shown.detail) == (6, 1, "again")


@contextmanager
def busy_writer(path: Path, index: int) -> Iterator[None]:
    """A process that changes state and detail as fast as it can; killed at the end, wherever it is."""
    pid = os.fork()
    if pid == 0:
        child = Board.open(path).cell(index)
        while True:
            for digit in "0123456789":
                child.state(State.CAPTURING if digit < "5" else State.STALLED, digit * 200)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_texts_are_never_torn_under_a_busy_writer(
    tmp_path: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A writer that lost its core inside a write for as long as the machine is busy is no killed one.
    monkeypatch.setattr(module, "READ_ATTEMPTS", 100_000)
    cell = board.claim("capture:a", Kind.CAPTURE)
    cell.state(State.CAPTURING, "0" * 200)
    seen = set()
    with busy_writer(tmp_path / "board", cell.index):
        for _ in range(3_000):
            shown = row(board, "capture:a")
            assert len(set(shown.detail)) == 1, shown.detail
            assert shown.state is (State.CAPTURING if shown.detail[0] < "5" else State.STALLED)
            seen.add(shown.detail[0])
    assert len(seen) > 1


def check_usable_after_a_kill(board: Board, cell: BoardCell, wall_ns: int) -> None:
    assert row(board, "capture:a").state in (State.CAPTURING, State.STALLED)
    cell.begin(wall_ns)
    assert (row(board, "capture:a").state, row(board, "capture:a").state_since_ns) == (State.STARTING, wall_ns)
    assert cell._words[at.W_STATE_LOCK] % 2 == 0


def test_writers_that_are_killed_anywhere_leave_a_board_that_can_be_read_and_written(
    tmp_path: Path, board: Board
) -> None:
    cell = board.claim("capture:a", Kind.CAPTURE)
    for turn in range(1, 21):
        cell.state(State.CAPTURING, "between")
        with busy_writer(tmp_path / "board", cell.index):
            while row(board, "capture:a").detail == "between":
                pass
        check_usable_after_a_kill(board, cell, wall_ns=turn)


class LastWords:
    """A writer's words; the process dies by kill -9 instead of its `last`-th store."""

    def __init__(self, words: memoryview, last: int) -> None:
        self._words = words
        self._left = last

    def __getitem__(self, word: int) -> int:
        value: int = self._words[word]
        return value

    def __setitem__(self, word: int, value: int) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        self._words[word] = value


def test_writers_that_are_killed_at_each_store_leave_a_board_that_can_be_read_and_written(
    tmp_path: Path, board: Board
) -> None:
    cell = board.claim("capture:a", Kind.CAPTURE)
    store, left_odd = 0, []
    while True:
        store += 1
        cell.state(State.CAPTURING, "between")
        pid = os.fork()
        if pid == 0:
            child = Board.open(tmp_path / "board").cell(cell.index)
            child._words = LastWords(child._words, store)  # type: ignore[assignment]
            child.state(State.STALLED, "x" * 200)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
            break
        left_odd.append(cell._words[at.W_STATE_LOCK] % 2)
        check_usable_after_a_kill(board, cell, wall_ns=store)
    assert left_odd[0] == 0, "killed before the write began"
    assert len(left_odd) > 3
    assert all(left_odd[1:])
    assert row(board, "capture:a").detail == "x" * 200


def test_a_beat_never_shows_the_older_time_with_the_smaller_allowance(board: Board, clock: HandClock) -> None:
    cell = board.claim("inference:0", Kind.INFERENCE)
    stored: list[int] = []

    class Recorder(dict[int, int]):
        def __setitem__(self, word: int, value: int) -> None:
            stored.append(word)
            super().__setitem__(word, value)

    recorder = Recorder({at.W_ALLOW_MS: 5_000, at.W_BEAT_NS: 1})
    cell._words = recorder  # type: ignore[assignment]
    cell.beat(allow_s=30)
    assert stored == [at.W_ALLOW_MS, at.W_BEAT_NS]
    stored.clear()
    cell.beat(allow_s=1)
    cell.beat()
    assert stored == [at.W_BEAT_NS, at.W_ALLOW_MS] * 2


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Let threads change places after almost every step."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_of_one_worker_lose_no_count(board: Board) -> None:
    cell = board.claim("judge:0", Kind.JUDGE)
    threads = [threading.Thread(target=lambda: [cell.add("clips") for _ in range(5_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cell.get("clips") == 20_000


def test_a_board_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"):
        Board.open(tmp_path / "none")


@pytest.mark.parametrize("body", [b"", b"hello", b"\0" * 8192, b"x" * 8192])
def test_a_file_that_is_no_board_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "board").write_bytes(body)
    with pytest.raises(DecodeError, match="no status board"):
        Board.open(tmp_path / "board")


def test_a_board_of_other_tables_is_refused(tmp_path: Path, board: Board) -> None:
    board._words[at.H_TABLES] += 1
    with pytest.raises(DecodeError, match="another version"):
        Board.open(tmp_path / "board")


def test_a_board_cut_short_is_refused(tmp_path: Path) -> None:
    Board.create(tmp_path / "board", "node-1", 1, 1, cells=4)
    os.truncate(tmp_path / "board", at.file_bytes(3))
    with pytest.raises(DecodeError, match="cut short"):
        Board.open(tmp_path / "board")


def test_the_file_is_reserved_and_private(tmp_path: Path, board: Board) -> None:
    found = (tmp_path / "board").stat()
    assert (found.st_size, found.st_mode & 0o777) == (at.file_bytes(4), 0o600)
    assert found.st_blocks * 512 >= found.st_size


def test_no_memory_is_said_with_path_and_size_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(Unavailable, match=rf"board: No space left on device, {at.file_bytes(4)} bytes"):
        Board.create(tmp_path / "board", "node-1", 1, 1, cells=4)
    assert list(tmp_path.iterdir()) == []
