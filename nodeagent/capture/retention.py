"""Which clips go when a disk is over its quota or under its reserve.  Pure."""

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
class Excess:
    """What has to go, bytes: so much of the quota, and so much of the disk."""

    over_quota: int
    under_reserve: int


def excess(used: int, quota: int, free: int, reserve: int, disk: int) -> Excess:
    """What has to go from a disk of `disk` bytes with `free` left, on which clips take `used`."""
    return Excess(max(0, used - quota), max(0, reserve + disk // HEADROOM_PART - free))


def plan(oldest_first: Iterable[Held], todo: Excess) -> Iterator[Held]:
    """The clips to delete, no more than needed.  Lazy: later ones are not even listed when the first ones do."""
    over_quota, under_reserve = todo.over_quota, todo.under_reserve
    if over_quota <= 0 and under_reserve <= 0:
        return
    for held in oldest_first:
        yield held
        over_quota -= held.size
        under_reserve -= 0 if held.pinned else held.size
        if over_quota <= 0 and under_reserve <= 0:
            return
