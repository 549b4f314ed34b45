"""Waiting for a condition with a deadline: what tests use instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], within_s: float = 10.0, every_s: float = 0.05) -> T:
    """Call `check` until its result is true, and return it.

    An AssertionError of `check` counts as "not yet".

    Raises:
        AssertionError: it was not true within `within_s`; carries the last result or the last assertion.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            result = check()
            if result:
                return result
            why = f"last result {result!r}"
        except AssertionError as exc:
            why = f"last failure: {exc}"
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within_s} s; {why}")
        time.sleep(every_s)
