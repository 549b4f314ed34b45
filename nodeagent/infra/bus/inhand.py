"""What a process has taken from its queues and not settled yet.

Thread-safe.  The adapter's threads put deliveries in, the stage's threads take and settle them; a delivery that was
lost (connection gone, taken over by somebody else) leaves at once, so that it is neither handed out nor settled.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from nodeagent.infra.bus.port import Delivery

#: Is told a queue and how many of its messages are in hand, at every change, in the thread that makes it: to be quick.
Tell = Callable[[str, int], None]


def tell_nobody(_queue: str, _count: int) -> None:
    """For those who need not know."""


class InHand:
    """Unsettled deliveries by queue and tag, and those among them that nobody has asked for yet, in order."""

    def __init__(self, tell: Tell = tell_nobody) -> None:
        self._tell = tell
        self._changed = threading.Condition()
        self._held: dict[str, dict[object, Delivery]] = {}
        self._inbox: deque[Delivery] = deque()

    def put(self, delivery: Delivery) -> bool:
        """Take it in; False when it is here already."""
        with self._changed:
            held = self._held.setdefault(delivery.queue, {})
            if delivery.tag in held:
                return False
            held[delivery.tag] = delivery
            self._tell(delivery.queue, len(held))
            self._inbox.append(delivery)
            self._changed.notify_all()
            return True

    def next(self, timeout_s: float) -> Delivery | None:
        """The oldest one that was not handed out yet; None after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                while self._inbox:
                    delivery = self._inbox.popleft()
                    if self._has(delivery):
                        return delivery
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return None
                self._changed.wait(left_s)

    def holds(self, delivery: Delivery) -> bool:
        """Whether it is still ours to settle."""
        with self._changed:
            return self._has(delivery)

    def remove(self, delivery: Delivery) -> bool:
        """Let go of it; False when it was not here any more."""
        with self._changed:
            if not self._has(delivery):
                return False
            held = self._held[delivery.queue]
            del held[delivery.tag]
            self._tell(delivery.queue, len(held))
            self._changed.notify_all()
            return True

    def tags(self, queue: str) -> list[object]:
        """Tags of what is held of this queue."""
        with self._changed:
            return list(self._held.get(queue, ()))

    def lose(self, queue: str, tags: Collection[object]) -> None:
        """Forget these: somebody else has them by now."""
        with self._changed:
            held = self._held.get(queue, {})
            for tag in tags:
                held.pop(tag, None)
            self._tell(queue, len(held))
            self._changed.notify_all()

    def lose_all(self) -> None:
        """Forget everything: the connection that it came by is gone."""
        with self._changed:
            for queue in self._held:
                self._tell(queue, 0)
            self._held.clear()
            self._inbox.clear()
            self._changed.notify_all()

    def everything(self) -> list[Delivery]:
        """All that is held, of every queue."""
        with self._changed:
            return [delivery for held in self._held.values() for delivery in held.values()]

    def room(self, queue: str, prefetch: int, timeout_s: float) -> int:
        """How many more of this queue may be taken; waits up to `timeout_s` for at least one."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._held.get(queue, ())) < prefetch, timeout_s)
            return max(0, prefetch - len(self._held.get(queue, ())))

    def wake(self) -> None:
        """Have everyone who waits look again."""
        with self._changed:
            self._changed.notify_all()

    def _has(self, delivery: Delivery) -> bool:
        return self._held.get(delivery.queue, {}).get(delivery.tag) is delivery
