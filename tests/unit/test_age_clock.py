"""The clock of ages: a jump ahead is believed after a day, everything else at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.capture.age_clock import HOLD_S, JUMP_NS, KEEP_S, AgeClock
from nodeagent.contract.ids import NS_PER_S

T = 1_700_000_000 * NS_PER_S
YEAR = 365 * 24 * 3600 * NS_PER_S


def test_time_that_passes_and_small_steps_are_followed(tmp_path: Path) -> None:
    clock = AgeClock(tmp_path / "clock.json", T, 0.0)
    assert clock.now_ns(T + 5 * NS_PER_S, 5.0) == T + 5 * NS_PER_S
    assert clock.now_ns(T + JUMP_NS // 2, 10.0) == T + JUMP_NS // 2


def test_a_jump_ahead_is_believed_after_a_day_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = AgeClock(tmp_path / "clock.json", T, 0.0)
    for hour in range(24):
        passed_s = hour * 3600.0
        assert clock.now_ns(T + YEAR, passed_s) == T + round(passed_s * NS_PER_S)
    assert clock.now_ns(T + YEAR, HOLD_S) == T + YEAR
    assert caplog.text.count("days ahead") == 1


def test_a_jump_that_is_taken_back_leaves_nothing_behind(tmp_path: Path) -> None:
    clock = AgeClock(tmp_path / "clock.json", T, 0.0)
    assert clock.now_ns(T + YEAR, 1.0) == T + NS_PER_S
    assert clock.now_ns(T + 2 * NS_PER_S, 2.0) == T + 2 * NS_PER_S
    # The next jump has a day of its own.
    assert clock.now_ns(T + YEAR, HOLD_S - 1) == T + round((HOLD_S - 1) * NS_PER_S)
    assert clock.now_ns(T + YEAR, 2 * HOLD_S - 2) < T + YEAR


def test_a_clock_that_is_set_back_is_followed_at_once_and_may_come_back_within_a_day(tmp_path: Path) -> None:
    clock = AgeClock(tmp_path / "clock.json", T, 0.0)
    assert clock.now_ns(T - YEAR, 20.0) == T - YEAR
    assert clock.now_ns(T + 30 * NS_PER_S, 30.0) == T + 30 * NS_PER_S
    # Further than it was: that is a jump ahead.
    assert clock.now_ns(T - YEAR, 40.0) == T - YEAR
    assert clock.now_ns(T + YEAR, 50.0) == T + 50 * NS_PER_S
    # After a day it is believed that it was ahead before.
    for hour in range(26):
        behind_ns = T - YEAR + hour * 3600 * NS_PER_S
        assert clock.now_ns(behind_ns, 100.0 + hour * 3600) == behind_ns
    assert clock.now_ns(T + 27 * 3600 * NS_PER_S, 100.0 + 27 * 3600) == T - YEAR + 27 * 3600 * NS_PER_S


def test_a_computer_that_starts_in_the_past_and_hears_the_time_later_ages_clips(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    AgeClock(path, T, 0.0).now_ns(T, 0.0)
    for start in range(1, 4):
        now_ns = T + start * JUMP_NS // 2
        clock = AgeClock(path, 0, 0.0)
        assert clock.now_ns(0, 0.0) == 0
        assert clock.now_ns(5 * NS_PER_S, 5.0) == 5 * NS_PER_S
        assert clock.now_ns(now_ns, 60.0) == now_ns


def test_a_restart_forgets_no_jump(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    clock = AgeClock(path, T, 0.0)
    clock.now_ns(T, 0.0)
    clock.now_ns(T + round(KEEP_S * NS_PER_S), KEEP_S)
    again = AgeClock(path, T + YEAR, 7.0)
    assert again.now_ns(T + YEAR, 8.0) == T + round((KEEP_S + 1) * NS_PER_S)
    path.write_text("half")
    assert AgeClock(path, T + YEAR, 7.0).now_ns(T + YEAR, 8.0) == T + YEAR
