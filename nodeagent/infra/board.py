"""The status board: one cell of shared memory per child, so that a hang, a death or a fault is seen from outside.

It promises that no reader ever holds up a writer, and that a process killed at any instruction leaves a board that can
be read and written on.  Texts and what belongs to them are guarded by a lock word per writer (odd while it writes);
single numbers are aligned 64-bit stores.  The easy mistake: such stores must go through `memoryview.cast("q")` or numpy
int64 items only; `struct.pack_into` clears the bytes first and readers see that.

A cell has two writers, each with its own words: the supervisor (name, pid, phase, restarts) and the worker (state,
beat, counters).  The supervisor may call `state()` too, but only while the worker cannot: before it starts, when it
hangs, after its death.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from nodeagent.contract.errors import AgentError, DecodeError, Unavailable
from nodeagent.contract.report import ChildRow, Kind, NodeReport, Phase
from nodeagent.contract.states import State
from nodeagent.infra import board_layout as at
from nodeagent.infra.clock import Clock, SystemClock
from nodeagent.infra.fence import fence

#: Attempts of a reader to find a cell at rest, and the pause between two.  A writer is inside for microseconds, one
#: that lost its core for milliseconds; one that was killed there stays odd, and after this (about 30 ms) what is
#: readable is better than nothing.
READ_ATTEMPTS = 400
READ_PAUSE_S = 20e-6
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

_T = TypeVar("_T")
_SYSTEM = SystemClock()


class BoardCell:
    """One child's cell.

    Attributes:
        index: position on the board; what a child is told.
        name: `kind` or `kind:what`.
        kind: decides which counters there are.
    """

    def __init__(self, memory: mmap.mmap, words: memoryview, index: int, clock: Clock) -> None:
        self._memory = memory
        self._offset = at.HEADER_BYTES + index * at.CELL_BYTES
        first = self._offset // at.WORD_BYTES
        self._words = words[first : first + at.CELL_WORDS]
        self._clock = clock
        # Threads of one worker count and change state side by side; other processes never wait for this lock.
        self._threads = threading.Lock()
        self.index = index
        self.name = self._name()
        self.kind = at.KINDS[self._words[at.W_KIND]]
        self._counter_word = at.COUNTER_WORD[self.kind]

    # The worker's side.

    def beat(self, allow_s: float | None = None) -> None:
        """Say that the work loop runs; with `allow_s` the next beat may take that long."""
        now_ns = int(self._clock.monotonic_s() * NS_PER_S)
        allow_ms = 0 if allow_s is None else max(1, int(allow_s * 1000))
        words = self._words
        # The supervisor may look between the two stores: it must never see the older beat with the smaller allowance.
        if allow_ms >= words[at.W_ALLOW_MS]:
            words[at.W_ALLOW_MS] = allow_ms
            fence()
            words[at.W_BEAT_NS] = now_ns
        else:
            words[at.W_BEAT_NS] = now_ns
            fence()
            words[at.W_ALLOW_MS] = allow_ms

    def ready(self) -> None:
        """Say, once per start, that the worker is able to work."""
        self._words[at.W_READY] = 1

    def state(self, state: State, detail: str = "") -> None:
        """Show what the worker is doing; `detail` is one sentence free of secrets, cut to 200 bytes."""
        words, number, text = self._words, at.STATES.index(state), at.cut_text(detail, at.DETAIL_BYTES)
        with self._threads:
            if words[at.W_STATE] == number and text == self._text(at.DETAIL_AT, at.W_DETAIL_LEN, at.DETAIL_BYTES):
                return
            with self._writing(at.W_STATE_LOCK):
                if words[at.W_STATE] != number or words[at.W_SINCE_NS] == 0:
                    words[at.W_SINCE_NS] = self._clock.wall_ns()
                words[at.W_STATE] = number
                self._put_text(at.DETAIL_AT, at.W_DETAIL_LEN, text)

    def add(self, counter: str, n: int = 1) -> None:
        """Raise a counter.  KeyError when this kind has no such counter."""
        word = self._counter_word[counter]
        with self._threads:
            self._words[word] += n

    def set(self, counter: str, value: int) -> None:
        """Store a gauge.  KeyError when this kind has no such counter."""
        self._words[self._counter_word[counter]] = value

    def get(self, counter: str) -> int:
        """A counter's value.  KeyError when this kind has no such counter."""
        return int(self._words[self._counter_word[counter]])

    # The supervisor's side.

    def begin(self, wall_ns: int) -> None:
        """Prepare the cell for a new start of the child: everything of the old one goes but its counters."""
        words = self._words
        words[at.W_READY] = 0
        words[at.W_BEAT_NS] = 0
        words[at.W_ALLOW_MS] = 0
        with self._writing(at.W_OWNER_LOCK):
            words[at.W_PID] = 0
            words[at.W_STARTED_NS] = wall_ns
        with self._writing(at.W_STATE_LOCK):
            words[at.W_STATE] = at.STATES.index(State.STARTING)
            words[at.W_SINCE_NS] = wall_ns
            words[at.W_DETAIL_LEN] = 0

    def phase(self, phase: Phase, pid: int, restarts: int) -> None:
        """Show where the supervisor is with the child."""
        with self._writing(at.W_OWNER_LOCK):
            self._words[at.W_PHASE] = at.PHASES.index(phase)
            self._words[at.W_PID] = pid
            self._words[at.W_RESTARTS] = restarts

    @property
    def is_ready(self) -> bool:
        """Whether the worker said that it is able to work."""
        return bool(self._words[at.W_READY])

    @property
    def beat_monotonic_s(self) -> float | None:
        """When the work loop last showed that it runs; None before the first time."""
        beat_ns: int = self._words[at.W_BEAT_NS]
        return beat_ns / NS_PER_S if beat_ns else None

    @property
    def allow_s(self) -> float | None:
        """How long the worker asked that its next beat may take; None for the usual time."""
        allow_ms: int = self._words[at.W_ALLOW_MS]
        return allow_ms / 1000 if allow_ms else None

    @property
    def current_state(self) -> State:
        """What the worker last said that it does."""
        return at.STATES[self._words[at.W_STATE]]

    def row(self, now_monotonic_s: float) -> ChildRow | None:
        """The cell as a row of the report; None when nobody holds it."""
        owner = self._read(at.W_OWNER_LOCK, self._owner)
        if owner is None:
            return None
        state, since_ns, detail = self._read(at.W_STATE_LOCK, self._state)
        beat_s = self.beat_monotonic_s
        return ChildRow.model_validate(
            owner
            | {
                "state": state,
                "state_since_ns": since_ns,
                "detail": detail,
                "beat_age_s": None if beat_s is None else max(0.0, now_monotonic_s - beat_s),
            }
        )

    # Ownership; called by the board only.

    def holds(self, name: str, kind: Kind) -> bool:
        """Whether the cell belongs, or last belonged, to this child."""
        return self.name == name and self.kind is kind and bool(self._words[at.W_NAME_LEN])

    def take(self, name: str, kind: Kind) -> None:
        """Give the cell to a child.  Another child's counters are cleared, its own are kept."""
        words, own = self._words, self.holds(name, kind)
        with self._writing(at.W_OWNER_LOCK):
            if not own:
                # The cell is free now and `used` is set last: a supervisor killed before that leaves it free.
                for word in range(at.W_KIND, at.W_COUNTERS + at.COUNTERS_MAX):
                    if word != at.W_STATE_LOCK:
                        words[word] = 0
                words[at.W_KIND] = at.KINDS.index(kind)
                self._put_text(at.NAME_AT, at.W_NAME_LEN, name.encode())
            words[at.W_USED] = 1
        self.name, self.kind, self._counter_word = name, kind, at.COUNTER_WORD[kind]

    def leave(self) -> None:
        """Free the cell; name and counters stay until another child takes it."""
        with self._writing(at.W_OWNER_LOCK):
            self._words[at.W_USED] = 0

    @property
    def is_used(self) -> bool:
        """Whether a child holds the cell."""
        return bool(self._words[at.W_USED])

    @property
    def is_blank(self) -> bool:
        """Whether no child ever held the cell."""
        return not self._words[at.W_NAME_LEN]

    def _owner(self) -> dict[str, object] | None:
        words = self._words
        if not words[at.W_USED]:
            return None
        kind = at.KINDS[words[at.W_KIND]]
        return {
            "name": self._name(),
            "kind": kind,
            "pid": words[at.W_PID],
            "phase": at.PHASES[words[at.W_PHASE]],
            "restarts": words[at.W_RESTARTS],
            "started_ns": words[at.W_STARTED_NS],
            "counters": {name: words[word] for name, word in at.COUNTER_WORD[kind].items()},
        }

    def _state(self) -> tuple[State, int, str]:
        text = self._text(at.DETAIL_AT, at.W_DETAIL_LEN, at.DETAIL_BYTES)
        return self.current_state, self._words[at.W_SINCE_NS], text.decode("utf-8", "replace")

    def _name(self) -> str:
        return self._text(at.NAME_AT, at.W_NAME_LEN, at.NAME_BYTES).decode("utf-8", "replace")

    def _text(self, text_at: int, length_word: int, limit: int) -> bytes:
        start = self._offset + text_at
        return self._memory[start : start + min(self._words[length_word], limit)]

    def _put_text(self, text_at: int, length_word: int, text: bytes) -> None:
        start = self._offset + text_at
        self._memory[start : start + len(text)] = text
        self._words[length_word] = len(text)

    @contextmanager
    def _writing(self, lock_word: int) -> Iterator[None]:
        """Keep the lock word odd meanwhile.  One that a killed writer left odd moves on, to odd again."""
        before: int = self._words[lock_word]
        odd = before + 2 if before & 1 else before + 1
        self._words[lock_word] = odd
        fence()
        yield
        fence()
        self._words[lock_word] = odd + 1

    def _read(self, lock_word: int, look: Callable[[], _T]) -> _T:
        """What `look` finds while nobody writes; after READ_ATTEMPTS what it finds anyway."""
        for _ in range(READ_ATTEMPTS):
            before: int = self._words[lock_word]
            if not before & 1:
                fence()
                seen = look()
                fence()
                if self._words[lock_word] == before:
                    return seen
            time.sleep(READ_PAUSE_S)
        return look()


