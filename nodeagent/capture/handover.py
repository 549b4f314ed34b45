"""Events from the thread that reads a source to the loop that takes them, at no cost worth naming per event.

One thread puts, one takes.  The taker that looks now and then and takes all that is there is never woken: waking a
thread for each packet would cost more than copying the packet does.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

#: Between two looks for room while the taker lags, seconds.
_LOOK_S = 0.02


class Handover(Generic[T]):
    """A bounded queue for one thread on each side."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: deque[T] = deque()
        self._there = threading.Event()
        self._waiting = False

    def put(self, item: T, timeout_s: float) -> bool:
        """Append the item; False when there was no room for it in that time."""
        until_s: float | None = None
        while len(self._items) >= self._most:
            now_s = time.monotonic()
            until_s = now_s + timeout_s if until_s is None else until_s
            if now_s >= until_s:
                return False
            time.sleep(_LOOK_S)
        self._items.append(item)
        # The taker says that it waits before it looks for the last time, so one of the two sees the other.
        if self._waiting:
            self._there.set()
        return True

    def get(self, timeout_s: float) -> T | None:
        """The oldest item; None when none comes in that time."""
        if not self._items and timeout_s > 0:
            self._there.clear()
            self._waiting = True
            if not self._items:
                self._there.wait(timeout_s)
            self._waiting = False
        return self._items.popleft() if self._items else None
