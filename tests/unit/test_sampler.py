"""Samples are a function of frame times."""

from __future__ import annotations

import pytest

from nodeagent.capture.sampler import Sampler
from nodeagent.contract.ids import NS_PER_S

START = 1_700_000_000 * NS_PER_S + 123_456_789


@pytest.mark.parametrize(("frame_fps", "sample_fps"), [(25, 5), (30, 5), (12.5, 5), (29.97, 7.5), (25, 0.5), (15, 15)])
def test_the_rate_is_kept_over_an_hour(frame_fps: float, sample_fps: float) -> None:
    sampler = Sampler(sample_fps)
    count = sum(sampler.take(START + round(n * NS_PER_S / frame_fps)) for n in range(round(3600 * frame_fps)))
    assert count == pytest.approx(3600 * min(sample_fps, frame_fps), abs=2)


def test_a_slow_camera_gives_every_frame() -> None:
    sampler = Sampler(10.0)
    assert all(sampler.take(START + n * NS_PER_S // 4) for n in range(100))


def test_a_restart_that_knows_the_frame_before_chooses_as_if_nothing_had_happened() -> None:
    times = [START + n * NS_PER_S // 25 for n in range(500)]
    whole = Sampler(5.0)
    expected = [whole.take(t) for t in times]
    for cut in (1, 7, 250):
        later = Sampler(5.0, times[cut - 1])
        assert [later.take(t) for t in times[cut:]] == expected[cut:]


def test_only_frames_with_an_earlier_one_in_their_cell_may_be_skipped() -> None:
    sampler = Sampler(5.0)
    cell = NS_PER_S // 5
    base = START // cell * cell
    assert not sampler.may_skip(base + cell // 2)
    assert not sampler.may_skip(base + cell // 4)
    assert sampler.may_skip(base + cell // 3)
    assert not sampler.may_skip(base + cell)


def test_a_frame_that_comes_early_for_its_cell_counts_for_it_where_frames_are_far_apart() -> None:
    cell = NS_PER_S // 5
    base = START // cell * cell
    # Five frames a second, now just behind a line of the grid, now just before it.
    early = [base + n * cell + (-1 if n % 2 else 1) * NS_PER_S // 1000 for n in range(100)]
    sampler = Sampler(5.0)
    assert sum(sampler.take(t) for t in early) >= 99
    sampler = Sampler(5.0)
    # Of a stream whose frames are near each other none does.
    dense = [base + n * cell // 5 for n in range(500)]
    assert [n for n, t in enumerate(dense) if sampler.take(t)] == list(range(0, 500, 5))


def test_no_early_frame_may_be_skipped_until_it_is_known_that_frames_are_near_each_other() -> None:
    cell = NS_PER_S // 5
    base = START // cell * cell
    sampler = Sampler(5.0)
    assert [sampler.may_skip(base + ms * 1_000_000) for ms in (0, 120, 40, 160)] == [False, False, True, True]
