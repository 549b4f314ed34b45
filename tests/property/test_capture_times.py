"""Whatever stamps and arrivals a camera invents, capture times of key frames grow, and clips tile the time line."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.capture.sampler import Sampler, Skipper
from nodeagent.capture.segmenter import Segmenter
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
    # Decoding order: groups of four, the last of each first, as with three B frames.
    order = [t for n in range(0, len(times), 4) for t in (*times[n + 3 : n + 4], *times[n : n + 3])]
    skipper = Skipper(fps)
    left = sorted(t for t in order if not skipper.may_skip(t))
    again = Sampler(fps)
    assert [t for t in left if again.take(t)] == expected
