"""Scripted scenes with known truth: each says which alarms a person would expect, and nothing else may come."""

import pytest

from nodeagent.contract.alarm import AlarmMessage
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.evidence import Author
from tests.support.scenarios import (
    MIDDLE,
    Person,
    Scene,
    intrusion,
    later,
    loitering,
    seconds_of,
    stands,
    unknown,
    walks,
)

AUTHOR = Author("node", "cam", 15.0, 15.0)


def judge_all(rules, clips, judge=None) -> list[AlarmMessage]:
    judge = judge or CameraJudge(AUTHOR, rules, 5.0)
    messages = []
    for clip in clips:
        judge.ledger.arrive(clip.header)
        messages += judge.judge(clip)
    return messages


def run(rules, people, seconds=30.0, **fields) -> list[AlarmMessage]:
    return judge_all(rules, Scene(tuple(people), seconds, **fields).clips())


def told(messages) -> list[tuple[str, str]]:
    return [(message.rule_id, message.stage) for message in messages]


def test_a_walk_through_the_zone_is_one_episode_with_start_confirmation_and_end():
    messages = run([intrusion(cooldown_s=5.0)], [walks(1.0, 11.0, 0.1, 0.9)])
    assert told(messages) == [("no-entry", "started"), ("no-entry", "ended")]
    started, ended = messages
    # x = 0.55 is crossed at 6.6 s; confirmed 0.6 s of dwell later.
    assert 6.6 <= seconds_of(started.episode_started_ns) <= 7.0
    assert 0.6 <= seconds_of(started.confirmed_ns) - seconds_of(started.episode_started_ns) <= 0.61
    assert ended.dedup_key == started.dedup_key
    # Last seen at 11.0 s; unseen for the grace of 1 s it is gone.
    assert 11.0 < seconds_of(ended.ended_ns) <= 12.4
    assert started.evidence.subjects == ended.evidence.subjects == 1
    assert [box.subject for box in started.evidence.boxes] == [True]
    assert started.replay_to_ns - started.replay_from_ns == 30_000_000_000


def test_who_stays_out_of_the_zone_or_in_an_exclusion_raises_nothing():
    rule = intrusion(exclude=[{"name": "door", "polygon": [[0.7, 0.0], [1.0, 0.0], [1.0, 1.0], [0.7, 1.0]]}])
    assert run([rule], [stands(0.2, 0.7, 0, 25), stands(0.85, 0.7, 0, 25)]) == []


def test_flicker_of_single_boxes_raises_nothing():
    extra = tuple((k * 1.6, 0.75, 0.7) for k in range(1, 15))
    assert run([intrusion(), loitering()], [], extra=extra) == []


def test_a_box_too_weak_too_small_or_of_another_class_does_not_count():
    rule = intrusion(labels=["person"], min_height=0.15, min_score=0.5)
    people = [
        stands(0.6, 0.5, 0, 25, label=1),
        stands(0.7, 0.7, 0, 25, height=0.1),
        stands(0.9, 0.9, 0, 25, score=0.45),
    ]
    assert run([rule], people) == []


def test_the_anchor_decides():
    low = [stands(0.5, 0.7, 0, 20)]  # Feet below the zone, head inside.
    assert run([intrusion(MIDDLE, anchor="bottom_centre")], low) == []
    assert told(run([intrusion(MIDDLE, anchor="top_centre")], low))[0] == ("no-entry", "started")


def test_a_zone_that_reaches_the_pictures_edge_holds_who_is_cut_off_by_it():
    assert told(run([intrusion()], [stands(0.8, 1.0, 1, 9)]))[0] == ("no-entry", "started")


def test_an_occlusion_within_the_grace_does_not_end_the_episode_or_the_dwell():
    people = [stands(0.8, 0.7, 1, 12, hidden=((4.0, 4.8),))]
    messages = run([intrusion(exit_s=0.2), loitering(dwell_s=6.0, exit_s=0.2)], people)
    assert told(messages) == [
        ("no-entry", "started"),
        ("no-waiting", "started"),
        ("no-entry", "ended"),
        ("no-waiting", "ended"),
    ]
    assert seconds_of(messages[1].confirmed_ns) == pytest.approx(7.0)


def test_a_weak_phase_keeps_the_track():
    people = [stands(0.8, 0.7, 1, 12, weak=((3.0, 5.0),))]
    messages = run([loitering(dwell_s=6.0, grace_s=3.0)], people)
    assert told(messages) == [("no-waiting", "started"), ("no-waiting", "ended")]
    assert len({box.track_id for message in messages for box in message.evidence.boxes}) == 1


def test_an_id_switch_inside_the_zone_keeps_an_intrusion_but_not_a_dwell():
    # Away for 3 s, longer than any track lives, and back at the same place: a new id.
    people = [stands(0.8, 0.7, 1, 4.5), stands(0.8, 0.7, 6.5, 9.5)]
    rules = [intrusion(exit_s=2.0), loitering(dwell_s=4.0)]
    messages = run(rules, people)
    assert told(messages) == [("no-entry", "started"), ("no-entry", "updated"), ("no-entry", "ended")]
    assert messages[-1].evidence.subjects == 2


