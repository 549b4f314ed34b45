"""The connection to a source as a state machine, with delays between attempts.  Pure: time and chance are arguments.

Attempts never end: a camera that comes back after a month is recorded again.  Only a file at its end is done.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from nodeagent.contract.phases import step
from nodeagent.contract.states import State

#: A stream that ran this long was good: the next failure starts at the shortest delay again, seconds.
GOOD_AFTER_S = 10.0


class Phase(StrEnum):
    """Where the link is."""

    WAITING = "waiting"
    OPENING = "opening"
    STREAMING = "streaming"
    ENDED = "ended"


class Event(StrEnum):
    """What happens to it."""

    OPEN = "open"
    OPENED = "opened"
    FAILED = "failed"
    FINISHED = "finished"


NEXT: dict[Phase, dict[Event, Phase]] = {
    Phase.WAITING: {Event.OPEN: Phase.OPENING},
    Phase.OPENING: {Event.OPENED: Phase.STREAMING, Event.FAILED: Phase.WAITING, Event.FINISHED: Phase.ENDED},
    Phase.STREAMING: {Event.FAILED: Phase.WAITING, Event.FINISHED: Phase.ENDED},
    Phase.ENDED: {},
}


class Link:
    """One camera's connection; `chance` returns a number in [0, 1)."""

    def __init__(self, first_delay_s: float, longest_delay_s: float, chance: Callable[[], float]) -> None:
        self._first_s = first_delay_s
        self._longest_s = longest_delay_s
        self._chance = chance
        self._delay_s = first_delay_s
        self._streaming_since_s: float | None = None
        self.phase = Phase.WAITING
        self.state = State.CONNECTING
        self.detail = ""
        self.retry_at_s = 0.0

    def due(self, now_s: float) -> bool:
        """Whether it is time to open the source."""
        return self.phase is Phase.WAITING and now_s >= self.retry_at_s

    def open(self) -> None:
        """The source is being opened.  The state stays: it tells why the attempt before failed."""
        self.phase = step(NEXT, self.phase, Event.OPEN)

    def opened(self, now_s: float) -> None:
        """The source delivers."""
        self.phase = step(NEXT, self.phase, Event.OPENED)
        self._streaming_since_s = now_s
        self.state, self.detail = State.CAPTURING, ""

    def failed(self, state: State, detail: str, now_s: float) -> None:
        """The source failed; the next attempt comes after a delay that doubles, with jitter against herds."""
        self.phase = step(NEXT, self.phase, Event.FAILED)
        since_s, self._streaming_since_s = self._streaming_since_s, None
        if since_s is not None and now_s - since_s >= GOOD_AFTER_S:
            self._delay_s = self._first_s
        self.state, self.detail = state, detail
        self.retry_at_s = now_s + self._delay_s * (0.5 + self._chance())
        self._delay_s = min(self._longest_s, self._delay_s * 2)

    def finished(self) -> None:
        """A file is at its end."""
        self.phase = step(NEXT, self.phase, Event.FINISHED)
        self.state, self.detail = State.SOURCE_ENDED, "the file is at its end"
