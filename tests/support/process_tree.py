"""All processes of an agent: its supervisor's, its fork server's and their children's."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def tree_of(pid: int) -> list[int]:
    """A process and all of its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, ())
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def freeze(root: int) -> list[int]:
    """SIGSTOP of a process and all of its descendants, which may start some meanwhile; returns their pids."""
    frozen: list[int] = []
    while fresh := [pid for pid in tree_of(root) if pid not in frozen]:
        for pid in fresh:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        frozen += fresh
    return frozen


def thaw(pids: list[int]) -> None:
    """SIGCONT of those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