class Board:
    """All cells of one node, in a file on tmpfs that the supervisor makes and everybody maps.

    Cells are handed out by the supervisor alone.
    """

    def __init__(self, memory: mmap.mmap, clock: Clock) -> None:
        self._memory = memory
        self._words = memoryview(memory).cast("q")
        self._clock = clock
        self._cells = [BoardCell(memory, self._words, i, clock) for i in range(self._words[at.H_CELLS])]

    @classmethod
    def create(
        cls, path: Path, node_id: str, agent_pid: int, started_ns: int, cells: int = 1024, clock: Clock = _SYSTEM
    ) -> Board:
        """Make the node's board; a board already at `path` is replaced, its readers keep the old one.

        Raises:
            Unavailable: no memory or no permission; the message names the path and the size.
        """
        size = at.file_bytes(cells)
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            memory = _make_file(beside, size)
            words = memoryview(memory).cast("q")
            node = node_id.encode()[: at.NODE_BYTES]
            memory[at.NODE_AT : at.NODE_AT + len(node)] = node
            words[at.H_CELLS] = cells
            words[at.H_AGENT_PID] = agent_pid
            words[at.H_STARTED_NS] = started_ns
            words[at.H_NODE_LEN] = len(node)
            words[at.H_TABLES] = at.TABLES
            words[at.H_MAGIC] = at.MAGIC
            # Complete before it has its name: who can open it can read it.
            beside.replace(path)
        except OSError as exc:
            beside.unlink(missing_ok=True)
            raise Unavailable(f"status board {path}: {exc.strerror}, {size} bytes wanted") from exc
        return cls(memory, clock)

    @classmethod
    def open(cls, path: Path, clock: Clock = _SYSTEM) -> Board:
        """Map the board of a running node.

        Raises:
            Unavailable: it is not there, or not ours to open.
            DecodeError: the file is no board, or one of a nodeagent with other tables.
        """
        try:
            memory = _map_file(path)
        except OSError as exc:
            raise Unavailable(f"status board {path}: {exc.strerror}") from exc
        words = memoryview(memory).cast("q")
        if words[at.H_MAGIC] != at.MAGIC:
            raise DecodeError(f"{path} is no status board")
        if words[at.H_TABLES] != at.TABLES:
            raise DecodeError(f"{path} is the status board of another version of nodeagent")
        if words[at.H_CELLS] < 0 or at.file_bytes(words[at.H_CELLS]) > len(memory):
            raise DecodeError(f"{path} is a status board cut short")
        return cls(memory, clock)

    def claim(self, name: str, kind: Kind) -> BoardCell:
        """The child's cell: the one that it has or had, with its counters, or a free one.

        Raises:
            AgentError: every cell is taken, or the name is too long.
        """
        if not 0 < len(name.encode()) <= at.NAME_BYTES:
            raise AgentError(f"status board: a name has 1 to {at.NAME_BYTES} bytes: {name!r}")
        cell = self._find(name, kind) or self._free()
        if cell is None:
            raise AgentError(f"status board: all {len(self._cells)} cells are taken, none left for {name}")
        if not cell.is_used:
            cell.take(name, kind)
        return cell

    def release(self, name: str) -> None:
        """Free a child's cell; harmless when it has none."""
        for cell in self._cells:
            if cell.is_used and cell.name == name:
                cell.leave()

    def cell(self, index: int) -> BoardCell:
        """A cell by its position, as it stands now; what a child calls once.

        Raises:
            AgentError: there is no such cell.
        """
        if not 0 <= index < len(self._cells):
            raise AgentError(f"status board: there is no cell {index}")
        return BoardCell(self._memory, self._words, index, self._clock)

    def report(self, now_monotonic_s: float, version: str, host: str) -> NodeReport:
        """Everything that the board shows, sorted by kind and name."""
        rows = [row for cell in self._cells if (row := cell.row(now_monotonic_s)) is not None]
        rows.sort(key=lambda row: (at.KINDS.index(row.kind), row.name))
        words = self._words
        node = self._memory[at.NODE_AT : at.NODE_AT + words[at.H_NODE_LEN]]
        return NodeReport(
            node_id=node.decode("utf-8", "replace"),
            host=host,
            version=version,
            agent_pid=words[at.H_AGENT_PID],
            started_ns=words[at.H_STARTED_NS],
            rows=tuple(rows),
        )

    def _find(self, name: str, kind: Kind) -> BoardCell | None:
        return next((cell for cell in self._cells if cell.holds(name, kind)), None)

    def _free(self) -> BoardCell | None:
        """A cell nobody ever had, before one whose last child may come back for its counters."""
        blank = next((cell for cell in self._cells if cell.is_blank), None)
        return blank or next((cell for cell in self._cells if not cell.is_used), None)


def _make_file(path: Path, size: int) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        # Reserved now: a sparse file on a full tmpfs would kill its writers with SIGBUS later.
        os.posix_fallocate(fd, 0, size)
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)


def _map_file(path: Path) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        if size < at.HEADER_BYTES or size % at.WORD_BYTES:
            raise DecodeError(f"{path} is no status board")
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)
