"""A stream's stamps are made continuous before anything is made of them."""

from __future__ import annotations

import itertools
import random

import pytest

from nodeagent.capture.frame_rate import FrameRate
from nodeagent.capture.stamps import STRETCH_NS, WRAPS_NS, Stamps
from nodeagent.capture.timeline import DRIFT_NS, WINDOW_NS, Timeline
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S

NOW = 1_700_000_000 * NS_PER_S
STEP = NS_PER_S // 25
#: Decoding order of I P B B P B B.
B_FRAMES = (0, 3, 1, 2, 6, 4, 5)


@pytest.mark.parametrize("period", WRAPS_NS)
@pytest.mark.parametrize("late_ms", [0, 700])
def test_a_counter_that_wraps_within_b_frames_is_no_step_however_late_the_frame_is(period: int, late_ms: int) -> None:
    stamps, seen = Stamps(FrameRate()), []
    shown = [group * 7 + n for group in range(6) for n in B_FRAMES]
    for n, frame in enumerate(shown):
        late_ns = late_ms * NS_PER_MS if n >= 17 else 0
        raw_ns = (period - 20 * STEP + frame * STEP) % period
        seen.append(stamps.follow(raw_ns, NOW + n * STEP + late_ns, key=n % 7 == 0))
    assert all(abs(stamp - frame * STEP) <= 1 for stamp, frame in zip(seen, shown, strict=True))


def test_a_jump_and_a_late_frame_are_not_added_up_but_a_pause_is_kept() -> None:
    for late_ns, moved_ns in (
        (400 * NS_PER_MS, STEP),
        (1500 * NS_PER_MS, 1500 * NS_PER_MS),
        (9 * NS_PER_S, 2 * NS_PER_S),
    ):
        stamps = Stamps(FrameRate())
        before = [stamps.follow(n * STEP, NOW + n * STEP, key=n == 0) for n in range(30)][-1]
        after = stamps.follow(10**15, NOW + 29 * STEP + late_ns, key=False)
        assert after - before == moved_ns


@pytest.mark.parametrize("fps", [7, 25, 50])
@pytest.mark.parametrize("kind", ["none", "a third", "still", "stops", "wraps too often"])
def test_stamps_that_say_nothing_give_even_spacing_by_arrival(fps: int, kind: str) -> None:
    step, count, chance = NS_PER_S // fps, 60 * fps, random.Random(1)
    line, times = Timeline(), []
    for n in range(count):
        raw: int | None = n * step
        if kind == "none" or (kind == "a third" and n % 3):
            raw = None
        elif kind == "still" or (kind == "stops" and n > 100):
            raw = 100 * step
        elif kind == "wraps too often":
            raw = n * step % (4 * NS_PER_S)
        times.append(line.stamp(raw, NOW + n * step + chance.randrange(30) * NS_PER_MS, key=n % fps == 0))
    spacing = sorted(b - a for a, b in itertools.pairwise(times))
    assert 0.9 * step < spacing[count // 50] <= spacing[-count // 50] < 1.1 * step
    assert max(abs(time - NOW - n * step) for n, time in enumerate(times)) < 150 * NS_PER_MS


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.75, 0.9, 1.08, 1.1, 1.3, 2, 30])
def test_a_wrong_clock_rate_is_found_out_and_what_it_did_is_made_good(rate: float) -> None:
    line = Timeline()
    times = [line.stamp(round(n * STEP * rate), NOW + n * STEP, key=n % 25 == 0) for n in range(25 * 400)]
    off = [time - NOW - n * STEP for n, time in enumerate(times)]
    # Behind by no more than two windows and a GOP; ahead by no more than three stretches.
    assert min(off) >= -(2 * WINDOW_NS + NS_PER_S)
    assert max(off) <= 3 * STRETCH_NS + NS_PER_S
    assert abs(off[-1]) <= DRIFT_NS + NS_PER_S
    assert all(b > a for a, b in itertools.pairwise(times))


def test_a_stall_and_the_burst_after_it_do_not_cost_the_stamps_their_trust() -> None:
    line, times, arrival = Timeline(), [], NOW
    for n in range(25 * 120):
        # Four seconds without a packet each half minute, then all that was held up at once.
        arrival = max(arrival, NOW + n * STEP + (4 * NS_PER_S if n % 750 == 700 else 0))
        times.append(line.stamp(n * STEP, arrival, key=n % 25 == 0))
    assert {b - a for a, b in itertools.pairwise(times)} == {STEP}
