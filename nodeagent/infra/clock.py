"""Time, handed in through constructors so that tests can turn it.

Monotonic time measures durations; the wall clock is only for records and messages.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a worker needs to know about time."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds of a clock that never goes back, the same for all processes of a machine."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Seconds since boot."""
        return time.monotonic()
