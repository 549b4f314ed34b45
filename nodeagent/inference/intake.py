"""Which clip is served next: the oldest in hand, this node's own first.

After an outage the older clips lie in `clips.spill` and the fresh ones in the node's own queue.  Served as they arrive,
fresh ones would overtake: the judge then waits a while for those before them, and what is still in the spill when that
is over is missing for good.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodeagent.contract.clip import ClipTask
from nodeagent.contract.codec import decode_clip_task
from nodeagent.contract.errors import DecodeError
from nodeagent.inference.work import Alien
from nodeagent.infra.bus.port import Bus, Delivery

#: Tasks taken from the broker and not settled, of each queue: at most three are under way (one read, one in the engine,
#: one published), so there is always one of each queue to choose from.
PREFETCH = 4
#: Tasks among which the oldest is chosen: all that both queues give at a time.
CHOICE_MAX = 2 * PREFETCH
#: Seconds for which the first choice waits for more: the two queues do not begin at the same moment.
GATHER_S = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A clip task and the delivery that brought it."""

    delivery: Delivery
    task: ClipTask


class Intake:
    """Takes what the broker gives and hands it out by age.  One thread."""

    def __init__(self, node_id: str, bus: Bus) -> None:
        self._node_id = node_id
        self._bus = bus
        self._waiting: list[Taken] = []
        self._gather_s = GATHER_S

    def next(self, wait_s: float) -> Taken | Alien | None:
        """The task whose turn it is, or a message that is none; None when nothing comes in `wait_s`."""
        while len(self._waiting) < CHOICE_MAX:
            delivery = self._bus.get(self._gather_s if self._waiting else wait_s)
            if delivery is None:
                break
            try:
                self._waiting.append(Taken(delivery, decode_clip_task(delivery.message)))
            except DecodeError as exc:
                return Alien(delivery, str(exc))
        if not self._waiting:
            return None
        self._gather_s = 0.0
        first = min(self._waiting, key=lambda taken: (taken.task.node_id != self._node_id, taken.task.start_ns))
        self._waiting.remove(first)
        return first