def test_two_people_who_take_turns_are_one_episode():
    people = [walks(1.0, 9.0, 0.3, 0.95, y=0.5), walks(6.0, 14.0, 0.95, 0.3, y=0.9)]
    messages = run([intrusion()], people)
    assert [stage for _, stage in told(messages)] == ["started", "updated", "ended"]
    assert len({message.dedup_key for message in messages}) == 1
    assert messages[-1].evidence.subjects == 2


def test_two_intruders_at_once_are_one_episode_with_two_subjects():
    messages = run([intrusion()], [stands(0.7, 0.5, 1, 9), stands(0.9, 0.9, 1, 9)])
    assert told(messages) == [("no-entry", "started"), ("no-entry", "ended")]
    assert messages[0].evidence.subjects == 2
    assert sum(box.subject for box in messages[0].evidence.boxes) == 2


def test_two_zones_of_one_rule_have_episodes_of_their_own():
    rule = intrusion().model_copy(update={"zones": (*intrusion().zones, *intrusion(MIDDLE).zones)})
    rule = rule.model_copy(update={"zones": (rule.zones[0], rule.zones[1].model_copy(update={"name": "gate"}))})
    messages = run([rule], [stands(0.8, 0.7, 1, 9), stands(0.5, 0.5, 1, 9)])
    assert sorted((m.zone, m.stage) for m in messages) == [
        ("gate", "ended"), ("gate", "started"), ("yard", "ended"), ("yard", "started"),
    ]  # fmt: skip
    assert len({message.dedup_key for message in messages}) == 2


def test_back_within_the_cooldown_it_is_the_same_alarm_and_after_it_another():
    rule = intrusion(cooldown_s=6.0)
    within = run([rule], [stands(0.8, 0.7, 1, 4), stands(0.8, 0.7, 10, 14)])
    assert [stage for _, stage in told(within)] == ["started", "ended", "updated", "ended"]
    assert len({message.dedup_key for message in within}) == 1
    assert within[-1].ended_ns > within[1].ended_ns
    after = run([rule], [stands(0.8, 0.7, 1, 4), stands(0.8, 0.7, 16, 20)])
    assert [stage for _, stage in told(after)] == ["started", "ended", "started", "ended"]
    assert len({message.dedup_key for message in after}) == 2
    assert after[2].evidence.subjects == 1


def test_a_loiterer_is_told_from_passers_by():
    people = [stands(0.8, 0.6, 1, 15), walks(3, 6, 0.5, 1.0, y=0.95)]
    messages = run([loitering(dwell_s=10.0)], people)
    assert told(messages) == [("no-waiting", "started"), ("no-waiting", "ended")]
    assert seconds_of(messages[0].confirmed_ns) == pytest.approx(11.0)
    assert messages[0].evidence.values == {"dwell_s": pytest.approx(10.0)}
    assert messages[0].evidence.subjects == 1


def test_a_missing_clip_pauses_the_loiterers_clock():
    clips = Scene((stands(0.8, 0.7, 1, 30),), 35.0).clips()
    judge = CameraJudge(AUTHOR, [loitering(dwell_s=10.0)], 5.0)
    messages = judge_all([], [clips[0]], judge)
    judge.ledger.arrive(clips[2].header)
    messages += judge.judge(clips[2], missing=(1, 1))
    messages += judge_all([], clips[3:], judge)
    # 1.0 to 4.8 s and 10.0 s on: 3.8 s + 6.2 s.
    assert seconds_of(messages[0].confirmed_ns) == pytest.approx(16.2)
    assert judge.ledger.counters.gaps == 1


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_an_unknown_clip_neither_fires_nor_ends_anything(lost):
    clips = Scene((stands(0.8, 0.7, 1, 30),), 35.0).clips()
    cut = [unknown(clip) if lost >= n > 0 else clip for n, clip in enumerate(clips)]
    messages = judge_all([intrusion(exit_s=0.0, grace_s=0.5)], cut)
    assert [stage for _, stage in told(messages)] == ["started", "ended"]
    assert seconds_of(messages[1].ended_ns) > 30.0


def test_a_camera_that_was_away_is_a_gap_too():
    people = [stands(0.8, 0.7, 1, 60)]
    messages = run([intrusion(exit_s=0.2), loitering(dwell_s=20.0)], people, 70.0, gone=((5.0, 35.0),))
    assert told(messages)[:2] == [("no-entry", "started"), ("no-waiting", "started")]
    # 1.0 to 4.8 s, and 35.0 s on: 3.8 s + 16.2 s.
    assert seconds_of(messages[1].confirmed_ns) == pytest.approx(51.2)


def test_alarms_are_the_same_at_other_sample_rates():
    for fps in (2.0, 10.0, 25.0):
        messages = run([intrusion()], [walks(1.0, 11.0, 0.1, 0.9)], fps=fps)
        assert [stage for _, stage in told(messages)] == ["started", "ended"], fps


