"""Scripted scenes with known truth for the kinds of rules that look at lines, ways, counts and classes."""

from typing import get_args

import numpy as np
import pytest

from nodeagent.contract.rule import Rule
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.rules import KINDS
from nodeagent.judge.rules.speed import homography
from nodeagent.judge.snapshot import pack, unpack
from tests.support.scenarios import GROUND, Person, Scene, crossing, later, rule, seconds_of, stands, unknown, walks
from tests.unit.test_judge_scenarios import AUTHOR, judge_all, run, told

#: Delay beyond a rule's own hysteresis that is allowed: two samples at 5 a second, and the rounding of times.
LATE_S = 0.401


def started(messages) -> list[float]:
    return [seconds_of(message.confirmed_ns) for message in messages if message.stage == "started"]


def test_who_walks_over_the_line_crosses_it_once_and_the_alarm_says_which_way():
    messages = run([crossing(cooldown_s=0.0)], [walks(1.0, 11.0, 0.1, 0.9)])
    assert [stage for _, stage in told(messages)] == ["started", "ended"]
    # On the line at 6.0 s; 0.02 heights beyond at 6.14 s; two samples beyond by 6.4 s.
    assert 6.0 < started(messages)[0] <= 6.2 + LATE_S
    # From the top to the bottom of the picture, its right half lies to the left.
    assert messages[0].evidence.values["to_left"] == 1.0
    assert messages[0].evidence.values["to_right"] == 0.0
    assert messages[0].evidence.polygon == ((0.5, 0.0), (0.5, 1.0))
    assert messages[0].evidence.subjects == 1


@pytest.mark.parametrize(("direction", "x0", "x1", "expected"), [
    ("to_left", 0.1, 0.9, 1), ("to_left", 0.9, 0.1, 0), ("to_right", 0.1, 0.9, 0), ("to_right", 0.9, 0.1, 1),
    ("both", 0.1, 0.9, 1), ("both", 0.9, 0.1, 1),
])  # fmt: skip
def test_only_the_direction_that_counts_is_told_of(direction, x0, x1, expected):
    messages = run([crossing(direction=direction)], [walks(1.0, 11.0, x0, x1)])
    assert len(started(messages)) == expected


def test_a_box_that_trembles_on_the_line_crosses_nothing():
    for seed in range(5):
        assert run([crossing(min_distance=0.05)], [stands(0.5, 0.7, 0, 29)], jitter=0.2, seed=seed) == []


def test_who_walks_around_the_end_of_a_line_does_not_cross_it():
    around = Person(((1, 0.4, 0.9), (4, 0.4, 0.2), (7, 0.6, 0.2), (10, 0.6, 0.9)), height=0.1)
    assert run([crossing(((0.5, 0.5), (0.5, 1.0)))], [around]) == []
    straight = Person(((1, 0.4, 0.9), (7, 0.6, 0.9)), height=0.1)
    assert len(started(run([crossing(((0.5, 0.5), (0.5, 1.0)))], [straight]))) == 1


def test_who_turns_back_at_the_line_does_not_cross_it_and_who_goes_slowly_over_it_does():
    back = Person(((1, 0.2, 0.7), (5, 0.505, 0.7), (9, 0.2, 0.7)))
    assert run([crossing(min_distance=0.02)], [back]) == []
    slow = Person(((1, 0.4, 0.7), (3, 0.49, 0.7), (13, 0.51, 0.7), (15, 0.6, 0.7)))
    assert len(started(run([crossing(min_distance=0.05)], [slow]))) == 1


def test_a_crossing_behind_a_short_occlusion_counts_and_one_within_a_gap_does_not():
    hidden = walks(1.0, 11.0, 0.1, 0.9, hidden=((5.6, 6.4),))
    assert len(started(run([crossing()], [hidden]))) == 1
    assert run([crossing()], [walks(1.0, 11.0, 0.1, 0.9)], gone=((4.0, 7.9),)) == []


def test_two_who_cross_together_are_one_episode_with_two_subjects_and_later_ones_are_others():
    together = [walks(1.0, 11.0, 0.1, 0.9, y=0.5), walks(1.0, 11.0, 0.1, 0.9, y=0.9)]
    messages = run([crossing()], together)
    assert [stage for _, stage in told(messages)] == ["started", "ended"]
    assert messages[0].evidence.subjects == 2
    later = run([crossing(cooldown_s=2.0)], [walks(1, 6, 0.2, 0.8), walks(12, 17, 0.2, 0.8)])
    assert [stage for _, stage in told(later)] == ["started", "ended", "started", "ended"]


def test_who_goes_against_the_lane_is_told_of_and_who_goes_with_it_across_it_or_nowhere_is_not():
    lane = rule("wrong_direction", ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)), heading=((0.1, 0.5), (0.9, 0.5)))
    assert run([lane], [walks(1.0, 11.0, 0.1, 0.9)], jitter=0.02) == []
    assert run([lane], [Person(((1, 0.5, 0.3), (8, 0.5, 0.95)))]) == []
    assert run([lane], [stands(0.5, 0.7, 0, 29)], jitter=0.05) == []
    wrong = run([lane], [walks(1.0, 11.0, 0.9, 0.1)])
    assert [stage for _, stage in told(wrong)] == ["started", "ended"]
    # 0.1 heights are 0.056 widths, walked in 0.7 s, cut into strides that end at samples.
    assert 1.7 <= started(wrong)[0] <= 2.0 + 2 * LATE_S
    assert wrong[0].evidence.values["wrong_way"] >= 0.1


