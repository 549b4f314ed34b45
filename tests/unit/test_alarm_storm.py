"""When the hour of a rule is full, when a storm is over, and the keys and words of what is told of it."""

from __future__ import annotations

import pytest

from nodeagent.alarm.storm import HOUR_NS, SETTLED_NS, began_text, is_braked, is_over, over_text, summary_key
from nodeagent.contract.ids import NS_PER_S
from tests.support.alarms import T0

MINUTE = 60 * NS_PER_S


@pytest.mark.parametrize(
    ("others", "at", "per_hour", "braked"),
    [
        ([], 0, 1, False),
        ([0], 0, 1, True),
        ([0, 10], 20, 3, False),
        ([0, 10, 15], 20, 3, True),
        # One that is older by just an hour is of another hour.
        ([0, 10], 60, 2, False),
        ([1, 10], 60, 2, True),
        # Late, with others behind it; and between both, where no single hour holds enough.
        ([30, 40], 20, 2, True),
        ([0, 70], 35, 2, False),
        ([0, 59], 35, 2, True),
        ([0, 1, 2, 3, 4], 5, 0, False),
    ],
)
def test_the_hour_around_an_alarm_is_full_or_not(others: list[int], at: int, per_hour: int, braked: bool) -> None:
    shuffled = [T0 + other * MINUTE for other in reversed(others)]
    assert is_braked(shuffled, T0 + at * MINUTE, per_hour) is braked


def test_a_storm_is_over_after_an_hour_of_its_camera_and_when_no_more_of_it_comes() -> None:
    assert not is_over(T0, T0, T0 + HOUR_NS - 1)
    assert is_over(T0, T0, T0 + HOUR_NS)
    # A backlog is judged hours later: alarms of that time may still come.
    late = T0 + 5 * HOUR_NS
    assert not is_over(T0, late, late + SETTLED_NS - 1)
    assert is_over(T0, late, late + SETTLED_NS)


def test_start_and_end_of_a_storm_have_keys_of_their_own() -> None:
    keys = {summary_key(*names, over=over) for names in (("a", "b", "k"), ("a", "b", "l")) for over in (True, False)}
    assert len(keys) == 4 and {len(key) for key in keys} == {32}
    assert summary_key("a", "b", "k", over=True) in keys
    assert began_text("gate", "yard", 1).endswith(": 1 alarm within the hour, further ones are recorded only")
    assert over_text("gate", "yard", 12).endswith(": the storm is over, 12 alarms more recorded and not told")
