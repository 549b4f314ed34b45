"""When a camera that left is unbound."""

from __future__ import annotations

from nodeagent.judge.leavers import LEAVERS_MAX, UNBIND_AFTER_S, Leavers


def test_a_camera_is_due_some_time_after_it_left_and_until_it_is_forgotten() -> None:
    leavers = Leavers()
    leavers.note("a", 10.0)
    leavers.note("a", 200.0)
    leavers.note("b", 20.0)
    assert leavers.due(10.0 + UNBIND_AFTER_S - 0.1) is None
    assert leavers.due(10.0 + UNBIND_AFTER_S) == leavers.due(10.0 + UNBIND_AFTER_S) == "a"
    leavers.forget(["a", "never here"])
    assert leavers.due(10.0 + UNBIND_AFTER_S) is None
    assert leavers.due(20.0 + UNBIND_AFTER_S) == "b"


def test_a_camera_that_came_back_and_leaves_again_has_its_whole_time() -> None:
    leavers = Leavers()
    leavers.note("a", 0.0)
    leavers.forget({"a"})
    leavers.note("a", 250.0)
    assert leavers.due(UNBIND_AFTER_S) is None
    assert leavers.due(250.0 + UNBIND_AFTER_S) == "a"


def test_a_flood_of_names_is_bounded() -> None:
    leavers = Leavers()
    for number in range(LEAVERS_MAX + 10):
        leavers.note(f"cam{number}", float(number))
    assert len(leavers) == LEAVERS_MAX
