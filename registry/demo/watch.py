"""Who captures what: read from each node's status board, where the captures themselves write, not from the registry.

So what the demo says of a camera does not depend on what the registry believes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nodeagent.contract.errors import AgentError
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.report import ChildRow, Kind, Phase
from nodeagent.contract.states import State
from nodeagent.infra.board import Board
from nodeagent.infra.incarnation import live_board_path

#: A capture whose newest sample is older than this is none at the moment, ns: five samples come per second.
FRESH_NS = 2 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Capture:
    """One process that gets a camera's pictures.

    Attributes:
        pid: of the process.
        last_sample_ns: capture time of its newest sample, UTC ns.
        epoch: with which it records.
    """

    node: str
    pid: int
    last_sample_ns: int
    epoch: int


def captures(state_dirs: Mapping[str, Path], now_ns: int) -> dict[str, list[Capture]]:
    """By camera: every process that gets its pictures now (wall clock `now_ns`, UTC), on whichever node."""
    found: dict[str, list[Capture]] = {}
    for node, state_dir in state_dirs.items():
        for row in _rows(state_dir):
            if is_capturing(row, now_ns):
                capture = Capture(node, row.pid, row.counters["last_sample_ns"], row.counters["epoch"])
                found.setdefault(row.name.partition(":")[2], []).append(capture)
    return found


def is_capturing(row: ChildRow, now_ns: int) -> bool:
    """Whether this is a capture that gets pictures."""
    return (
        row.kind is Kind.CAPTURE
        and row.phase is Phase.RUNNING
        and row.state is State.CAPTURING
        and now_ns - row.counters["last_sample_ns"] < FRESH_NS
    )


def once_each(found: Mapping[str, list[Capture]], cameras: tuple[str, ...]) -> bool:
    """Whether each of the cameras is captured by exactly one process."""
    return all(len(found.get(camera, ())) == 1 for camera in cameras)


def _rows(state_dir: Path) -> tuple[ChildRow, ...]:
    try:
        # None: no agent lives there; its lock is not held.
        path = live_board_path(state_dir)
        return () if path is None else Board.open(path).report(time.monotonic(), "", "").rows
    except AgentError:
        # It ended, or begins, just now.
        return ()
