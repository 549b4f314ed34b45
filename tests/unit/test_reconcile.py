"""What the supervisor decides from what it sees: one table of situations, then the drain."""

from dataclasses import replace

import pytest

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.report import Kind, Phase
from nodeagent.infra.settings.sections import JudgeSettings, RedisSettings, Settings
from nodeagent.supervisor.decide import (
    ABORT_GRACE_S,
    KILL_AGAIN_S,
    Abort,
    Action,
    ChildView,
    Forget,
    Kill,
    MarkReady,
    Pressure,
    Spawn,
    Stop,
    View,
    decide,
)
from nodeagent.supervisor.kinds import KINDS
from nodeagent.supervisor.roster import Want, drain_step, full_roster, kept
from nodeagent.supervisor.sentence import sentence, workers_ready

NOW = 1000.0
STOP_BY = dict.fromkeys(Kind, NOW + 20.0)
GATE = Want(Kind.CAPTURE, "gate", part=("a.mp4",))
OTHER_GATE = replace(GATE, part=("b.mp4",))
HANG_S = KINDS[Kind.CAPTURE].hang_limit_s
START_S = KINDS[Kind.CAPTURE].start_limit_s
STARTING = ChildView(GATE, Phase.STARTING, since_s=NOW - 1)
RUNNING = ChildView(GATE, Phase.RUNNING, since_s=NOW - 100, is_ready=True, beat_s=NOW - 1)
STOPPING = ChildView(GATE, Phase.STOPPING, since_s=NOW - 1, pressure=Pressure.TERM, stop_by_s=NOW + 5)
BACKOFF = ChildView(GATE, Phase.BACKOFF, since_s=NOW - 1, retry_at_s=NOW + 5)
EXITED = ChildView(GATE, Phase.EXITED, since_s=NOW - 1)


def decided(child: ChildView, want: Want | None = GATE) -> list[Action]:
    wanted = {want.name: want} if want else {}
    return decide(View(wanted, (child,), STOP_BY), KINDS, NOW)


@pytest.mark.parametrize(
    ("child", "want", "action"),
    [
        pytest.param(RUNNING, GATE, None, id="all is well"),
        pytest.param(STARTING, GATE, None, id="it may take a while to start"),
        pytest.param(replace(STARTING, is_ready=True, beat_s=NOW), GATE, MarkReady("capture:gate"), id="it got ready"),
        pytest.param(RUNNING, None, Stop("capture:gate", NOW + 20), id="unwanted"),
        pytest.param(RUNNING, OTHER_GATE, Stop("capture:gate", NOW + 20), id="its part changed"),
        pytest.param(EXITED, OTHER_GATE, Spawn(OTHER_GATE), id="stopped, now started with the new part"),
        pytest.param(EXITED, None, Forget("capture:gate"), id="stopped and unwanted"),
        pytest.param(BACKOFF, GATE, None, id="its delay runs"),
        pytest.param(replace(BACKOFF, retry_at_s=NOW), GATE, Spawn(GATE), id="its delay is over"),
        pytest.param(replace(BACKOFF, phase=Phase.FATAL), GATE, None, id="fatal waits too"),
        pytest.param(replace(BACKOFF, phase=Phase.FATAL, retry_at_s=NOW), GATE, Spawn(GATE), id="fatal is retried"),
        pytest.param(BACKOFF, OTHER_GATE, Stop("capture:gate", NOW), id="a new part does not wait for the old delay"),
        pytest.param(STOPPING, GATE, None, id="it drains"),
        pytest.param(
            replace(STOPPING, stop_by_s=NOW), None, Kill("capture:gate", "did not stop in time"), id="time is over"
        ),
        pytest.param(
            replace(STOPPING, stop_by_s=NOW, pressure=Pressure.KILL, pressed_s=NOW - 1), None, None, id="was killed"
        ),
        pytest.param(
            replace(STOPPING, stop_by_s=NOW, pressure=Pressure.KILL, pressed_s=NOW - KILL_AGAIN_S),
            None,
            Kill("capture:gate", "did not stop in time"),
            id="killed and still there",
        ),
        pytest.param(replace(RUNNING, beat_s=NOW - HANG_S), GATE, None, id="just within the limit"),
        pytest.param(replace(RUNNING, beat_s=NOW - HANG_S - 1), GATE, Abort("capture:gate", HANG_S + 1), id="it hangs"),
        pytest.param(replace(RUNNING, beat_s=NOW - HANG_S - 1, allow_s=60.0), GATE, None, id="it asked for more time"),
        pytest.param(
            replace(RUNNING, beat_s=NOW - 61, allow_s=60.0), GATE, Abort("capture:gate", 61.0), id="took even longer"
        ),
        pytest.param(
            replace(RUNNING, beat_s=NOW - 5, allow_s=0.1), GATE, None, id="nobody can ask for less than the usual time"
        ),
        pytest.param(
            replace(STARTING, since_s=NOW - START_S - 1), GATE, Abort("capture:gate", START_S + 1), id="never a beat"
        ),
        pytest.param(
            replace(STARTING, since_s=NOW - 900, beat_s=NOW - 1), GATE, None, id="waits for a peer, but beats"
        ),
        pytest.param(
            replace(RUNNING, beat_s=0.0, pressure=Pressure.ABORT, pressed_s=NOW - 0.1),
            GATE,
            None,
            id="writes its trace",
        ),
        pytest.param(
            replace(RUNNING, beat_s=0.0, pressure=Pressure.ABORT, pressed_s=NOW - ABORT_GRACE_S),
            GATE,
            Kill("capture:gate", "hangs"),
            id="does not even abort",
        ),
    ],
)
def test_one_child(child: ChildView, want: Want | None, action: Action | None) -> None:
    assert decided(child, want) == ([] if action is None else [action])


