"""An older database is restored under an alarm worker: no alarm is lost, mixed with another, or given a new key."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from sqlalchemy import text

from nodeagent.alarm.steps import STEPS
from nodeagent.alarm.worker import build_desk
from nodeagent.infra.alarm_records import AlarmState, list_alarms
from tests.support.alarm_world import World
from tests.support.alarms import T0, add_clips, message
from tests.support.receiver import PushReceiver

S = 1_000_000_000
#: Restored at one of these, the target has the push while the row that knew of it is gone.
SENT = ("push_claimed", "push_sent", "attempt_kept", "pushed")
FORGET = ("DELETE FROM push_attempt", "DELETE FROM alarm_key", "DELETE FROM alarm", "DELETE FROM alarm_slot")


def restore_an_empty_one(world: World) -> None:
    """What is left is a database that counts its rows from 1 again."""
    with world.engine.begin() as connection:
        for statement in FORGET:
            connection.execute(text(statement))


@pytest.mark.parametrize("at", [step for step in STEPS if step not in {"unpinned", "acked"}])
def test_restored_at_any_step_the_alarm_in_hand_and_the_next_one_are_pushed_as_themselves(
    world: World, receiver: PushReceiver, caplog: pytest.LogCaptureFixture, at: str
) -> None:
    add_clips(world.storage, world.folder)
    add_clips(world.storage, world.folder, camera_id="gate-2")
    one, two = message(), message(camera_id="gate-2")
    done = []

    def checkpoint(step: str) -> None:
        if step == at and not done:
            done.append(step)
            restore_an_empty_one(world)
            world.bus.put(two)

    world.desk = build_desk(world.ctx, "0", world.engine, world.bus, checkpoint)  # type: ignore[arg-type]
    world.bus.put(one)
    world.until(lambda: done and world.bus.empty)
    rows = {row.dedup_key: row for row in list_alarms(world.engine)}
    assert {key: (row.camera_id, row.state) for key, row in rows.items()} == {
        one.dedup_key: ("gate-1", AlarmState.PUSHED),
        two.dedup_key: ("gate-2", AlarmState.PUSHED),
    }
    for push in receiver.pushes:
        body = json.loads(push.body)
        assert (body["dedup_key"], body["camera"]["id"]) == (push.key, rows[push.key].camera_id)
    pushes = Counter(push.key for push in receiver.pushes)
    assert pushes == {one.dedup_key: 2 if at in SENT else 1, two.dedup_key: 1}
    assert sum(record.__dict__.get("event") == "alarm_row_lost" for record in caplog.records) <= 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_an_alarm_that_was_pushed_and_is_heard_of_again_is_pushed_under_the_same_key(
    world: World, receiver: PushReceiver
) -> None:
    add_clips(world.storage, world.folder)
    world.bus.put(message())
    world.until(world.settled)
    restore_an_empty_one(world)
    world.bus.put(message(stage="ended", ended_ns=T0 + 30 * S))
    world.until(world.settled)
    assert (world.row.state, world.row.ended_ns) == (AlarmState.RECEIVED, T0 + 30 * S)
    with world.engine.begin() as connection:
        connection.execute(text("UPDATE alarm SET claimed_until_ns = claimed_until_ns - 700000000000"))
    world.desk = world.new_desk()
    world.until(lambda: world.row.state is AlarmState.PUSHED)
    first, second = receiver.pushes
    assert first.key == second.key == message().dedup_key
    assert json.loads(first.body)["replay"] == json.loads(second.body)["replay"]
