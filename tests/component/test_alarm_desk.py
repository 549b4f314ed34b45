"""The alarm worker's loop on a real database, pool and HTTP target; only the bus is one in memory."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest
from PIL import Image
from pydantic import SecretStr
from sqlalchemy import text

from nodeagent.alarm import push
from nodeagent.alarm.store import AlarmStore
from nodeagent.contract.codec import Message, encode_alarm
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.alarm_records import AlarmState, PushRow, list_alarms
from nodeagent.infra.clock import Clock, SystemClock
from nodeagent.infra.settings.sections import PushSettings
from tests.support.alarm_world import SECRET, World, just_over, target
from tests.support.alarms import T0, add_clips, message
from tests.support.media import count_frames
from tests.support.receiver import Answer, PushReceiver, answers

S = NS_PER_S


def test_from_message_to_push(world: World, receiver: PushReceiver) -> None:
    add_clips(world.storage, world.folder, width=768, height=432)
    world.desk.camera_names = {"gate-1": "北门一号"}
    world.bus.put(message())
    world.until(world.settled)
    row = world.row
    assert (row.state, row.partial, row.partial_reason) == (AlarmState.PUSHED, False, "")
    # Window 5 s .. 25 s, key frames every second.
    assert (row.replay_start_ns, row.replay_length_ns) == (T0 + 5 * S, 20 * S)
    assert row.replay_path and row.snapshot_path
    assert count_frames(Path(row.replay_path)) == list(range(50, 250))
    assert hashlib.sha256(Path(row.replay_path).read_bytes()).hexdigest() == row.replay_sha256
    with Image.open(row.snapshot_path) as picture:
        assert picture.width == 768 and picture.height > 432
    (sent,) = receiver.pushes
    doc = json.loads(sent.body)
    assert sent.genuine and sent.key == row.dedup_key == doc["dedup_key"]
    assert (doc["camera"]["name"], doc["site"], doc["replay"]["seconds"]) == ("北门一号", "works", 20.0)
    assert doc["evidence"]["boxes"][0]["label"] == "person"
    assert [p.status for p in row.pushes] == [200]
    assert {"closed", "judged", "received", "waiting", "replay_ready", "pushed"} <= set(row.timings)
    assert world.storage.pinned(row.dedup_key) == []
    counters = {name: world.ctx.cell.get(name) for name in ("received", "rows", "pushed", "partial", "duplicates")}
    assert counters == {"received": 1, "rows": 1, "pushed": 1, "partial": 0, "duplicates": 0}
    assert world.ctx.cell.get("lag_ms") > 0


def test_pins_on_a_disk_that_was_away_when_the_alarm_ended_go_when_it_is_back(
    world: World, receiver: PushReceiver
) -> None:
    add_clips(world.storage, world.folder)
    world.bus.put(message())
    world.until(world.settled)
    clips = world.storage.clips("gate-1", 0, 2**62)
    for key in (world.row.dedup_key, "of-another-database"):
        world.storage.pin(clips, key)
    world.desk._sweep_s = 0.0
    world.until(lambda: world.storage.pinned(world.row.dedup_key) == [])
    assert len(world.storage.pinned("of-another-database")) == len(clips)


def test_an_alarm_in_shadow_mode_is_recorded_and_nobody_is_told(world: World, receiver: PushReceiver) -> None:
    add_clips(world.storage, world.folder)
    world.bus.put(message(shadow=True))
    world.bus.put(message(shadow=True, stage="ended", ended_ns=T0 + 40 * S))
    world.until(lambda: len(world.bus.acked) == 2)
    row = world.row
    assert (row.shadow, row.state, row.state_reason) == (True, AlarmState.RECORDED, "shadow mode")
    assert (row.ended_ns, row.messages, row.replay_path, row.pushes) == (T0 + 40 * S, 2, None, ())
    assert (receiver.pushes, world.storage.pinned(row.dedup_key), world.desk.in_hand) == ([], [], 0)
    counters = {name: world.ctx.cell.get(name) for name in ("received", "rows", "pushed", "duplicates")}
    assert counters == {"received": 2, "rows": 1, "pushed": 0, "duplicates": 0}


def test_a_message_of_a_pushed_alarm_amends_and_pushes_nothing(world: World, receiver: PushReceiver) -> None:
    add_clips(world.storage, world.folder)
    world.bus.put(message())
    world.until(world.settled)
    world.bus.put(message())
    world.bus.put(message(confirmed_ns=T0 + 20 * S))
    world.bus.put(message(stage="ended", ended_ns=T0 + 40 * S))
    world.until(lambda: len(world.bus.acked) == 4)
    assert (len(receiver.pushes), world.row.ended_ns, world.row.messages) == (1, T0 + 40 * S, 4)
    assert world.ctx.cell.get("duplicates") == 2


def test_a_camera_that_stopped_gives_a_partial_replay_that_says_so(world: World, receiver: PushReceiver) -> None:
    add_clips(world.storage, world.folder, count=4)
    world.bus.put(message())
    world.until(world.settled)
    reason = "no video for 5.0 s (from 15.0 to 20.0 s of the window)"
    assert (world.row.partial, world.row.partial_reason, world.row.missing_ns) == (True, reason, 5 * S)
    assert json.loads(receiver.pushes[0].body)["replay"]["reason"] == reason
    assert world.ctx.cell.get("partial") == 1


def test_an_alarm_without_any_video_is_pushed_all_the_same(world: World, receiver: PushReceiver) -> None:
    world.bus.put(message())
    world.until(world.settled)
    assert (world.row.state, world.row.replay_path) == (AlarmState.PUSHED, None)
    assert world.row.partial_reason == "no video of the window is on disk"
    assert len(receiver.pushes) == 1


def test_a_clip_that_cannot_be_read_is_left_out_and_said_so(world: World) -> None:
    add_clips(world.storage, world.folder)[3].write_bytes(b"nothing of the kind")
    world.bus.put(message())
    world.until(world.settled)
    assert world.row.partial_reason == "1 clip cannot be read; no video for 5.0 s (from 10.0 to 15.0 s of the window)"
    assert world.row.replay_path and len(count_frames(Path(world.row.replay_path))) == 150


def test_a_change_of_resolution_keeps_the_part_around_the_confirming_sample(world: World) -> None:
    add_clips(world.storage, world.folder, count=4)
    add_clips(world.storage, world.folder, count=3, start_ns=T0 + 20 * S, width=640, height=480)
    world.bus.put(message())
    world.until(world.settled)
    assert world.row.partial_reason.startswith("the stream changed its format; no video for 5.0 s")


def test_waits_for_the_clips_that_are_still_to_come_and_pins_the_first_ones(tmp_path: Path) -> None:
    world = World(tmp_path, (), replay_patience_s=60.0)
    base = just_over()
    clips = add_clips(world.storage, world.folder, count=3, start_ns=base)
    sent = message(confirmed_ns=base + 15 * S)
    world.bus.put(sent)
    world.until(lambda: world.row.state is AlarmState.WAITING)
    assert world.bus.held and len(world.storage.pinned(sent.dedup_key)) == 2
    for path in clips:
        path.unlink()
    add_clips(world.storage, world.folder, count=4, start_ns=base + 15 * S)
    world.until(world.settled)
    assert (world.row.state, world.row.partial) == (AlarmState.RECORDED, False)
    assert world.row.pushes == ()
    world.close()


def test_a_wall_clock_that_was_stepped_back_holds_up_no_alarm(world: World) -> None:
    base = (time.time_ns() // S + 600) * S
    add_clips(world.storage, world.folder, start_ns=base)
    world.bus.put(message(confirmed_ns=base + 15 * S))
    world.until(world.settled)
    assert (world.row.state, world.row.partial, world.bus.delayed) == (AlarmState.PUSHED, False, [])


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(500, body=b"oh \x01 no"), "HTTP 500: oh   no"),
        (Answer(404), "HTTP 404: {}"),
        (Answer(302, location="http://127.0.0.1:1/elsewhere"), "HTTP 302: {}"),
        (Answer(drop=True), "RemoteProtocolError"),
        (Answer(delay_s=30), "no answer within 0.5 s"),
        (Answer(500, body=b"x" * 3_000_000), "HTTP 500: " + "x" * 190),
    ],
)
def test_a_target_that_fails_gets_the_same_bytes_again_and_the_replay_is_cut_once(
    tmp_path: Path, receiver: PushReceiver, answer: Answer, error: str
) -> None:
    world = World(tmp_path, (target(receiver, timeout_s=0.5),))
    add_clips(world.storage, world.folder)
    receiver.answer = answers([answer, answer])
    world.bus.put(message())
    world.until(lambda: world.bus.delayed)
    assert world.ctx.cell.current_state is State.PUSH_FAILING
    row = world.row
    assert (row.state, row.pushes[0].error) == (AlarmState.REPLAY_READY, error)
    assert row.replay_path is not None
    made = Path(row.replay_path).stat().st_mtime_ns
    world.until(world.settled)
    assert world.row.state is AlarmState.PUSHED
    assert [one.accepted for one in world.row.pushes] == [False, False, True]
    assert [delay for _, delay in world.bus.delayed] == [1, 5]
    assert len({(got.key, got.body) for got in receiver.pushes}) == 1
    assert Path(row.replay_path).stat().st_mtime_ns == made
    assert world.ctx.cell.get("push_failures") == 2
    world.desk.turn(0.01)
    assert world.ctx.cell.current_state is State.IDLE
    world.close()


def test_a_target_that_accepted_is_not_asked_again_for_another_that_did_not(
    tmp_path: Path, receiver: PushReceiver
) -> None:
    with PushReceiver(SECRET) as good:
        world = World(tmp_path, (target(good, "good"), target(receiver, "bad")))
        receiver.answer = answers([Answer(503)] * 2)
        world.bus.put(message())
        world.until(world.settled)
        assert (len(good.pushes), len(receiver.pushes)) == (1, 3)
        assert world.row.state is AlarmState.PUSHED
        world.close()


def test_a_wrong_secret_is_refused_by_the_receiver_and_not_told_in_the_record(
    tmp_path: Path, receiver: PushReceiver
) -> None:
    wrong = PushSettings.model_validate({"name": "crm", "url": receiver.url, "secret": "hunter2"})
    world = World(tmp_path, (wrong,))
    world.bus.put(message())
    world.until(lambda: world.bus.delayed)
    assert world.row.pushes[0].status == 401
    assert "hunter2" not in str(world.row)
    world.close()


def test_an_error_that_nobody_foresaw_with_one_target_is_a_failed_attempt_of_that_one_only(
    tmp_path: Path, receiver: PushReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(target: PushSettings, key: str, body: bytes, clock: Clock) -> PushRow:
        if target.name == "odd":
            raise KeyError(target.url.get_secret_value())
        return push.send(target, key, body, clock)

    monkeypatch.setattr("nodeagent.alarm.work.send", send)
    world = World(tmp_path, (target(receiver, "odd"), target(receiver)))
    world.bus.put(message())
    world.until(lambda: len(world.bus.delayed) > 5)
    assert (world.row.state, world.bus.put_aside) == (AlarmState.REPLAY_READY, [])
    (accepted,) = [one for one in world.row.pushes if one.accepted]
    failed = {one.error for one in world.row.pushes if not one.accepted}
    assert accepted.target == "crm" and len(receiver.pushes) == 1
    assert len(failed) == 1 and failed.pop().startswith("KeyError (test_alarm_desk.py:")
    assert world.ctx.cell.current_state is State.PUSH_FAILING
    world.close()


def test_an_address_that_no_client_can_read_is_a_failed_attempt() -> None:
    wrong = PushSettings.model_construct(
        name="crm", url=SecretStr("http://crm:80a/"), secret=SecretStr("hunter2"), timeout_s=1.0
    )
    made = push.send(wrong, "0" * 32, b"{}", SystemClock())
    assert (made.accepted, made.status, made.error) == (False, None, "InvalidURL")


def test_an_alarm_whose_picture_cannot_be_drawn_goes_on_without(
    world: World, receiver: PushReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_given: object) -> bytes:
        raise OSError("cannot open resource")

    monkeypatch.setattr("nodeagent.alarm.replay.draw", fail)
    add_clips(world.storage, world.folder)
    world.bus.put(message())
    world.until(world.settled)
    assert (world.row.state, world.row.partial, world.row.snapshot_path) == (AlarmState.PUSHED, False, None)
    assert world.row.replay_path and len(receiver.pushes) == 1


@pytest.mark.parametrize(
    "alien",
    [
        Message(b"{}", {"type": "alarm"}),
        Message(b"\x80\x04K\x01.", {}),
        Message(encode_alarm(message()).body.replace(b'"v":1', b'"v":9'), {"type": "alarm"}),
        Message(encode_alarm(message()).body.replace(b'"gate-1"', b'"../../etc"'), {"type": "alarm"}),
        encode_alarm(message(zone="z" * 65)),
        encode_alarm(message(cooldown_s=float("inf"))),
        encode_alarm(message(replay_to_ns=2**63 - 1)),
    ],
)
def test_what_is_no_alarm_is_put_aside_with_the_reason(world: World, alien: Message) -> None:
    world.bus.put(alien)
    world.until(world.settled)
    ((_, reason),) = world.bus.put_aside
    assert reason and world.ctx.cell.get("refused") == 1
    assert list_alarms(world.engine) == []


def test_while_the_broker_confirms_nothing_what_is_to_be_put_aside_is_kept_and_told_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nodeagent.alarm.desk.RETRY_S", 0.05)
    world.bus.refusing = True
    world.bus.put(Message(b"{}", {"type": "alarm"}))
    world.until(lambda: world.desk.in_hand == 1)
    assert world.bus.put_aside == []
    until_s = time.monotonic() + 0.5
    world.until(lambda: time.monotonic() > until_s)
    assert [record.__dict__.get("event") for record in caplog.records].count("settle_failed") == 1
    world.bus.refusing = False
    world.until(lambda: world.bus.put_aside)
    assert world.desk.in_hand == 0


def test_a_database_that_goes_away_loses_nothing(world: World, receiver: PushReceiver) -> None:
    add_clips(world.storage, world.folder)
    with world.engine.begin() as connection:
        connection.execute(text("ALTER TABLE alarm_slot RENAME TO away"))
    world.bus.put(message())
    world.until(lambda: world.ctx.cell.current_state is State.DATABASE_DOWN)
    assert len(world.bus.held) == 1 and receiver.pushes == []
    with world.engine.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO alarm_slot"))
    world.until(world.settled)
    assert (world.row.state, len(receiver.pushes)) == (AlarmState.PUSHED, 1)


def test_work_that_was_started_five_times_without_an_end_is_quarantined(world: World) -> None:
    add_clips(world.storage, world.folder)
    store = AlarmStore(world.engine, "node-1/alarm:0")
    row = store.record(message(), T0).row
    for _ in range(5):
        assert store.claim(row.dedup_key, T0, T0 + S)
    world.bus.put(message())
    world.until(world.settled)
    assert world.row.state is AlarmState.QUARANTINED
    ((_, reason),) = world.bus.put_aside
    assert reason == world.row.state_reason == "work in state waiting was started 5 times and never ended"


def test_an_alarm_that_another_worker_holds_is_left_to_it(world: World) -> None:
    add_clips(world.storage, world.folder)
    other = AlarmStore(world.engine, "node-2/alarm:0")
    row = other.record(message(), T0).row
    assert other.claim(row.dedup_key, time.time_ns(), time.time_ns() + 3600 * S)
    world.bus.put(message())
    world.until(lambda: world.bus.delayed)
    assert world.bus.delayed[0][1] == 5.0 and world.row.replay_path is None
    other.release(row.dedup_key, orderly=True)
    world.until(world.settled)
    assert world.row.state is AlarmState.PUSHED


def test_a_full_evidence_disk_is_shown_and_tried_again(world: World) -> None:
    add_clips(world.storage, world.folder)
    blocked = world.ctx.settings.evidence_dir
    blocked.write_text("a file where the folder should be")
    world.bus.put(message())
    world.until(lambda: world.bus.delayed)
    world.desk.turn(0.01)
    assert world.ctx.cell.current_state is State.STORAGE_FULL
    world.until(lambda: len(world.bus.delayed) >= 3)
    # The start of the try that goes on is counted, those that ended in good order are not.
    assert world.row.starts <= 1
    blocked.unlink()
    world.until(world.settled)
    assert world.row.state is AlarmState.PUSHED
    world.until(lambda: world.ctx.cell.current_state is State.IDLE)


def test_draining_lets_running_steps_end_and_keeps_the_rest_unacknowledged(tmp_path: Path) -> None:
    world = World(tmp_path, (), replay_patience_s=60.0)
    base = just_over()
    add_clips(world.storage, world.folder, count=3, start_ns=base)
    world.bus.put(message(confirmed_ns=base + 15 * S))
    world.until(lambda: world.row.state is AlarmState.WAITING)
    world.close()
    assert len(world.bus.held) == 1
    add_clips(world.storage, world.folder, count=4, start_ns=base + 15 * S)
    world.bus.redeliver()
    world.desk = world.new_desk()
    world.until(world.settled)
    assert (world.row.state, world.row.partial) == (AlarmState.RECORDED, False)
    world.close()
