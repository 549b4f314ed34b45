"""MariaDB is killed while alarms are in every stage, and comes back: nothing is lost, doubled or quarantined."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nodeagent.alarm.steps import go_on
from nodeagent.alarm.worker import build_desk
from nodeagent.contract.states import State
from nodeagent.infra.alarm_records import AlarmState, list_alarms
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.settings.sections import PushSettings
from nodeagent.infra.storage import Storage
from tests.support.alarms import MemoryBus, add_clips, message, worker_context
from tests.support.eventually import eventually
from tests.support.receiver import Answer, PushReceiver
from tests.support.services import MariaDb

pytestmark = pytest.mark.services
ALARMS = 12


def test_the_database_killed_and_back_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with MariaDb() as maria, PushReceiver("k3y") as receiver:
        push = PushSettings.model_validate({"name": "crm", "url": receiver.url, "secret": "k3y"})
        ctx = worker_context(tmp_path, (push,))
        engine = open_database(maria.new_database())
        migrate(engine)
        add_clips(Storage(ctx.settings.pools), tmp_path)
        bus = MemoryBus()
        desk = build_desk(ctx, "0", engine, bus, go_on)  # type: ignore[arg-type]
        # Slow answers, so that the kill meets alarms in cutting, in pushing and before.
        receiver.answer = lambda _count: Answer(delay_s=0.2)

        def turn() -> None:
            desk.turn(0.01)

        for number in range(ALARMS):
            bus.put(message(zone=f"zone {number}"))
        eventually(lambda: turn() or len(receiver.pushes) >= 2, within_s=30, every_s=0.01)
        maria.kill9()
        bus.put(message(zone="while it is away"))
        eventually(lambda: turn() or ctx.cell.current_state is State.DATABASE_DOWN, within_s=30, every_s=0.01)
        for _ in range(50):
            turn()
        assert bus.held and bus.put_aside == []
        maria.start()
        eventually(lambda: turn() or bus.empty, within_s=60, every_s=0.01)
        desk.drain(time.monotonic() + 10)
        rows = list_alarms(engine, limit=100)
        engine.dispose()
        assert [row.state for row in rows] == [AlarmState.PUSHED] * (ALARMS + 1)
        assert {(row.partial, row.starts) for row in rows} == {(False, 0)}
        assert sorted(receiver.keys) == sorted(row.dedup_key for row in rows)
        by_key: dict[str, set[bytes]] = {}
        for got in receiver.pushes:
            by_key.setdefault(got.key, set()).add(got.body)
        assert {len(bodies) for bodies in by_key.values()} == {1}
