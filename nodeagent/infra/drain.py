"""When a worker that was told to stop may leave: once its queue is empty, or its time for that is over.

The supervisor stops the stages in the order of the data's way, so what the stage before sent last is still coming.  It
would only be given back to the broker and wait for the next start; finished now, nothing is half-done when the agent is
down.  With a backlog the time limit ends it: what is left stays with the broker.
"""

from __future__ import annotations

from nodeagent.infra.clock import Clock
from nodeagent.infra.stop import Stop


class Drain:
    """Follows one worker's end."""

    def __init__(self, stop: Stop, clock: Clock, limit_s: float) -> None:
        """`limit_s`: seconds from the request after which nothing more is taken."""
        self._stop = stop
        self._clock = clock
        self._limit_s = limit_s
        self._until_s: float | None = None

    def over(self, took: bool) -> bool:
        """Whether to leave; `took`: the last look at the queue, a short wait, found something."""
        if not self._stop.requested:
            return False
        now_s = self._clock.monotonic_s()
        if self._until_s is None:
            # The look before the request says nothing: one more is made, after the stage before has ended.
            self._until_s = now_s + self._limit_s
            return False
        return not took or now_s >= self._until_s