def test_a_second_request_moves_every_limit_forward() -> None:
    view = View({}, (STOPPING,), dict.fromkeys(Kind, NOW))
    assert decide(view, KINDS, NOW) == [Kill("capture:gate", "did not stop in time")]


def test_stops_come_before_starts_and_starts_in_the_order_of_the_roster() -> None:
    redis, judge = Want(Kind.REDIS, ""), Want(Kind.JUDGE, "0")
    wanted = {want.name: want for want in (redis, judge)}
    back = replace(BACKOFF, want=judge, retry_at_s=NOW)
    assert decide(View(wanted, (back, RUNNING), STOP_BY), KINDS, NOW) == [
        Stop("capture:gate", NOW + 20),
        Spawn(redis),
        Spawn(judge),
    ]


def camera(camera_id: str, url: str = "a.mp4", name: str = "") -> CameraSpec:
    return CameraSpec.model_validate({"camera_id": camera_id, "record": {"url": url}, "name": name})


def test_the_roster_names_every_child_redis_first() -> None:
    settings = Settings(judge=JudgeSettings(shards=2))
    names = list(full_roster(settings, [camera("gate")]))
    assert names == ["redis", "storage", "judge:0", "judge:1", "alarm:0", "inference:0", "capture:gate"]


def test_clips_are_served_only_where_it_was_asked_for() -> None:
    endpoint = {"listen": "127.0.0.1:8440", "tokens": [{"name": "nodes", "token": "t" * 32}]}
    assert "endpoint" in full_roster(Settings.model_validate({"endpoint": endpoint}), [])
    assert "endpoint" not in full_roster(Settings(), [])


def test_a_registry_is_talked_to_only_where_there_is_one() -> None:
    registry = {"urls": ["http://127.0.0.1:1"], "token": "t" * 32}
    assert "link" in full_roster(Settings.model_validate({"registry": registry}), [])
    assert "link" not in full_roster(Settings(), [])
    assert "registry" not in full_roster(Settings.model_validate({"registry": registry}), [])


def test_no_capture_waits_for_a_registry_inside_to_load() -> None:
    names = list(full_roster(Settings.model_validate({"registry": {"inside": True}}), [camera("gate")]))
    assert "link" in names
    assert names[-2:] == ["capture:gate", "registry"]


def test_an_outside_redis_is_not_supervised() -> None:
    settings = Settings(redis=RedisSettings.model_validate({"url": "redis://127.0.0.1/0"}))
    assert "redis" not in full_roster(settings, [])


def test_only_what_a_capture_depends_on_changes_its_part() -> None:
    def part(spec: CameraSpec) -> Want:
        return full_roster(Settings(), [spec])["capture:gate"]

    assert part(camera("gate")) == part(camera("gate", name="Gate"))
    assert part(camera("gate")) != part(camera("gate", url="b.mp4"))


def test_a_drain_stops_captures_first_and_redis_last() -> None:
    order, alive, now_s = [], set(Kind), NOW
    while alive:
        step = drain_step(KINDS, alive, NOW, 20.0, now_s)
        gone = alive - step.keep
        order.append(gone)
        alive -= gone
        now_s += 0.1
    first = [{kind} for kind in (Kind.CAPTURE, Kind.INFERENCE, Kind.JUDGE, Kind.ALARM)]
    assert order == [*first, {Kind.STORAGE, Kind.ENDPOINT}, {Kind.LINK}, {Kind.REGISTRY}, {Kind.REDIS}]


def test_a_stage_that_does_not_stop_holds_the_next_one_up_only_until_its_share_is_over() -> None:
    share = KINDS[Kind.CAPTURE].drain_share * 20.0
    assert Kind.INFERENCE in drain_step(KINDS, set(Kind), NOW, 20.0, NOW + share - 0.1).keep
    assert Kind.INFERENCE not in drain_step(KINDS, set(Kind), NOW, 20.0, NOW + share).keep


def test_nothing_is_kept_when_the_whole_time_is_over() -> None:
    step = drain_step(KINDS, set(Kind), NOW, 20.0, NOW + 20.0)
    assert step.keep == frozenset()
    assert max(step.stop_by_s.values()) == NOW + 20.0
    assert kept({"redis": Want(Kind.REDIS, "")}, step.keep) == {}


def test_the_sentence_counts_what_runs_and_names_what_does_not() -> None:
    judge = replace(BACKOFF, want=Want(Kind.JUDGE, "0"))
    text = sentence([RUNNING, judge], draining=False)
    assert text == "cameras: 1 of 1 run; workers: 0 of 1 run; down: judge:0"
    assert sentence([RUNNING], draining=True).startswith("draining; ")


def test_a_camera_that_is_away_does_not_keep_the_node_from_being_ready() -> None:
    judge = replace(RUNNING, want=Want(Kind.JUDGE, "0"))
    assert workers_ready([judge, BACKOFF])
    assert not workers_ready([judge, replace(BACKOFF, want=Want(Kind.ALARM, "0"))])
    assert not workers_ready([])
