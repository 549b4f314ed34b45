"""Tells the status board how much lies in a worker's dead-letter queue: nobody takes it from there but a person."""

from __future__ import annotations

import threading

from nodeagent.contract.errors import Unavailable
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.topology import dead_queue
from nodeagent.infra.worker import WorkerContext

#: Seconds between two looks: each is one question to the broker.
LOOK_S = 10.0


def watch_aside(ctx: WorkerContext, bus: Bus, queue: str, every_s: float = LOOK_S) -> None:
    """Count, until the worker is told to stop, what was put aside by consumers of `queue`.

    In a thread of its own, for a broker that hangs may take its time to answer.  While it is away the last count stays.
    """

    def run() -> None:
        while not ctx.stop.wait(every_s):
            if bus.connected:
                _look(ctx, bus, dead_queue(queue))

    threading.Thread(target=run, name="bus-aside", daemon=True).start()


def _look(ctx: WorkerContext, bus: Bus, dead: str) -> None:
    try:
        count = bus.depth(dead)
    except Unavailable:
        return
    if bool(count) != bool(ctx.cell.get("put_aside")):
        ctx.cell.set("put_aside_ns", ctx.clock.wall_ns() if count else 0)
    ctx.cell.set("put_aside", count)
