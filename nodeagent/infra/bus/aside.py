"""Tells the status board how much lies in a stage's dead-letter queue: nobody takes it from there but a person."""

from __future__ import annotations

from nodeagent.contract.errors import Unavailable
from nodeagent.infra.board import BoardCell
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.topology import dead_queue
from nodeagent.infra.clock import Clock

#: Seconds between two looks: each is one question to the broker.
LOOK_S = 10.0


class AsideWatch:
    """The dead-letter queue of what a worker consumes from `queue`."""

    def __init__(self, bus: Bus, queue: str, cell: BoardCell, clock: Clock) -> None:
        self._bus, self._queue, self._cell, self._clock = bus, dead_queue(queue), cell, clock
        self._due_s = 0.0

    def look(self) -> None:
        """Count what lies there, if it is time to; keeps the last count while the broker is away."""
        if self._clock.monotonic_s() < self._due_s or not self._bus.connected:
            return
        self._due_s = self._clock.monotonic_s() + LOOK_S
        try:
            count = self._bus.depth(self._queue)
        except Unavailable:
            return
        if bool(count) != bool(self._cell.get("put_aside")):
            self._cell.set("put_aside_ns", self._clock.wall_ns() if count else 0)
        self._cell.set("put_aside", count)