def test_a_turn_sets_the_wrong_way_back_to_nothing():
    lane = rule("wrong_direction", ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)), heading=((0.1, 0.5), (0.9, 0.5)),
                min_distance=0.4)  # fmt: skip
    to_and_fro = [(0.0, 0.5), (1.5, 0.36), (3.0, 0.5), (4.5, 0.36), (6.0, 0.5), (7.5, 0.36)]
    assert run([lane], [Person(tuple((t, x, 0.7) for t, x in to_and_fro))]) == []


def test_a_crowd_is_told_of_once_it_lasted_and_fewer_are_none():
    people = [stands(0.6 + 0.1 * k, 0.6 + 0.1 * (k % 2), 1 + k, 20) for k in range(4)]
    messages = run([rule("crowd", min_count=4, hold_s=3.0)], people)
    assert [stage for _, stage in told(messages)] == ["started", "ended"]
    assert 7.0 <= started(messages)[0] <= 7.0 + LATE_S
    assert messages[0].evidence.values["count"] == 4.0
    assert messages[0].evidence.subjects == 4
    assert run([rule("crowd", min_count=4, hold_s=3.0)], people[:3]) == []
    short = [stands(0.6 + 0.1 * k, 0.7, 5, 7.4, height=0.1) for k in range(4)]
    assert run([rule("crowd", min_count=4, hold_s=3.0, grace_s=0.2)], short) == []


def test_a_crowds_clock_stands_still_over_a_gap():
    people = [stands(0.6 + 0.1 * k, 0.7, 1, 29, height=0.1) for k in range(4)]
    messages = run([rule("crowd", min_count=4, hold_s=5.0)], people, gone=((4.0, 12.0),))
    # 1.2 to 3.8 s, and 12.0 s on.
    assert 14.2 <= started(messages)[0] <= 14.4 + LATE_S


def test_a_post_that_is_left_is_told_of_and_one_that_is_back_in_time_is_not():
    post = rule("absence", absent_s=6.0)
    left = run([post], [stands(0.8, 0.7, 0, 5), stands(0.8, 0.7, 20, 29)])
    assert [stage for _, stage in told(left)] == ["started", "ended"]
    # Gone after the last sample and the grace of 1 s.
    assert 11.8 <= started(left)[0] <= 12.2 + LATE_S
    assert left[0].evidence.subjects == 0
    assert left[0].evidence.values == {"absent_s": pytest.approx(6.0), "present": 0.0}
    assert run([post], [stands(0.8, 0.7, 0, 5), stands(0.8, 0.7, 10, 29)]) == []


def test_absence_never_fires_on_what_was_not_seen():
    post = rule("absence", absent_s=6.0)
    people = [stands(0.8, 0.7, 0, 60)]
    assert run([post], people, 60.0, gone=((5.0, 50.0),)) == []
    clips = Scene(tuple(people), 60.0).clips()
    assert judge_all([post], [clips[0], *(unknown(clip) for clip in clips[1:10]), *clips[10:]]) == []


def test_a_false_box_now_and_then_mans_no_post():
    extra = tuple((k * 2.0, 0.8, 0.7) for k in range(1, 14))
    assert len(started(run([rule("absence", absent_s=10.0)], [], extra=extra))) == 1


def test_a_class_that_flickers_under_changing_ids_is_present():
    extra = Person(((2.0, 0.7, 0.7), (2.2, 0.7, 0.7), (2.4, 0.9, 0.9), (2.6, 0.9, 0.9), (2.8, 0.7, 0.5), (9, 0.7, 0.5)),
                   label=1, hidden=((4.0, 4.4), (5.0, 5.4)))  # fmt: skip
    messages = run([rule("presence", labels=("car",), hold_s=3.0)], [extra])
    assert [stage for _, stage in told(messages)] == ["started", "ended"]
    assert 5.0 <= started(messages)[0] <= 5.4 + LATE_S
    assert messages[0].evidence.values["seen_share"] >= 0.5
    assert run([rule("presence", labels=("car",), hold_s=3.0)], [stands(0.8, 0.7, 1, 20)]) == []


def test_a_class_seen_in_too_few_samples_is_not_present():
    rare = stands(0.8, 0.7, 1, 28, label=1, hidden=tuple((k, k + 0.7) for k in range(1, 28)))
    assert run([rule("presence", labels=("car",), hold_s=3.0, min_share=0.6)], [rare]) == []


