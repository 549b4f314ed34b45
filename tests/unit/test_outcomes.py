"""When unknown clips are a fault."""

from __future__ import annotations

from nodeagent.inference.outcomes import FAULT_CLIPS, FORGET_S, Outcomes


def test_unknown_clips_in_a_row_are_a_fault_until_a_good_one() -> None:
    outcomes = Outcomes()
    assert [outcomes.unknown("a", f"why {n}", n) for n in range(FAULT_CLIPS - 1)] == [True, False]
    assert outcomes.fault(2) == ""
    outcomes.unknown("a", "the latest", 2)
    assert outcomes.fault(2) == "a: the latest"
    assert outcomes.known("a") == FAULT_CLIPS
    assert outcomes.known("a") == 0
    assert outcomes.fault(2) == ""
    assert outcomes.unknown("a", "again", 3)


def test_another_cameras_good_clips_hide_nothing() -> None:
    outcomes = Outcomes()
    for n in range(FAULT_CLIPS):
        for camera in ("a", "b", "c"):
            outcomes.unknown(camera, "engine", n)
        outcomes.known("good")
    assert outcomes.fault(FAULT_CLIPS) == "a: engine (and 2 more)"


def test_a_camera_without_clips_is_forgotten() -> None:
    outcomes = Outcomes()
    for _ in range(FAULT_CLIPS):
        outcomes.unknown("a", "engine", 10.0)
    assert outcomes.fault(10.0 + FORGET_S)
    assert outcomes.fault(10.1 + FORGET_S) == ""
    assert outcomes.unknown("a", "engine", 200.0)
