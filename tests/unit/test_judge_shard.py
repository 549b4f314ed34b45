"""The cameras of one judge: clips that come late, out of order or not at all, and settings that change under them."""

from __future__ import annotations

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.detections import ClipDetections
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.evidence import Author
from nodeagent.judge.reorder import HANDOVER_WAIT_S, UNKNOWN_WAIT_S
from nodeagent.judge.shard import Batch, Shard
from tests.support.scenarios import Scene, changed, loitering, stands, unknown

WAIT_S = 25.0
#: Somebody stands in the zone all the time; clips of 5 s.
SCENE = Scene(people=(stands(0.7, 0.5, 0.0, 400.0),), seconds=300.0, fps=1.0)
RULE = loitering(dwell_s=60.0)


def spec(sample_fps: float = 1.0) -> CameraSpec:
    return CameraSpec.model_validate(
        {"camera_id": "cam", "record": {"url": "rtsp://host/path"}, "sample_fps": sample_fps, "rules": [RULE]}
    )


def shard(sample_fps: float = 1.0) -> Shard[int]:
    author = Author("node", "cam", 15.0, 15.0)
    made: Shard[int] = Shard(lambda camera: CameraJudge(author, camera.rules, camera.sample_fps), WAIT_S)
    made.want([spec(sample_fps)])
    return made


def feed(to: Shard[int], arrivals: list[tuple[float, ClipDetections]]) -> list[str]:
    """Give clips at their times (served seconds); returns the stages of the alarms."""
    stages = []
    for token, (served_s, clip) in enumerate(sorted(arrivals, key=lambda item: item[0])):
        batch: Batch[int] = Batch()
        to.take(clip, token, served_s, batch)
        to.judge_due(served_s, batch)
        stages += [alarm.stage for alarm, _ in batch.alarms]
    return stages


def test_a_backlog_that_fresh_clips_overtake_is_judged_whole_however_long_it_takes() -> None:
    clips, judge = SCENE.clips(), shard()
    before = [(0.0, clip) for clip in clips[:3]]
    # Fresh ones every 5 s from clip 40 on; the backlog between comes slower than the wait would allow in all.
    fresh = [(1.0 + 5.0 * number, clip) for number, clip in enumerate(clips[40:])]
    backlog = [(2.0 + 2.5 * number, clip) for number, clip in enumerate(clips[3:40])]
    assert backlog[-1][0] > 3 * WAIT_S
    stages = feed(judge, before + fresh + backlog)
    counters = judge.judges["cam"].ledger.counters
    assert (counters.gaps, counters.late, counters.clips_judged) == (0, 0, len(clips))
    assert stages[0] == "started"


def test_a_backlog_that_stops_is_a_gap_after_one_wait() -> None:
    clips, judge = SCENE.clips(), shard()
    feed(judge, [(0.0, clip) for clip in clips[:3]] + [(1.0, clips[20])] + [(10.0, clip) for clip in clips[3:8]])
    for served_s, judged in ((10.0 + WAIT_S - 0.1, 8), (10.0 + WAIT_S + 0.1, 9)):
        judge.judge_due(served_s, Batch())
        assert judge.judges["cam"].ledger.counters.clips_judged == judged
    assert judge.judges["cam"].ledger.counters.gaps == 12


def test_several_holes_in_what_is_here_cost_one_wait_together() -> None:
    clips, judge = SCENE.clips(), shard()
    feed(judge, [(0.0, clip) for clip in (*clips[:3], clips[4], clips[5], clips[7], clips[9], clips[10])])
    judge.judge_due(WAIT_S + 0.1, Batch())
    assert judge.judges["cam"].ledger.counters.clips_judged == 8
    assert judge.held == 0


def test_another_sampling_rate_is_taken_over_although_the_rules_stay() -> None:
    rare = Scene(people=SCENE.people, seconds=300.0, fps=0.4).clips()
    judge = shard(sample_fps=5.0)
    feed(judge, [(0.0, rare[0])])
    assert not judge.want([spec(sample_fps=0.4)]), "there is nothing to store or tell"
    stages = feed(judge, [(float(number), clip) for number, clip in enumerate(rare[1:], 1)])
    assert stages[:1] == ["started"], "2.5 s between samples are no gap at this rate"


