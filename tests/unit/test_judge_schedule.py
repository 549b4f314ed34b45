"""Rules that are armed by a schedule, and rules in shadow mode, as a judge runs them.

The scenes begin on a Tuesday, 2023-11-14, at 22:13:20 UTC: 22:14 is second 40, 22:15 second 100.
"""

import pytest

from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.snapshot import pack, unpack
from tests.support.scenarios import Scene, intrusion, loitering, seconds_of, stands
from tests.unit.test_judge_scenarios import AUTHOR, judge_all, run, told

ONE_MINUTE = {"time_zone": "UTC", "weekly": ["tue 22:14-22:15"]}
TWO_SPANS = {"time_zone": "UTC", "weekly": ["mon-fri 22:00-22:14", "tue 22:15-06:00"]}
ALWAYS = [stands(0.8, 0.7, 0, 200)]


def test_who_stands_there_before_is_counted_from_arming_and_the_episode_ends_at_disarming():
    started, ended = run([intrusion(schedule=ONE_MINUTE, cooldown_s=0.0)], ALWAYS, 120.0)
    assert (started.stage, ended.stage) == ("started", "ended")
    assert seconds_of(started.episode_started_ns) == 40.0
    assert 40.6 <= seconds_of(started.confirmed_ns) <= 40.8
    assert seconds_of(ended.ended_ns) == 100.0
    assert ended.dedup_key == started.dedup_key


def test_the_dwell_of_a_loiterer_starts_at_arming():
    started, ended = run([loitering(dwell_s=30.0, schedule=ONE_MINUTE)], ALWAYS, 120.0)
    assert seconds_of(started.episode_started_ns) == 40.0
    assert 70.0 <= seconds_of(started.confirmed_ns) <= 70.2
    assert seconds_of(ended.ended_ns) == 100.0


def test_a_rule_that_is_not_armed_leaves_the_others_alone():
    rules = [intrusion(rule_id="night", schedule={"time_zone": "UTC", "weekly": ["sat 00:00-24:00"]}), intrusion()]
    assert told(run(rules, ALWAYS, 20.0)) == [("no-entry", "started")]


def test_a_time_without_arming_that_falls_into_a_gap_ends_the_episode_all_the_same():
    messages = run([intrusion(schedule=TWO_SPANS, cooldown_s=5.0)], ALWAYS, 120.0, gone=((30.0, 110.0),))
    assert told(messages) == [("no-entry", "started"), ("no-entry", "ended"), ("no-entry", "started")]
    assert seconds_of(messages[1].ended_ns) == 40.0
    assert seconds_of(messages[2].episode_started_ns) == 110.0


def test_within_the_cooldown_arming_anew_continues_the_episode():
    messages = run([intrusion(schedule=TWO_SPANS, cooldown_s=90.0)], ALWAYS, 120.0)
    assert [message.stage for message in messages] == ["started", "ended", "updated"]
    assert len({message.dedup_key for message in messages}) == 1


@pytest.mark.parametrize("schedule", [ONE_MINUTE, TWO_SPANS])
def test_a_judge_restored_at_any_clip_tells_the_same(schedule):
    rules = [intrusion(schedule=schedule, cooldown_s=5.0), loitering(schedule=schedule)]
    clips = Scene(tuple(ALWAYS), 130.0).clips()
    whole = judge_all(rules, clips)
    assert len(whole) >= 4
    judge, messages = CameraJudge(AUTHOR, rules, 5.0), []
    for clip in clips:
        judge = unpack(pack(judge), AUTHOR, 5.0)
        messages += judge_all(rules, [clip], judge)
    assert messages == whole


def test_a_change_to_a_schedule_that_is_not_armed_ends_the_episode_at_its_last_sample():
    judge = CameraJudge(AUTHOR, [intrusion()], 5.0)
    clips = Scene(tuple(ALWAYS), 20.0).clips()
    assert told(judge_all(None, clips[:2], judge)) == [("no-entry", "started")]
    assert judge.retarget([intrusion(schedule=ONE_MINUTE)], 5.0) == []
    (ended,) = judge_all(None, clips[2:], judge)
    assert (ended.stage, seconds_of(ended.ended_ns)) == ("ended", 9.8)


def test_a_schedule_that_is_armed_now_keeps_the_clocks_of_before():
    judge = CameraJudge(AUTHOR, [loitering(dwell_s=12.0)], 5.0)
    clips = Scene(tuple(ALWAYS), 20.0).clips()
    judge_all(None, clips[:2], judge)
    judge.retarget([loitering(dwell_s=12.0, schedule={"time_zone": "UTC", "weekly": ["tue 22:00-23:00"]})], 5.0)
    (started,) = judge_all(None, clips[2:], judge)
    assert seconds_of(started.episode_started_ns) == 0.0
    assert 12.0 <= seconds_of(started.confirmed_ns) <= 12.2


def test_a_rule_in_shadow_mode_says_so_and_is_another_episode_when_it_counts():
    judge = CameraJudge(AUTHOR, [intrusion(shadow=True)], 5.0)
    clips = Scene(tuple(ALWAYS), 20.0).clips()
    (tried,) = judge_all(None, clips[:2], judge)
    assert (tried.stage, tried.shadow) == ("started", True)
    (over,) = judge.retarget([intrusion()], 5.0)
    assert (over.stage, over.shadow, over.dedup_key) == ("ended", True, tried.dedup_key)
    (real,) = judge_all(None, clips[2:], judge)
    assert (real.stage, real.shadow) == ("started", False)
    assert seconds_of(real.episode_started_ns) == 10.0
    assert real.dedup_key != tried.dedup_key
