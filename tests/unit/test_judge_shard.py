"""The cameras of one judge: clips that come late, out of order or not at all, and settings that change under them."""

from __future__ import annotations

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.detections import ClipDetections
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.evidence import Author
from nodeagent.judge.shard import Batch, Shard
from tests.support.scenarios import Scene, loitering, stands

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
