"""A storm through the alarm worker: what is pushed of it, what is counted, and what a killed worker leaves."""

from __future__ import annotations

import json
import time
from typing import Any

from sqlalchemy import update

from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.alarm_records import AlarmRow, AlarmState, list_alarms
from nodeagent.infra.database import write
from nodeagent.infra.tables import alarm, alarm_storm
from tests.support.alarm_world import World
from tests.support.alarms import T0, add_clips, message
from tests.support.receiver import PushReceiver

S = NS_PER_S


def storm(world: World, alarms: int) -> None:
    for n in range(alarms):
        world.bus.put(message(confirmed_ns=T0 + (15 + 100 * n) * S, storm_per_hour=2))


def summaries(world: World) -> list[AlarmRow]:
    """Oldest first."""
    return [row for row in reversed(list_alarms(world.engine)) if row.summary]


def bodies(receiver: PushReceiver) -> list[dict[str, Any]]:
    return [json.loads(push.body) for push in receiver.pushes]


def test_a_storm_is_pushed_as_its_first_alarms_and_two_summaries(world: World, receiver: PushReceiver) -> None:
    add_clips(world.storage, world.folder, start_ns=T0 + 200 * S)
    storm(world, 5)
    world.until(lambda: world.settled() and world.desk.in_hand == 0)
    (began,) = summaries(world)
    told = [doc["summary"] for doc in bodies(receiver)]
    assert sorted(map(str, told)) == ["None", "None", began.summary]
    # It carries the replay of the first alarm that was held.
    assert (began.state, began.partial, began.replay_length_ns) == (AlarmState.PUSHED, False, 20 * S)
    doc = next(doc for doc in bodies(receiver) if doc["summary"])
    assert (doc["kind"], doc["evidence"]["values"]) == ("system", {"storm_per_hour": 2.0})
    held = [row for row in list_alarms(world.engine) if row.untold]
    assert {(row.state, row.untold, row.replay_path, row.pushes) for row in held} == {
        (AlarmState.RECORDED, "storm", None, ())
    }
    counters = {name: world.ctx.cell.get(name) for name in ("received", "rows", "braked", "pushed")}
    assert counters == {"received": 5, "rows": 5, "braked": 3, "pushed": 3}
    assert world.storage.pinned(began.dedup_key) == []

    # It is over: an hour of its camera went by, and nothing of it was recorded for a while.
    lag_ms = world.ctx.cell.get("lag_ms")
    write(world.engine, "age", lambda connection: connection.execute(update(alarm_storm).values(touched_ns=T0)))
    world.desk._sweep_s = 0.0
    world.until(lambda: len(receiver.keys) == 4)
    over = bodies(receiver)[-1]
    assert over["summary"].endswith("the storm is over, 3 alarms more recorded and not told")
    assert over["evidence"]["values"] == {"held": 3.0}
    assert over["dedup_key"] != began.dedup_key
    world.desk._sweep_s = 0.0
    world.until(lambda: world.desk.in_hand == 0)
    # How long alarms take is not told by what waited for an hour.
    assert (len(receiver.pushes), world.ctx.cell.get("lag_ms")) == (4, lag_ms)


def test_a_summary_whose_worker_was_killed_after_the_commit_is_taken_up_from_its_row(
    world: World, receiver: PushReceiver
) -> None:
    for n in range(3):
        world.desk._store.record(message(confirmed_ns=T0 + (15 + 100 * n) * S, storm_per_hour=2), time.time_ns())
    # Another worker, ten minutes later; the messages of the two alarms come again.
    storm(world, 3)
    aged = update(alarm).where(alarm.c.summary != "").values(claimed_until_ns=T0)
    write(world.engine, "age", lambda connection: connection.execute(aged))
    world.until(lambda: world.settled() and world.desk.in_hand == 0)
    (began,) = summaries(world)
    assert (began.state, began.dedup_key in receiver.keys, len(receiver.pushes)) == (AlarmState.PUSHED, True, 3)
    assert world.ctx.cell.get("braked") == 0
