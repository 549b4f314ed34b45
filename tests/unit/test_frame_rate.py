"""The spacing of frames, and when it counts as another one."""

from __future__ import annotations

import random

import pytest

from nodeagent.capture.frame_rate import LOOK, FrameRate


def changes(times: list[int], gop: int, order: tuple[int, ...] = (0,)) -> list[int]:
    """Numbers of the key frames at which the rate was found to have changed."""
    rate, found = FrameRate(), []
    for n in range(len(times)):
        rate.add(times[n - n % len(order) + order[n % len(order)]])
        if n % gop == 0 and rate.changed():
            found.append(n)
    return found


def test_the_step_is_the_median_of_times_in_order_whatever_the_decoding_order_and_a_pause() -> None:
    rate = FrameRate()
    assert rate.step_ns is None
    for group in range(6):
        for n in (3, 1, 2, 0):
            rate.add((group * 4 + n) * 40 + (5000 if group > 3 else 0))
    assert rate.step_ns == 40


@pytest.mark.parametrize(("before", "after"), [(40, 20), (40, 80), (100, 130), (33, 50)])
@pytest.mark.parametrize("gop", [1, 25, 50])
@pytest.mark.parametrize("order", [(0,), (4, 2, 1, 3, 0)])
def test_another_rate_is_found_once_at_a_key_frame_soon_after(
    before: int, after: int, gop: int, order: tuple[int, ...]
) -> None:
    times = [n * before * 1000 for n in range(300)]
    times += [times[-1] + n * after * 1000 for n in range(1, 301)]
    (found,) = changes(times, gop, order)
    assert 300 < found <= 300 + LOOK + 3 * gop


def test_jitter_lost_frames_a_pause_and_a_short_spell_are_no_change() -> None:
    chance = random.Random(3)
    times, now = [], 0
    for n in range(3000):
        now += 40_000 + chance.randrange(-15_000, 15_000)
        if n % 40 == 0:
            now += 120_000
        if n == 1500:
            now += 9_000_000
        if 2000 <= n < 2020:
            now += 40_000
        times.append(now)
    assert changes(times, 25) == []


def test_a_rate_that_goes_up_a_little_each_time_is_a_change_in_the_end() -> None:
    times, step = [0], 40_000
    for n in range(2000):
        times.append(times[-1] + step)
        if n % 100 == 0:
            step = round(step * 1.03)
    assert 2 <= len(changes(times, 25)) <= 4
