"""A file is played at the pace of its stamps, as long as these make sense."""

from __future__ import annotations

import itertools

from nodeagent.capture.pacer import PAUSE_MOST_NS, Pacer
from nodeagent.contract.ids import NS_PER_S

STEP = NS_PER_S // 25
B_FRAMES = (0, 3, 1, 2)


def paced(stamps: list[int | None], pacer: Pacer | None = None) -> list[int]:
    pacer = pacer or Pacer(0)
    return [pacer.due_ns(stamp, STEP) for stamp in stamps]


def test_stamps_are_followed_with_b_frames_and_slow_ones() -> None:
    assert paced([5 + n * STEP for n in B_FRAMES]) == [n * STEP for n in B_FRAMES]
    assert paced([n * 10 * NS_PER_S for n in range(4)]) == [n * 10 * NS_PER_S for n in range(4)]


def test_a_file_that_starts_again_goes_on_where_its_last_frame_ended() -> None:
    pacer = Pacer(0)
    paced([n * STEP for n in B_FRAMES], pacer)
    pacer.again()
    assert paced([9 + n * STEP for n in B_FRAMES], pacer) == [(4 + n) * STEP for n in B_FRAMES]
    pacer.again()
    assert paced([None, None], pacer) == [8 * STEP, 9 * STEP]


def test_stamps_that_are_missing_stand_still_or_jump_take_a_frame_s_length_each() -> None:
    even = [n * STEP for n in range(40)]
    assert paced([None] * 40) == even
    assert paced([7] * 40) == even
    for jump in (3600 * NS_PER_S, -3600 * NS_PER_S, PAUSE_MOST_NS + NS_PER_S, -5 * NS_PER_S):
        assert paced([n * STEP + (jump if n >= 20 else 0) for n in range(40)]) == even
    assert paced([None if n % 3 else n * STEP for n in range(40)]) == even


def test_no_length_makes_a_file_sleep_for_hours() -> None:
    pacer = Pacer(0)
    assert [pacer.due_ns(None, 3600 * NS_PER_S) for _ in range(3)] == [n * 2 * NS_PER_S for n in range(3)]
    pacer = Pacer(0)
    pacer.due_ns(0, 3600 * NS_PER_S)
    pacer.again()
    assert pacer.due_ns(0, STEP) == PAUSE_MOST_NS


def test_a_reader_that_is_late_moves_all_that_follows() -> None:
    pacer = Pacer(0)
    paced([n * STEP for n in range(5)], pacer)
    pacer.late(NS_PER_S)
    assert paced([n * STEP for n in range(5, 8)], pacer) == [n * STEP + NS_PER_S for n in range(5, 8)]
    pacer.again()
    due = paced([0, STEP], pacer)
    assert due == [8 * STEP + NS_PER_S, 9 * STEP + NS_PER_S]
    assert all(b > a for a, b in itertools.pairwise(due))
