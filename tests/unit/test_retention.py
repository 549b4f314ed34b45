"""Which clips go: past their age, then the oldest for its weight, no more than needed."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.capture.retention import Excess, Held, Limits, excess, plan

CLIPS = [Held(start_ns=n, size=10, pinned=n == 1, name=str(n)) for n in range(5)]
NOTHING = Excess(0, 0)


def names(todo: Excess) -> list[str]:
    return [held.name for held in plan([(Limits(), CLIPS)], todo, now_ns=100)]


def test_nothing_goes_while_there_is_room() -> None:
    assert names(excess(used=100, quota=100, free=500, reserve=100, disk=1000)) == []


def test_quota_counts_pinned_clips_and_space_does_not() -> None:
    assert names(Excess(over_quota=15, under_reserve=0)) == ["0", "1"]
    assert names(Excess(over_quota=0, under_reserve=15)) == ["0", "1", "2"]
    assert names(Excess(over_quota=1000, under_reserve=0)) == ["0", "1", "2", "3", "4"]


def test_headroom_is_kept_above_the_reserve() -> None:
    assert excess(used=10, quota=100, free=105, reserve=100, disk=1000) == Excess(0, 5)


def test_what_is_past_its_age_goes_whatever_the_space_and_counts_as_space() -> None:
    others = [Held(start_ns=n, size=10, pinned=False, name=f"other {n}") for n in range(5)]
    queues = [(Limits(max_age_ns=97), CLIPS), (Limits(), others)]
    assert [held.name for held in plan(queues, NOTHING, now_ns=100)] == ["0", "1", "2"]
    gone = [held.name for held in plan(queues, Excess(over_quota=40, under_reserve=0), now_ns=100)]
    assert gone == ["0", "1", "2", "other 0"]


def test_where_space_rules_twice_the_weight_is_kept_twice_as_long() -> None:
    light, heavy = (
        [Held(start_ns=n, size=1, pinned=False, name=f"{name} {n}") for n in range(1000)] for name in ("light", "heavy")
    )
    gone = list(plan([(Limits(weight=1), light), (Limits(weight=2), heavy)], Excess(900, 0), now_ns=1000))
    left = {name: 1000 - sum(held.name.startswith(name) for held in gone) for name in ("light", "heavy")}
    assert left["light"] + left["heavy"] == 1100
    assert abs(left["heavy"] - 2 * left["light"]) <= 2


def test_a_queue_is_read_no_further_than_needed() -> None:
    read: list[int] = []

    def listed() -> Iterator[Held]:
        for held in CLIPS:
            read.append(held.start_ns)
            yield held

    assert list(plan([(Limits(), listed())], NOTHING, now_ns=100)) == []
    assert read == []
    assert len(list(plan([(Limits(), listed())], Excess(10, 0), now_ns=100))) == 1
    assert read == [0]
