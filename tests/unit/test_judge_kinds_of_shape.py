"""Scripted scenes with known truth for the kinds that look at several boxes at once, or at how a box changes."""

import pytest

from tests.support.scenarios import Person, rule, stands
from tests.unit.test_judge_kinds import LATE_S, started
from tests.unit.test_judge_scenarios import run, told

HELMET, BAG = 2, 3
NO_HELMET = {"labels": ("person",), "items": ("helmet",), "missing_s": 2.0}


def helmet(x: float, y: float, start: float, end: float, **fields) -> Person:
    """A helmet on the head of somebody whose feet are at x, y."""
    return stands(x, y - 0.16, start, end, width=0.03, height=0.04, label=HELMET, **fields)


def test_who_wears_a_helmet_is_told_from_who_does_not():
    people = [stands(0.7, 0.7, 1, 20), helmet(0.7, 0.7, 1, 20), stands(0.85, 0.7, 5, 15)]
    messages = run([rule("missing_ppe", **NO_HELMET)], people)
    assert [stage for _, stage in told(messages)] == ["started", "ended"]
    assert 7.0 <= started(messages)[0] <= 7.0 + LATE_S
    assert messages[0].evidence.subjects == 1
    subject = next(box for box in messages[0].evidence.boxes if box.subject)
    assert subject.x1 < 0.85 < subject.x2
    assert messages[0].evidence.values["missing_s"] == pytest.approx(2.0)


def test_a_helmet_that_is_missed_now_and_then_is_worn_all_the_same():
    blinks = tuple((k + 0.1, k + 0.5) for k in range(1, 19))
    people = [stands(0.7, 0.7, 1, 20), helmet(0.7, 0.7, 1, 20, hidden=blinks)]
    assert run([rule("missing_ppe", **NO_HELMET)], people) == []


def test_a_helmet_in_the_hand_or_on_somebody_else_helps_nobody():
    in_the_hand = stands(0.74, 0.6, 1, 20, width=0.03, height=0.04, label=HELMET)
    messages = run([rule("missing_ppe", **NO_HELMET)], [stands(0.7, 0.7, 1, 20), in_the_hand])
    assert len(started(messages)) == 1
    # Two side by side whose boxes overlap a little, one helmet: it belongs to the one under it.
    pair = [stands(0.70, 0.7, 1, 20), stands(0.745, 0.7, 1, 20), helmet(0.745, 0.7, 1, 20)]
    messages = run([rule("missing_ppe", **NO_HELMET)], pair)
    assert messages[-1].evidence.subjects == 1


def test_who_is_too_small_cut_off_or_hidden_is_unknown():
    small = stands(0.7, 0.7, 1, 20, height=0.08)
    cut_off = stands(0.7, 0.19, 1, 20)
    behind, before = stands(0.85, 0.70, 1, 20), stands(0.85, 0.74, 1, 20, height=0.26, width=0.08)
    worn = stands(0.85, 0.54, 1, 20, width=0.03, height=0.05, label=HELMET)
    assert run([rule("missing_ppe", **NO_HELMET)], [small, cut_off, behind, before, worn]) == []


def test_with_a_class_for_bare_heads_only_they_count():
    bare = stands(0.7, 0.54, 1, 20, width=0.03, height=0.04, label=1)
    fields = {**NO_HELMET, "without": ("car",)}
    assert run([rule("missing_ppe", **fields)], [stands(0.7, 0.7, 1, 20)]) == []
    assert len(started(run([rule("missing_ppe", **fields)], [stands(0.7, 0.7, 1, 20), bare]))) == 1


def falls(x: float, y: float, at: float, until: float) -> list[Person]:
    """Somebody who stands for `at` seconds, and then lies until `until`."""
    return [stands(x, y, 0, at), stands(x, y, at + 0.2, until, width=0.1, height=0.08)]


def test_who_falls_and_stays_down_is_told_of():
    messages = run([rule("fall")], falls(0.75, 0.7, 5.0, 20.0))
    assert [stage for _, stage in told(messages)] == ["started", "ended"]
    assert 7.2 <= started(messages)[0] <= 7.2 + LATE_S
    assert messages[0].evidence.values["height_left"] == pytest.approx(0.4)


def test_who_sits_down_gets_up_soon_or_never_stood_has_not_fallen():
    sits = [stands(0.6, 0.7, 0, 5), stands(0.6, 0.7, 5.2, 25, height=0.12)]
    up_again = [*falls(0.75, 0.7, 5.0, 6.2), stands(0.75, 0.7, 6.4, 25)]
    lies = [stands(0.9, 0.7, 0, 25, width=0.1, height=0.08)]
    assert run([rule("fall")], [*sits, *up_again, *lies]) == []


def test_a_gap_is_not_lying_still():
    assert run([rule("fall", still_s=4.0)], falls(0.75, 0.7, 5.0, 13.0), gone=((6.0, 11.0),)) == []


LEFT_BAG = {"labels": ("bag",), "still_s": 2.0, "left_s": 5.0}


def bag(x: float, y: float, start: float, end: float, **fields) -> Person:
    return stands(x, y, start, end, width=0.04, height=0.06, label=BAG, **fields)


def test_a_bag_whose_owner_leaves_is_abandoned():
    owner = Person(((1, 0.7, 0.7), (5, 0.7, 0.7), (8, 0.05, 0.7)))
    messages = run([rule("abandoned", **LEFT_BAG)], [owner, bag(0.75, 0.7, 1, 25)])
    assert [stage for _, stage in told(messages)] == ["started", "ended"]
    # 0.15 heights are 0.084 widths: he is that far from it after about 0.3 s.
    assert 10.0 <= started(messages)[0] <= 10.6 + LATE_S
    assert messages[0].evidence.values["alone_s"] == pytest.approx(5.0)


def test_a_bag_that_is_watched_carried_or_fetched_in_time_is_not():
    watched = [stands(0.7, 0.7, 1, 29), bag(0.75, 0.7, 1, 29)]
    carried = Person(((1, 0.6, 0.95), (25, 0.95, 0.95)), width=0.04, height=0.06, label=BAG)
    assert run([rule("abandoned", **LEFT_BAG)], watched) == []
    assert run([rule("abandoned", **LEFT_BAG)], [carried]) == []
    back = Person(((1, 0.7, 0.7), (5, 0.7, 0.7), (6, 0.4, 0.7), (8, 0.4, 0.7), (9, 0.7, 0.7), (25, 0.7, 0.7)))
    assert run([rule("abandoned", **LEFT_BAG)], [back, bag(0.75, 0.7, 1, 25)]) == []