def test_a_long_queue_and_a_long_wait_are_told_of_and_say_how_long():
    people = [stands(0.6 + 0.08 * k, 0.7, 1, 20, height=0.1, width=0.03) for k in range(5)]
    long = run([rule("queue", max_length=5, hold_s=4.0)], people)
    assert 5.0 <= started(long)[0] <= 5.2 + LATE_S
    assert long[0].evidence.values["length"] == 5.0
    assert long[0].evidence.values["longest_wait_s"] == pytest.approx(4.2, abs=0.3)
    waits = run([rule("queue", max_length=50, max_wait_s=8.0)], [*people[:2], stands(0.9, 0.9, 7, 13)])
    assert [stage for _, stage in told(waits)] == ["started", "ended"]
    assert 9.0 <= started(waits)[0] <= 9.0 + LATE_S
    assert waits[0].evidence.subjects == 2
    assert run([rule("queue", max_length=6)], people) == []


def test_a_speed_is_measured_on_the_ground():
    # 0.08 of the picture's width a second are 0.8 m/s, 2.88 km/h.
    walker = walks(1.0, 11.0, 0.1, 0.9, y=0.75)
    everywhere = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    messages = run([rule("speed", everywhere, **GROUND, limit_kmh=2.0)], [walker])
    assert [stage for _, stage in told(messages)] == ["started", "ended"]
    assert 3.0 <= started(messages)[0] <= 3.0 + LATE_S
    assert messages[0].evidence.values["speed_kmh"] == pytest.approx(2.88, rel=0.02)
    assert run([rule("speed", everywhere, **GROUND, limit_kmh=3.5)], [walker]) == []
    # A camera that was away for 4 s did not see anybody run.
    assert run([rule("speed", everywhere, **GROUND, limit_kmh=3.5)], [walker], gone=((4.0, 8.0),)) == []


def test_the_homography_takes_the_four_points_to_their_places():
    picture = ((0.3, 0.4), (0.7, 0.45), (0.95, 0.9), (0.05, 0.95))
    ground = ((0.0, 30.0), (12.0, 30.0), (12.0, 0.0), (0.0, 0.0))
    matrix = homography(picture, ground)
    for (x, y), (u, v) in zip(picture, ground, strict=True):
        found = matrix @ np.array([x, y, 1.0])
        assert found[2] > 0
        assert found[:2] / found[2] == pytest.approx((u, v), abs=1e-9)


def test_what_kinds_remember_survives_a_restart_and_a_change_of_another_rule():
    rules = [crossing(), rule("crowd", min_count=1, hold_s=8.0), rule("wrong_direction", heading=((0, 0), (1, 0)))]
    clips = Scene((walks(1.0, 11.0, 0.1, 0.9), stands(0.8, 0.5, 2, 28)), 30.0).clips()
    whole = judge_all(rules, clips)
    judge = CameraJudge(AUTHOR, rules, 5.0)
    messages = judge_all([], clips[:1], judge)
    judge = unpack(pack(judge), AUTHOR, 5.0)
    messages += judge.retarget([*rules, rule("absence", absent_s=600.0)], 5.0)
    messages += judge_all([], clips[1:], judge)
    assert messages == whole
    assert {rule_id for rule_id, _ in told(whole)} == {"crossing", "crowd"}


def test_a_changed_question_is_asked_anew():
    people = [stands(0.8, 0.7, 0, 29)]
    clips = Scene(tuple(people), 30.0).clips()
    judge = CameraJudge(AUTHOR, [rule("crowd", min_count=1, hold_s=7.0)], 5.0)
    judge_all([], clips[:1], judge)
    judge.retarget([rule("crowd", min_count=1, hold_s=7.0, severity="critical", exit_s=9.0, storm_per_hour=3)], 5.0)
    assert judge.memories[0].places["since_ns"][0] > 0
    judge.retarget([rule("crowd", min_count=1, hold_s=7.0, min_score=0.5)], 5.0)
    assert judge.memories[0].places["since_ns"][0] == 0


@pytest.mark.parametrize("armed_from_s", [0.0, 7.0])
def test_what_a_kind_remembers_begins_anew_with_arming(armed_from_s):
    # T0 is a Tuesday, 22:13:20 UTC; `shift` puts the start of the span where the scene has its second `armed_from_s`.
    shift = round(40.0 - armed_from_s)
    clips = later(Scene((stands(0.8, 0.7, 0, 40),), 40.0).clips(), shift)
    rules = [
        rule("crowd", min_count=1, hold_s=5.0, schedule={"time_zone": "UTC", "weekly": ["tue 22:14-23:00"]}),
        rule("absence", min_count=2, absent_s=5.0, schedule={"time_zone": "UTC", "weekly": ["tue 22:14-23:00"]}),
    ]
    confirmed = {m.rule_id: seconds_of(m.confirmed_ns) - shift for m in judge_all(rules, clips) if m.stage == "started"}
    assert confirmed.keys() == {"crowd", "absence"}
    for found in confirmed.values():
        assert armed_from_s + 5.0 <= found <= armed_from_s + 5.0 + LATE_S


def test_every_kind_of_the_contract_has_a_judge():
    models = get_args(get_args(Rule)[0])
    assert {model.model_fields["kind"].default for model in models} == set(KINDS)
