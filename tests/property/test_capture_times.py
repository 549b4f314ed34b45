"""Whatever stamps and arrivals a camera invents, capture times of key frames grow, and clips tile the time line."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.capture.sampler import Sampler, cell_of, rate_of
from nodeagent.capture.segmenter import Segmenter
from nodeagent.capture.stamps import WRAPS_NS
from nodeagent.capture.timeline import Timeline
from nodeagent.contract.ids import NS_PER_S

NOW = 1_700_000_000 * NS_PER_S
ANY_PTS = st.none() | st.integers(-(2**50), 2**50) | st.integers(0, 3 * NS_PER_S)
PACKETS = st.lists(st.tuples(ANY_PTS, st.integers(0, NS_PER_S), st.booleans(), st.booleans()), max_size=80)


@given(PACKETS)
def test_key_frames_never_go_back(packets: list[tuple[int | None, int, bool, bool]]) -> None:
    line, arrival, newest = Timeline(NOW), NOW, NOW
    for pts, passed, key, new_session in packets:
        if new_session:
            line.interrupt()
        arrival += passed
        time_ns = line.stamp(pts, arrival, key=key)
        if key:
            assert time_ns > newest
        newest = max(newest, time_ns)
        assert line.newest_ns == newest


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.integers(-120, 120),
    st.integers(1, 60),
    st.randoms(use_true_random=False),
)
def test_frames_keep_their_order_and_near_spacing_while_the_line_is_corrected(
    gops: list[int], ahead_s: int, jitter_ms: int, chance: random.Random
) -> None:
    line, step, number = Timeline(NOW + ahead_s * NS_PER_S), NS_PER_S // 25, 0
    before = NOW + ahead_s * NS_PER_S
    for length in gops:
        shown = {}
        for n in [0, *chance.sample(range(1, length), length - 1)]:
            pts = (number + n) * step
            shown[pts] = line.stamp(pts, NOW + pts + chance.randrange(jitter_ms) * 1_000_000, key=n == 0)
        times = [shown[pts] for pts in sorted(shown)]
        assert times[0] > before
        assert all(0.9 * step - 1 <= b - a <= step + 1 for a, b in itertools.pairwise(times))
        before, number = times[-1], number + length


#: Jumps that are too far to be a pause, or B frames.
FAR = st.integers(3 * NS_PER_S, 2**55)
#: What may befall a camera's stamps from a frame on: another offset, or that 30 are missing.
EVENT = st.just("missing") | st.sampled_from([*WRAPS_NS, *(-wrap for wrap in WRAPS_NS)]) | FAR | FAR.map(int.__neg__)
EVENTS = st.lists(st.tuples(st.integers(1, 399), EVENT), max_size=4, unique_by=lambda event: event[0] // 8)


@given(EVENTS, st.integers(0, 200), st.integers(0, 999), st.booleans())
def test_whatever_befalls_its_stamps_a_stream_stays_at_the_clock_and_in_order(
    events: list[tuple[int, int | str]], jitter_ms: int, seed: int, b_frames: bool
) -> None:
    chance, step, line = random.Random(seed), NS_PER_S // 25, Timeline()
    order = (0, 3, 1, 2) if b_frames else (0, 1, 2, 3)
    offset, shown, missing, arrival = 0, {}, range(0), NOW
    for n in range(400):
        for at, event in events:
            if at == n and isinstance(event, int):
                offset += event
            elif at == n:
                missing = range(n, n + 30)
        frame = n - n % 4 + order[n % 4]
        arrival = max(arrival, NOW + n * step + chance.randint(0, jitter_ms) * 1_000_000)
        pts = None if n in missing else frame * step + offset
        shown[frame] = line.stamp(pts, arrival, key=n % 20 == 0)
        assert abs(shown[frame] - (NOW + frame * step)) <= NS_PER_S
    # Groups of frames that nothing befell are in order, and keep their spacing but for what the line gives back.
    hit = {n // 4 for at, event in events for n in (range(at, at + 34) if event == "missing" else range(at, at + 4))}
    for group in set(range(100)) - hit:
        times = [shown[group * 4 + n] for n in range(4)]
        assert all(0.9 * step - 2 <= after - before <= step + 2 for before, after in itertools.pairwise(times))


@given(st.lists(st.integers(NS_PER_S // 30, 9 * NS_PER_S), min_size=2, max_size=200))
def test_no_clip_is_much_longer_than_the_grid_and_a_gop(gops: list[int]) -> None:
    grid = 5 * NS_PER_S
    segmenter, now, start = Segmenter(grid), NOW, NOW
    for n, gop in enumerate(gops):
        if segmenter.cuts(now):
            segmenter.begin(now)
            start = now
        assert now - start < 1.5 * grid + max(gops[: n + 1])
        now += gop


@given(st.lists(st.integers(1, NS_PER_S), min_size=1, max_size=120), st.floats(0.2, 30.0))
def test_skipping_changes_no_sample(steps: list[int], fps: float) -> None:
    times = [NOW + sum(steps[:n]) for n in range(len(steps))]
    whole = Sampler(fps)
    expected = [t for t in times if whole.take(t)]
    sampler, taken = Sampler(fps), []
    # Decoding order: groups of four, the last of each first, as with three B frames; shown in order of time.
    for n in range(0, len(times), 4):
        group = times[n : n + 4]
        left = [t for t in (*group[3:], *group[:3]) if not sampler.may_skip(t)]
        taken += [t for t in sorted(left) if sampler.take(t)]
    assert taken == expected


RATES = st.sampled_from([4.7, 5.0, 7.5, 1.0]) | st.floats(0.5, 30.0)
FPS = st.sampled_from([5.0, 7.0, 12.0, 15.0, 24.0, 29.97, 30.0, 50.0]) | st.floats(1.0, 60.0)


@given(FPS, RATES, st.integers(0, NS_PER_S), st.integers(0, 40), st.integers(0, 999))
def test_samples_are_as_even_as_the_frames_allow(
    fps: float, rate: float, phase: int, jitter_ms: int, seed: int
) -> None:
    chance = random.Random(seed)
    jitter, step, period = jitter_ms * 1_000_000, NS_PER_S / fps, NS_PER_S / rate_of(rate)
    times = sorted(NOW + phase + round(n * step) + chance.randint(-jitter, jitter) for n in range(200))
    sampler = Sampler(rate)
    taken = [t for t in times if sampler.take(t)]
    cells = [cell_of(t, rate_of(rate)) for t in times]
    # Every cell that has a frame has a sample: its own, or one that came a little early for it.
    assert len(taken) >= len(set(cells)) - 1
    # And at most one, so the rate is never above the asked: neither over all, nor for long.
    for first in range(0, len(taken), 7):
        some = taken[first:]
        assert len(some) <= (some[-1] - some[0]) / period + 2.4
    # Neighbours lie a period apart, give or take a frame's spacing and what jitter did.
    slack = step + 2 * jitter
    for a, b in itertools.pairwise(taken[1:]):
        assert b - a >= min(period - slack, step - 2 * jitter) - 2
        assert b - a <= 1.4 * period + slack + 2


@given(st.floats(1.0, 2.0), RATES, st.integers(0, NS_PER_S), st.integers(0, 999))
def test_a_camera_of_about_the_sample_rate_loses_nothing_by_jitter(
    times_faster: float, rate: float, phase: int, seed: int
) -> None:
    chance = random.Random(seed)
    step = NS_PER_S / (rate * times_faster)
    times = [NOW + phase + round((n + chance.uniform(-0.1, 0.1)) * step) for n in range(400)]
    sampler = Sampler(rate)
    count = sum(sampler.take(t) for t in times)
    assert count >= 0.98 * 400 / times_faster - 2
