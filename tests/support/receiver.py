"""The receiver of pushes that the demo uses too, with ways to fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nodeagent.alarm.receiver import Answer, PushReceiver, ReceivedPush

__all__ = ["Answer", "PushReceiver", "ReceivedPush", "answers"]


def answers(first: Sequence[Answer], then: Answer | None = None) -> Callable[[int], Answer]:
    """The n-th request gets the n-th answer, those beyond them `then` (200)."""
    rest = then or Answer()
    return lambda count: first[count] if count < len(first) else rest
