"""The replay planner: which clips, and whether to wait."""

from __future__ import annotations

import itertools

import pytest

from nodeagent.alarm.plan import Cut, Piece, Wait, Window, choose, decide, one_stream, why_partial
from nodeagent.contract.clip import ClipId
from nodeagent.contract.ids import NS_PER_S

S = NS_PER_S
WINDOW = Window(100 * S, 130 * S, 115 * S)
PATIENCE = 30 * S


def piece(start_s: float, end_s: float, epoch: int = 1, stream: object = None) -> Piece:
    start, end = round(start_s * S), round(end_s * S)
    return Piece(ClipId(camera_id="c", epoch=epoch, start_ns=start), start, end, stream)


def run(*ends: float) -> list[Piece]:
    return [piece(a, b) for a, b in itertools.pairwise(ends)]


def spans(pieces: list[Piece]) -> list[tuple[int, int]]:
    return [(p.start_ns, p.end_ns) for p in pieces]


def test_clips_that_cover_the_window_are_cut_whatever_the_wall_clock_says() -> None:
    # A clip is finished, so its time is over: the wall clock is behind it when it was stepped back meanwhile.
    clips = run(95, 105, 115, 125, 135)
    assert decide(clips, WINDOW, 0, PATIENCE) == Cut(tuple(clips))
    assert decide(clips[:3], WINDOW, 0, PATIENCE) == Wait()


def test_cuts_at_once_when_clips_cover_the_window() -> None:
    clips = run(95, 105, 115, 125, 135, 145)
    assert decide(clips, WINDOW, 136 * S, PATIENCE) == Cut(tuple(clips[:4]))


def test_order_of_the_listing_does_not_matter() -> None:
    clips = run(95, 105, 115, 125, 135)
    assert decide(reversed(clips), WINDOW, 136 * S, PATIENCE) == Cut(tuple(clips))


def test_waits_for_the_end_only_as_long_as_patience_says() -> None:
    clips = run(95, 105, 115)
    assert decide(clips, WINDOW, 159 * S, PATIENCE) == Wait()
    assert decide(clips, WINDOW, 160 * S, PATIENCE) == Cut(tuple(clips))
    assert why_partial(spans(clips), WINDOW) == ("no video for 15.0 s (from 15.0 to 30.0 s of the window)", 15 * S)


def test_a_clip_that_ends_within_rounding_of_the_window_does_not_reach_it() -> None:
    assert decide([piece(95, 130)], WINDOW, 131 * S, PATIENCE) == Wait()


def test_a_hole_inside_is_named_and_not_waited_for() -> None:
    clips = [piece(95, 105), piece(112.5, 135)]
    assert decide(clips, WINDOW, 136 * S, PATIENCE) == Cut(tuple(clips))
    reason, missing = why_partial(spans(clips), WINDOW)
    assert reason == "no video for 7.5 s (from 5.0 to 12.5 s of the window)"
    assert missing == round(7.5 * S)


def test_a_camera_that_started_within_the_window_is_partial_at_its_start() -> None:
    assert why_partial([(104 * S, 140 * S)], WINDOW) == ("no video for 4.0 s (from 0.0 to 4.0 s of the window)", 4 * S)


def test_a_seam_of_one_slow_frame_is_no_hole() -> None:
    assert why_partial([(95 * S, 110 * S), (round(110.4 * S), 135 * S)], WINDOW) == ("", 0)


def test_nothing_on_disk_is_said_so() -> None:
    assert decide([], WINDOW, 160 * S, PATIENCE) == Cut(())
    assert why_partial([], WINDOW) == ("no video of the window is on disk", 30 * S)


def test_what_is_known_beforehand_stands_first() -> None:
    assert why_partial([(95 * S, 135 * S)], WINDOW, ["1 clip cannot be read"]) == ("1 clip cannot be read", 0)


def test_two_recordings_of_one_time_give_one_sequence_that_stays_with_its_epoch() -> None:
    old, new = run(95, 105, 115, 125, 135), [piece(a, b, epoch=2) for a, b in ((113, 118), (118, 128), (128, 138))]
    assert [p.clip.epoch for p in choose(old + new, WINDOW)] == [1, 1, 1, 1]


def test_a_camera_that_moved_within_the_window_goes_on_with_the_new_owner() -> None:
    old, new = run(95, 105, 115), [piece(114, 119, epoch=2), piece(119, 135, epoch=2)]
    assert [(p.clip.epoch, p.start_ns // S) for p in choose(old + new, WINDOW)] == [
        (1, 95),
        (1, 105),
        (2, 114),
        (2, 119),
    ]


@pytest.mark.parametrize(
    ("streams", "kept"),
    [("aaaa", [95, 105, 115, 125]), ("aabb", [115, 125]), ("abbb", [105, 115, 125]), ("aaba", [115])],
)
def test_only_clips_of_one_format_around_the_confirming_instant_are_joined(streams: str, kept: list[int]) -> None:
    clips = [piece(a, a + 10, stream=s) for a, s in zip((95, 105, 115, 125), streams, strict=True)]
    assert [p.start_ns // S for p in one_stream(clips, WINDOW)] == kept


def test_the_clip_after_one_that_ends_just_with_the_window_proves_that_it_is_covered() -> None:
    clips = [piece(95, 130), piece(130, 135)]
    assert decide(clips, WINDOW, 136 * S, PATIENCE) == Cut(tuple(clips))