def test_clips_that_wait_when_their_camera_leaves_go_to_whoever_has_it_now() -> None:
    clips, judge = SCENE.clips(), shard()
    feed(judge, [(0.0, clip) for clip in (clips[0], clips[2], clips[3])])
    batch = judge.want([])
    assert (batch.strays, batch.settled, batch.refused) == ([1, 2], [], 0)


def test_a_clip_that_waits_behind_a_hole_and_is_overtaken_by_a_new_owner_holds_up_nobody() -> None:
    clips, judge = SCENE.clips(), shard()
    began_ns = clips[1].header.start_ns
    newer = [changed(clip, epoch=2, clip_seq=seq, epoch_started_ns=began_ns) for seq, clip in enumerate(clips[1:3])]
    feed(judge, [(0.0, clips[0]), (1.0, clips[2]), (2.0, newer[0]), (2.0, newer[1])])
    counters = judge.judges["cam"].ledger.counters
    assert (counters.clips_judged, counters.fenced, counters.gaps, judge.held) == (3, 1, 0, 0)


def test_a_new_owner_waits_for_its_predecessor_as_long_as_that_one_sends() -> None:
    clips, judge = SCENE.clips(), shard()
    newer = changed(clips[40], epoch=2, clip_seq=0, epoch_started_ns=clips[40].header.start_ns)
    # Its backlog lay in a journal for minutes, and comes slowly.
    old = [(2.0 + (HANDOVER_WAIT_S - 1) * number, clip) for number, clip in enumerate(clips[1:6])]
    feed(judge, [(0.0, clips[0]), (1.0, newer), *old])
    assert judge.held == 1
    judge.judge_due(old[-1][0] + HANDOVER_WAIT_S - 0.1, Batch())
    assert judge.held == 1
    judge.judge_due(old[-1][0] + HANDOVER_WAIT_S + 0.1, Batch())
    counters = judge.judges["cam"].ledger.counters
    assert (counters.clips_judged, counters.late, judge.held) == (7, 0, 0)


def test_a_clip_that_one_node_could_not_look_at_waits_for_the_one_that_could() -> None:
    clips, judge = SCENE.clips(), shard()
    nothing = [unknown(clip) for clip in clips]
    feed(judge, [(0.0, clips[0]), (1.0, nothing[1]), (2.0, clips[2]), (1.0 + UNKNOWN_WAIT_S - 0.1, clips[1])])
    counters = judge.judges["cam"].ledger.counters
    assert (counters.clips_judged, counters.unknown, counters.duplicates) == (3, 0, 1)
    feed(judge, [(20.0, clips[4]), (20.0, nothing[3]), (20.0 + UNKNOWN_WAIT_S - 0.1, nothing[3])])
    assert counters.clips_judged == 3
    judge.judge_due(20.0 + UNKNOWN_WAIT_S + 0.1, Batch())
    assert (counters.clips_judged, counters.unknown, counters.gaps) == (5, 1, 0)


def test_a_new_owner_that_was_late_is_judged_from_where_its_predecessor_ended() -> None:
    clips, judge = SCENE.clips(), shard()
    times = clips[1].header.sample_ns[2:] + clips[2].header.sample_ns[:2]
    # Its first clip begins before the predecessor's last one, which was judged before it came.
    newer = changed(
        clips[1], epoch=2, clip_seq=0, epoch_started_ns=times[0], sample_ns=times, start_ns=clips[0].header.start_ns
    )
    feed(judge, [(0.0, clips[0]), (5.0, clips[1]), (5.0, newer), (6.0, clips[2])])
    ledger = judge.judges["cam"].ledger
    assert (ledger.counters.clips_judged, ledger.counters.late, ledger.counters.fenced) == (3, 0, 1)
    assert (ledger.counters.samples_judged, ledger.last_sample_ns) == (12, times[-1])
