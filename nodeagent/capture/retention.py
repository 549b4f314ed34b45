"""Which clips go: those past the age that their class allows, and more when a disk is short of space.  Pure.

Clips of cameras that share their limits are one queue, oldest first.  What a disk has too much is taken from the queue
whose oldest clip is oldest for its weight: where space rules, a class of weight 2 keeps its clips twice as long as one
of weight 1, however many cameras either has, and no class is emptied for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: Part of a disk that is kept free on top of the reserve, so that recording never meets the edge; 1 / this.
HEADROOM_PART = 100


@dataclass(frozen=True, slots=True)
class Held:
    """One clip on a disk.

    Attributes:
        start_ns: capture time of its start: the oldest go first.
        size: bytes.
        pinned: another name keeps its bytes on the disk, so deleting this one frees quota but no space.
        name: the caller's handle.
    """

    start_ns: int
    size: int
    pinned: bool
    name: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How long clips stay.

    Attributes:
        max_age_ns: older ones go, by their start; none: only when space is short.
        weight: how long they stay when it is, relative to others.
    """

    max_age_ns: int | None = None
    weight: float = 1.0

    def too_old_before(self, now_ns: int) -> int | None:
        """Clips that start before this are past their age; None when none ever is."""
        return None if self.max_age_ns is None else now_ns - self.max_age_ns


@dataclass(frozen=True, slots=True)
class Excess:
    """What has to go, bytes: so much of the quota, and so much of the disk."""

    over_quota: int
    under_reserve: int

    def __bool__(self) -> bool:
        return self.over_quota > 0 or self.under_reserve > 0

    def without(self, held: Held) -> Excess:
        """What has to go still when this clip is deleted."""
        return Excess(self.over_quota - held.size, self.under_reserve - (0 if held.pinned else held.size))


@dataclass(slots=True)
class _Queue:
    limits: Limits
    rest: Iterator[Held]
    head: Held | None = None

    def peek(self) -> Held | None:
        """The oldest clip that is left."""
        if self.head is None:
            self.head = next(self.rest, None)
        return self.head

    def age(self, now_ns: int) -> float:
        """Age of the oldest clip for its weight; less than any other when there is none."""
        held = self.peek()
        return float("-inf") if held is None else (now_ns - held.start_ns) / self.limits.weight


def excess(used: int, quota: int, free: int, reserve: int, disk: int) -> Excess:
    """What has to go from a disk of `disk` bytes with `free` left, on which clips take `used`."""
    return Excess(max(0, used - quota), max(0, reserve + disk // HEADROOM_PART - free))


def plan(queues: Iterable[tuple[Limits, Iterable[Held]]], todo: Excess, now_ns: int) -> Iterator[Held]:
    """The clips to delete, no more than needed.  Lazy: later ones are not even listed when the first ones do.

    Args:
        queues: clips that share their limits, oldest first.
        todo: what has to go for the sake of space.
        now_ns: wall clock, UTC ns.
    """
    all_queues = [_Queue(limits, iter(clips)) for limits, clips in queues]
    for queue in all_queues:
        before_ns = queue.limits.too_old_before(now_ns)
        while before_ns is not None and (held := queue.peek()) is not None and held.start_ns < before_ns:
            yield held
            queue.head, todo = None, todo.without(held)
    while todo and all_queues:
        queue = max(all_queues, key=lambda queue: queue.age(now_ns))
        held = queue.peek()
        if held is None:
            return
        yield held
        queue.head, todo = None, todo.without(held)
