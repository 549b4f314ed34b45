"""Oldest first, no more than needed."""

from __future__ import annotations

from nodeagent.capture.retention import Excess, Held, excess, plan

CLIPS = [Held(start_ns=n, size=10, pinned=n == 1, name=str(n)) for n in range(5)]


def names(todo: Excess) -> list[str]:
    return [held.name for held in plan(CLIPS, todo)]


def test_nothing_goes_while_there_is_room() -> None:
    assert names(excess(used=100, quota=100, free=500, reserve=100, disk=1000)) == []


def test_quota_counts_pinned_clips_and_space_does_not() -> None:
    assert names(Excess(over_quota=15, under_reserve=0)) == ["0", "1"]
    assert names(Excess(over_quota=0, under_reserve=15)) == ["0", "1", "2"]
    assert names(Excess(over_quota=1000, under_reserve=0)) == ["0", "1", "2", "3", "4"]


def test_headroom_is_kept_above_the_reserve() -> None:
    assert excess(used=10, quota=100, free=105, reserve=100, disk=1000) == Excess(0, 5)
