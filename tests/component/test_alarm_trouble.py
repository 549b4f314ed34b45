"""The alarm worker while something that it needs is in trouble for long: nothing is lost or held for ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from nodeagent.alarm import desk as desk_module
from nodeagent.contract.states import State
from nodeagent.infra.alarm_records import AlarmState, list_alarms
from tests.support.alarm_world import SECRET, World, target
from tests.support.alarms import add_clips, message
from tests.support.receiver import PushReceiver


@pytest.fixture
def receiver() -> Iterator[PushReceiver]:
    with PushReceiver(SECRET) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, receiver: PushReceiver) -> Iterator[World]:
    made = World(tmp_path, (target(receiver),))
    yield made
    made.close()


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
