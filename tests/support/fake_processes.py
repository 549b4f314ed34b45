"""Processes that only a test ends, for the supervisor's thinking without a single fork."""

from __future__ import annotations

import itertools
import signal
from dataclasses import dataclass, field

from nodeagent.contract.errors import Unavailable
from nodeagent.supervisor.child import Order

_numbers = itertools.count(1000)


class TurnedClock:
    """Time that the test turns."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ns(self) -> int:
        return int(self.now_s * 1e9)


@dataclass
class FakeProcess:
    """A process that obeys nothing but KILL until the test ends it."""

    order: Order
    pid: int = field(default_factory=lambda: next(_numbers))
    code: int | None = None
    got: list[signal.Signals] = field(default_factory=list)

    @property
    def pidfd(self) -> int:
        return self.pid

    def send(self, *signals: signal.Signals) -> None:
        self.got += signals
        if signal.SIGKILL in signals:
            self.code = -signal.SIGKILL

    def reap(self) -> int:
        assert self.code is not None, "reaped alive"
        return self.code


class FakeStarter:
    """Makes such processes; `broken` while the fork server cannot."""

    preload = "p"
    server_pidfd = None

    def __init__(self) -> None:
        self.processes: list[FakeProcess] = []
        self.broken = False

    def start(self, order: Order) -> FakeProcess:
        if self.broken:
            raise Unavailable("no fork server")
        self.processes.append(FakeProcess(order))
        return self.processes[-1]

    def alive(self) -> list[FakeProcess]:
        return [process for process in self.processes if process.code is None]
