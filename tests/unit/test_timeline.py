"""Capture times grow by the stream's own spacing, whatever its stamps do."""

from __future__ import annotations

import itertools

import pytest

from nodeagent.capture.timeline import DRIFT_NS, WINDOW_NS, Timeline
from nodeagent.contract.ids import NS_PER_S

NOW = 1_700_000_000 * NS_PER_S
STEP = NS_PER_S // 25


def run(line: Timeline, stamps: list[int | None], arrivals: list[int], gop: int = 25) -> list[int]:
    pairs = zip(stamps, arrivals, strict=True)
    return [line.stamp(pts, arrival, key=n % gop == 0) for n, (pts, arrival) in enumerate(pairs)]


def test_jitter_of_arrival_does_not_move_frames() -> None:
    stamps = [n * STEP for n in range(500)]
    arrivals = [NOW + n * STEP + (n * 7919 % 30) * 1_000_000 for n in range(500)]
    times = run(Timeline(), stamps, arrivals)
    assert {b - a for a, b in itertools.pairwise(times)} == {STEP}
    assert times[0] == NOW


@pytest.mark.parametrize("jump", [-(2**32) * NS_PER_S // 90_000, 3600 * NS_PER_S, -5 * NS_PER_S])
def test_a_jump_of_the_stamps_is_no_jump_of_time(jump: int) -> None:
    stamps = [n * STEP + (jump if n >= 40 else 0) for n in range(80)]
    times = run(Timeline(), stamps, [NOW + n * STEP for n in range(80)])
    # The wrap of a counter is no whole number of nanoseconds.
    assert {b - a for a, b in itertools.pairwise(times)} <= {STEP - 1, STEP, STEP + 1}


def test_missing_stamps_are_filled_in() -> None:
    stamps: list[int | None] = [None, *(n * STEP for n in range(1, 10)), None, *(n * STEP for n in range(11, 20))]
    times = run(Timeline(), stamps, [NOW + n * STEP for n in range(20)])
    assert all(b > a for a, b in itertools.pairwise(times))
    assert abs(times[-1] - (NOW + 19 * STEP)) <= STEP


def test_a_pause_that_arrival_explains_is_kept() -> None:
    stamps = [n * STEP + (3 * NS_PER_S if n >= 30 else 0) for n in range(60)]
    times = run(Timeline(), stamps, [NOW + pts for pts in stamps])
    assert times[30] - times[29] == 3 * NS_PER_S + STEP


def test_order_of_b_frames_is_kept() -> None:
    order = [0, 3, 1, 2, 6, 4, 5]
    times = run(Timeline(), [n * STEP for n in order], [NOW + n * STEP for n in range(7)])
    assert [round((t - NOW) / STEP) for t in times] == order


def test_a_slow_camera_clock_is_anchored_anew_at_a_key_frame_and_a_fast_one_is_held_back() -> None:
    for rate in (0.98, 1.02):
        count = 25 * 200
        stamps = [round(n * STEP * rate) for n in range(count)]
        arrivals = [NOW + n * STEP for n in range(count)]
        times = run(Timeline(), stamps, arrivals)
        assert all(b > a for a, b in itertools.pairwise(times))
        worst = max(abs(t - a) for t, a in zip(times, arrivals, strict=True))
        assert worst < DRIFT_NS + 0.05 * WINDOW_NS + NS_PER_S


def test_a_new_session_starts_at_arrival_but_never_before_what_was() -> None:
    line = Timeline(floor_ns=NOW)
    assert line.stamp(0, NOW - 5 * NS_PER_S, key=True) > NOW
    line.interrupt()
    assert line.stamp(10**15, NOW + 9 * NS_PER_S, key=True) == NOW + 9 * NS_PER_S
    line.interrupt(NOW + 20 * NS_PER_S)
    assert line.stamp(0, NOW + 10 * NS_PER_S, key=True) > NOW + 20 * NS_PER_S


@pytest.mark.parametrize("gop", [1, 25, 300])
def test_a_wall_clock_set_back_is_caught_up_with_by_frames_that_lie_a_tenth_closer(gop: int) -> None:
    back_ns, seconds = 30 * NS_PER_S, 400
    stamps = [n * STEP for n in range(25 * seconds)]
    arrivals = [NOW + pts - (back_ns if pts > 20 * NS_PER_S else 0) for pts in stamps]
    times = run(Timeline(), stamps, arrivals, gop)
    spacing = [b - a for a, b in itertools.pairwise(times)]
    assert min(spacing) >= 0.9 * STEP - 1
    # It ends there: no frame is late after the line has caught up, and none has to jump.
    assert max(spacing) <= STEP + 1
    assert 0 <= times[-1] - arrivals[-1] <= DRIFT_NS
    caught_up = next(n for n in range(1000, len(times)) if times[n] - arrivals[n] <= DRIFT_NS)
    assert caught_up <= 25 * (20 + 10 * 30 + 3 * WINDOW_NS / NS_PER_S)


def test_a_restart_after_the_wall_clock_was_set_back_is_caught_up_with_too() -> None:
    line = Timeline(floor_ns=NOW + 20 * NS_PER_S)
    stamps = [n * STEP for n in range(25 * 260)]
    times = run(line, stamps, [NOW + pts for pts in stamps])
    assert times[0] > NOW + 20 * NS_PER_S
    assert 0 <= times[-1] - (NOW + stamps[-1]) <= DRIFT_NS


def test_order_of_b_frames_is_kept_while_the_line_is_held_back() -> None:
    line, order = Timeline(floor_ns=NOW + 60 * NS_PER_S), [0, 3, 1, 2, 6, 4, 5, 9, 7, 8]
    stamps = [(group * 10 + n) * STEP for group in range(200) for n in order]
    times = run(line, stamps, [NOW + n * STEP for n in range(2000)], gop=10)
    shown = [time for _, time in sorted(zip(stamps, times, strict=True))]
    spacing = [b - a for a, b in itertools.pairwise(shown)]
    assert 0.9 * STEP - 1 <= min(spacing) < 0.91 * STEP
    assert max(spacing) <= STEP + 1


def test_a_gop_that_does_not_end_gives_back_no_more_than_was_planned() -> None:
    stamps = [n * STEP for n in range(25 * 100)]
    line = Timeline(floor_ns=NOW + 10 * NS_PER_S)
    keys = set(range(0, 25 * 20, 25))
    times = [line.stamp(pts, NOW + pts, key=n in keys) for n, pts in enumerate(stamps)]
    assert times[-1] - (NOW + stamps[-1]) > 8 * NS_PER_S
    assert times[-1] - times[-2] == STEP


def test_what_arrival_was_off_is_made_up_soon_once_the_camera_s_own_clock_is_known() -> None:
    for off_ms in (-300, 125, 700):
        line, times = Timeline(), []
        for n in range(25 * 12):
            # Until the first sender report, three seconds on, packets seem to come at another time.
            exact = n >= 75
            arrival_ns = NOW + n * STEP + (0 if exact else off_ms * 1_000_000)
            times.append(line.stamp(n * STEP, arrival_ns, key=n % 25 == 0, exact=exact) - NOW - n * STEP)
        # A second and a GOP for what is behind; what is ahead is given back by a tenth.
        soon = 75 + (75 if off_ms < 0 else 50 + round(25 * off_ms / 100) + 25)
        assert all(abs(time) <= 20_000_000 for time in times[soon:])
