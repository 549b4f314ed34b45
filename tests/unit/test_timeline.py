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
    assert {b - a for a, b in itertools.pairwise(times)} == {STEP}


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
