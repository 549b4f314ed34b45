"""Clips are cut at the key frame nearest to the grid."""

from __future__ import annotations

import pytest

from nodeagent.capture.segmenter import Segmenter
from nodeagent.contract.ids import NS_PER_S

GRID = 5 * NS_PER_S
START = 1_700_000_001 * NS_PER_S + 300_000_000


def starts(gop_ns: int, seconds: int) -> list[int]:
    segmenter, found = Segmenter(GRID), []
    for n in range(seconds * NS_PER_S // gop_ns):
        key_ns = START + n * gop_ns
        if segmenter.cuts(key_ns):
            segmenter.begin(key_ns)
            found.append(key_ns)
    return found


@pytest.mark.parametrize("gop_s", [0.5, 1, 2, 3, 4])
def test_clips_average_the_grid(gop_s: float) -> None:
    gop_ns = round(gop_s * NS_PER_S)
    cuts = starts(gop_ns, 600)
    mean = (cuts[-1] - cuts[1]) / (len(cuts) - 2)
    assert mean == pytest.approx(GRID, rel=0.02)
    for cut in cuts[1:]:
        off = abs((cut + GRID // 2) % GRID - GRID // 2)
        assert off <= gop_ns / 2 + 1


def test_a_longer_gop_is_one_clip() -> None:
    assert [b - a for a, b in zip(starts(12 * NS_PER_S, 120), starts(12 * NS_PER_S, 120)[1:], strict=False)] == [
        12 * NS_PER_S
    ] * 9


def test_the_first_key_frame_after_an_interruption_begins_a_clip() -> None:
    segmenter = Segmenter(GRID)
    assert segmenter.cuts(START)
    segmenter.begin(START)
    assert not segmenter.cuts(START + NS_PER_S // 10)
    segmenter.reset()
    assert segmenter.cuts(START + NS_PER_S // 5)
