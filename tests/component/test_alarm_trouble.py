"""The alarm worker while something that it needs is in trouble for long: nothing is lost or held for ever."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from nodeagent.alarm import desk as desk_module
from nodeagent.alarm.work import Done
from nodeagent.contract.errors import Unavailable
from nodeagent.contract.states import State
from nodeagent.infra.alarm_records import AlarmState, list_alarms
from tests.support.alarm_world import SECRET, World, target
from tests.support.alarms import add_clips, message
from tests.support.receiver import Answer, PushReceiver, answers


class ReadOnly:
    """Makes a database answer questions and refuse writes, as one on a full disk or a replica does."""

    def __init__(self, world: World) -> None:
        self.on = False
        event.listen(world.engine, "checkout", self._set)

    def _set(self, connection: Any, *_rest: object) -> None:
        connection.execute(f"PRAGMA query_only = {int(self.on)}")


def test_a_database_that_only_answers_questions_is_away_until_it_takes_writes(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(desk_module, "HOLD_S", 1.5)
    monkeypatch.setattr(desk_module, "RETRY_S", 0.2)
    add_clips(world.storage, world.folder)
    database = ReadOnly(world)
    world.desk.turn(0.01)
    database.on = True
    world.bus.put(message())
    with caplog.at_level("INFO"):
        world.until(lambda: world.bus.delayed)
        assert world.ctx.cell.current_state is State.DATABASE_DOWN
        assert list_alarms(world.engine) == []
        database.on = False
        world.until(world.settled)
    events = [record.__dict__.get("event") for record in caplog.records]
    assert (events.count("database_down"), events.count("database_up")) == (1, 1)
    assert world.row.state is AlarmState.PUSHED
    with world.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM alarm_slot")).scalar() == 1


@pytest.mark.parametrize("kept", [True, False], ids=["the message comes too", "the message is lost"])
def test_an_alarm_whose_message_the_broker_lost_is_taken_up_from_its_row(
    world: World, receiver: PushReceiver, kept: bool
) -> None:
    add_clips(world.storage, world.folder)
    receiver.answer = answers([Answer(503)])
    world.bus.put(message())
    world.until(lambda: world.bus.delayed)
    world.bus.lose()
    world.desk = world.new_desk()
    for _ in range(10):
        world.desk.turn(0.01)
    # It may be in a queue of delayed messages still: only after some minutes it is sure that it is in none.
    assert (world.row.state, world.desk.in_hand) == (AlarmState.REPLAY_READY, 0)
    with world.engine.begin() as connection:
        connection.execute(text("UPDATE alarm SET claimed_until_ns = claimed_until_ns - 700000000000"))
    world.desk = world.new_desk()
    if kept:
        world.bus.put(message())
    world.until(lambda: world.row.state is AlarmState.PUSHED)
    world.until(lambda: world.desk.in_hand == 0 and world.bus.empty)
    assert [push.accepted for push in world.row.pushes] == [False, True]
    assert len(receiver.keys) == 1


def test_a_worker_whose_step_hangs_stops_beating_so_that_it_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def hang(*_given: object) -> Done:
        began.set()
        go_on.wait(60)
        raise Unavailable("at last")

    beats: list[float] = []
    monkeypatch.setattr(world.ctx.cell, "beat", lambda allow_s: beats.append(allow_s))
    monkeypatch.setattr(world.desk._work, "cut", hang)
    world.bus.put(message())
    world.until(began.is_set)
    beats.clear()
    world.desk.turn(0.01)
    assert beats
    monkeypatch.setattr(desk_module, "STUCK_S", -world.desk._work.limit_s)
    world.bus.put(message(zone="another"))
    beats.clear()
    for _ in range(3):
        world.desk.turn(0.01)
    assert beats == []
    go_on.set()
    world.until(lambda: beats)


def test_a_target_that_hangs_keeps_neither_healthy_targets_nor_new_alarms_waiting(tmp_path: Path) -> None:
    with PushReceiver(SECRET) as silent, PushReceiver(SECRET) as healthy:
        silent.answer = lambda _count: Answer(delay_s=30)
        world = World(tmp_path, (target(silent, "silent", timeout_s=1.0), target(healthy, "healthy")))
        world.bus.delays = True
        sent = [message(zone=f"zone {n}") for n in range(12)]
        world.bus.put(sent[0])
        world.until(lambda: world.bus.delayed)
        began_s = time.monotonic()
        for one in sent[1:]:
            world.bus.put(one)
        world.until(lambda: len(healthy.keys) == len(sent))
        # One at a time asks the silent one; each alarm in turn would take as many time-outs.
        assert time.monotonic() - began_s < 6.0
        world.until(lambda: len(world.bus.delayed) >= len(sent))
        assert len(silent.pushes) <= 4
        rows = list_alarms(world.engine)
        assert {row.state for row in rows} == {AlarmState.REPLAY_READY}
        assert world.ctx.cell.current_state is State.PUSH_FAILING
        world.close()


def test_alarms_that_wait_for_a_push_leave_room_for_new_ones(
    tmp_path: Path, receiver: PushReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "PUSHING_MAX", 2)
    receiver.answer = lambda _count: Answer(delay_s=0.3)
    world = World(tmp_path, (target(receiver),))
    for number in range(6):
        world.bus.put(message(zone=f"zone {number}"))
    most = 0

    def settled() -> bool:
        nonlocal most
        most = max(most, world.desk._pushing())
        return world.bus.empty

    world.until(settled)
    assert most == 2 and {delay for _, delay in world.bus.delayed} == {desk_module.CROWDED_S}
    assert {row.state for row in list_alarms(world.engine)} == {AlarmState.PUSHED}
    assert len(receiver.pushes) == 6
    world.close()
