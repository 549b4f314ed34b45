"""What becomes of detections that reach a judge of other cameras."""

from __future__ import annotations

import pytest

from nodeagent.judge.late import (
    HOPS_AT_ONCE,
    HOPS_HEADER,
    HOPS_MAX,
    LEFT_HOPS_MAX,
    LEFT_PAUSE_S,
    Step,
    hops_of,
    step,
    step_of_left,
)
from nodeagent.judge.reorder import HANDOVER_WAIT_S


@pytest.mark.parametrize(
    ("text", "hops"),
    [("0", 0), ("1", 1), ("10", 10), ("", 0), ("-1", 0), ("1e3", 0), ("many", 0), ("\u0663", 0), ("9" * 40, 0)],
)
def test_hops_are_read_and_nonsense_is_none(text: str, hops: int) -> None:
    assert hops_of({HOPS_HEADER: text}) == hops


def test_no_header_is_no_hop() -> None:
    assert hops_of({}) == 0


def test_detections_that_nobody_takes_end_with_a_person() -> None:
    steps, hops, attempt = [], 0, 1
    while (now := step(hops, attempt)) is not Step.PUT_ASIDE:
        steps.append(now)
        # The bus counts attempts up at a pause, and from 1 again when a message is published anew.
        hops, attempt = (hops, attempt + 1) if now is Step.PAUSE else (hops + 1, 1)
    assert steps.count(Step.SEND) == HOPS_MAX
    assert steps[:HOPS_AT_ONCE] == [Step.SEND] * HOPS_AT_ONCE
    assert steps[HOPS_AT_ONCE:] == [Step.PAUSE, Step.SEND] * (HOPS_MAX - HOPS_AT_ONCE)


def test_clips_of_a_camera_that_left_are_sent_to_its_next_owner_until_that_one_is_bound() -> None:
    steps, hops, attempt = [], 0, 1
    while (now := step_of_left(hops, attempt, is_own=True)) is not Step.REFUSE:
        steps.append(now)
        hops, attempt = (hops, attempt + 1) if now is Step.PAUSE else (hops + 1, 1)
    assert steps == [Step.SEND] + [Step.PAUSE, Step.SEND] * (LEFT_HOPS_MAX - 1)
    # The last one comes while its next owner still waits for it.
    assert steps.count(Step.PAUSE) * LEFT_PAUSE_S <= HANDOVER_WAIT_S


def test_what_another_node_captured_is_not_sent_round() -> None:
    assert step_of_left(0, 1, is_own=False) is Step.REFUSE
