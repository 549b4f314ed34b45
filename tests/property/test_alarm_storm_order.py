"""Whatever order alarms come in, no hour holds more that are told of than the rule lets through."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.alarm.storm import HOUR_NS, is_braked
from tests.support.alarms import T0

#: Hours are cut into so many steps, so that many alarms are just an hour apart.
STEPS = 6
times = st.lists(st.integers(0, 4 * STEPS).map(lambda n: T0 + n * HOUR_NS // STEPS), max_size=25)


def decided(arriving: list[int], per_hour: int) -> tuple[list[int], list[int]]:
    """Times of those that are told of and those that are held, each as it comes."""
    told: list[int] = []
    held: list[int] = []
    for at in arriving:
        (held if is_braked([*told, *held], at, per_hour) else told).append(at)
    return told, held


@given(times, st.integers(1, 6))
def test_no_hour_tells_of_more_than_the_rule_lets_through(arriving: list[int], per_hour: int) -> None:
    told, held = decided(arriving, per_hour)
    told.sort()
    assert all(bisect_left(told, at + HOUR_NS) - bisect_left(told, at) <= per_hour for at in told)
    assert sorted(told + held) == sorted(arriving)


@given(times, st.integers(1, 6))
def test_in_their_order_an_alarm_is_held_when_as_many_came_within_the_hour_before(
    arriving: list[int], per_hour: int
) -> None:
    arriving.sort()
    expected = [at for n, at in enumerate(arriving) if n - bisect_left(arriving, at - HOUR_NS + 1, hi=n) >= per_hour]
    assert decided(arriving, per_hour)[1] == expected


@given(times, st.integers(1, 6))
def test_the_nearest_alarms_on_each_side_are_enough(arriving: list[int], per_hour: int) -> None:
    *others, at = [*arriving, T0 + 2 * HOUR_NS]
    before = sorted(other for other in others if other <= at)[-per_hour:]
    after = sorted(other for other in others if other > at)[:per_hour]
    assert is_braked(others, at, per_hour) == is_braked(before + after, at, per_hour)