def test_noise_of_boxes_changes_nothing():
    for seed in range(5):
        people = [walks(1.0, 15.0, 0.1, 0.9), stands(0.2, 0.5, 0, 30), stands(0.7, 0.5, 18, 30)]
        messages = run([intrusion(cooldown_s=1.0)], people, 40.0, jitter=0.03, seed=seed)
        assert [stage for _, stage in told(messages)] == ["started", "ended", "started", "ended"], seed


def test_many_rules_on_one_camera_do_not_disturb_each_other():
    rules = [
        intrusion(rule_id="a"),
        loitering(rule_id="b"),
        intrusion(MIDDLE, rule_id="c"),
        loitering(rule_id="d", dwell_s=6),
    ]
    together = run(rules, [walks(1.0, 9.0, 0.1, 0.9), stands(0.9, 0.9, 2, 12)])
    alone = [message for rule in rules for message in run([rule], [walks(1.0, 9.0, 0.1, 0.9), stands(0.9, 0.9, 2, 12)])]
    key = lambda m: (m.rule_id, m.evidence.sample_ns, m.stage)  # noqa: E731
    assert sorted(together, key=key) == sorted(alone, key=key)


def test_a_changed_rule_leaves_the_dwell_of_the_others_and_a_removed_one_ends_its_episode():
    clips = Scene((stands(0.8, 0.7, 1, 30),), 35.0).clips()
    judge = CameraJudge(AUTHOR, [intrusion(), loitering(dwell_s=12.0)], 5.0)
    assert told(judge_all([], clips[:2], judge)) == [("no-entry", "started")]
    ended = judge.retarget([loitering(dwell_s=12.0)], 5.0)
    assert told(ended) == [("no-entry", "ended")]
    assert seconds_of(ended[0].ended_ns) == pytest.approx(9.8)
    messages = judge_all([], clips[2:], judge)
    assert told(messages) == [("no-waiting", "started"), ("no-waiting", "ended")]
    assert seconds_of(messages[0].confirmed_ns) == pytest.approx(13.0)


def test_a_longer_dwell_keeps_the_clock_and_another_polygon_starts_it_anew():
    clips = Scene((stands(0.8, 0.7, 1, 34),), 40.0).clips()
    for changed, expected in ((loitering(dwell_s=20.0), 21.0), (loitering(MIDDLE_AND_RIGHT, dwell_s=20.0), 30.0)):
        judge = CameraJudge(AUTHOR, [loitering(dwell_s=15.0)], 5.0)
        judge_all([], clips[:2], judge)
        judge.retarget([changed], 5.0)
        messages = judge_all([], clips[2:], judge)
        assert seconds_of(messages[0].confirmed_ns) == pytest.approx(expected)


MIDDLE_AND_RIGHT = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))


def test_a_camera_without_rules_is_tracked_and_counted():
    clips = Scene((stands(0.8, 0.7, 1, 30),), 35.0).clips()
    judge = CameraJudge(AUTHOR, [], 5.0)
    assert judge_all([], clips, judge) == []
    assert judge.ledger.counters.samples_judged == 35 * 5
    assert len(judge.tracks) <= 1


def test_another_model_keeps_tracks_by_the_name_of_their_class():
    clips = Scene((stands(0.8, 0.7, 1, 30),), 35.0).clips()
    judge = CameraJudge(AUTHOR, [loitering(dwell_s=8.0, labels=["person"])], 5.0)
    judge_all([], clips[:1], judge)
    for clip in clips[1:]:
        clip.rows["label"] = 1
    renamed = [type(c)(c.header.model_copy(update={"labels": ("dog", "person")}), c.rows) for c in clips[1:]]
    messages = judge_all([], renamed, judge)
    assert seconds_of(messages[0].confirmed_ns) == pytest.approx(9.0)


def test_a_dwell_of_a_fast_walker_is_never_the_next_ones():
    people = [walks(1 + k, 2.6 + k, 0.5, 1.0, y=0.5 + 0.1 * (k % 4)) for k in range(0, 20, 2)]
    assert run([loitering(dwell_s=3.0)], people) == []


def test_an_epoch_later_continues_the_tracks():
    clips = Scene((stands(0.8, 0.7, 1, 30),), 35.0).clips()
    moved = later(clips[3:], 0.0, epoch=2, epoch_started_ns=clips[3].header.start_ns)
    messages = judge_all([loitering(dwell_s=20.0)], [*clips[:3], *moved])
    assert seconds_of(messages[0].confirmed_ns) == pytest.approx(21.0)
    assert messages[0].epoch == 2


def test_a_person_class_is_compared():
    person = Person(((1.0, 0.8, 0.7), (4.0, 0.8, 0.7)))
    car = Person(((4.2, 0.8, 0.7), (8.0, 0.8, 0.7)), label=1)
    assert run([loitering(dwell_s=5.0)], [person, car]) == []
