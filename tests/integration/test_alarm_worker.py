"""The alarm worker as the supervisor starts it, on real brokers: from messages to pushes and an empty queue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from nodeagent.alarm.worker import main
from nodeagent.contract.codec import Message, encode_alarm
from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.alarm_records import AlarmState, list_alarms
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.topology import ALARMS, dead_queue
from nodeagent.infra.database import open_database
from nodeagent.infra.settings.sections import BusSettings, DatabaseSettings, PushSettings, RedisSettings
from nodeagent.infra.storage import Storage
from nodeagent.infra.worker import WorkerContext
from tests.support.alarms import T0, add_clips, message, worker_context
from tests.support.eventually import eventually
from tests.support.receiver import PushReceiver

pytestmark = pytest.mark.services
S = NS_PER_S


@pytest.fixture(params=["embedded", "production"])
def ctx(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[WorkerContext, PushReceiver]]:
    """Streams and SQLite, or RabbitMQ and MariaDB."""
    services: dict[str, Any] = {"redis": RedisSettings(url=SecretStr(request.getfixturevalue("redis_url")))}
    if request.param == "production":
        services["bus"] = BusSettings(url=SecretStr(request.getfixturevalue("rabbitmq_url")))
        services["database"] = DatabaseSettings(url=SecretStr(request.getfixturevalue("mysql_url")))
    with PushReceiver("k3y") as receiver:
        push = PushSettings.model_validate({"name": "crm", "url": receiver.url, "secret": "k3y"})
        made = worker_context(tmp_path, (push,))
        yield replace(made, settings=made.settings.model_copy(update=services)), receiver


@contextmanager
def running(ctx: WorkerContext) -> Iterator[None]:
    codes: list[int] = []
    worker = threading.Thread(target=lambda: codes.append(main(ctx, "0")))
    worker.start()
    try:
        yield
    finally:
        ctx.stop.request()
        worker.join(30)
    assert codes == [0]


def declared(bus: Bus) -> bool:
    with suppress(Unavailable):
        bus.declare()
        return True
    return False


def test_published_alarms_are_pushed_once_each_and_leave_the_queue(ctx: tuple[WorkerContext, PushReceiver]) -> None:
    context, receiver = ctx
    add_clips(Storage(context.settings.pools), context.settings.node.state_dir)
    engine = open_database(context.settings.database_url)
    bus = open_bus(context.settings)
    try:
        eventually(lambda: declared(bus), within_s=30)
        sent = [message(zone=f"zone {n}") for n in range(5)]
        for one in sent:
            bus.publish(ALARMS, one.camera_id, encode_alarm(one))
            bus.publish(ALARMS, one.camera_id, encode_alarm(one))
            ended = one.model_copy(update={"stage": "ended", "ended_ns": T0 + 40 * S})
            bus.publish(ALARMS, one.camera_id, encode_alarm(ended))
        bus.publish(ALARMS, "gate-1", Message(b"no alarm", {"type": "alarm"}))
        with running(context):
            cell = context.cell
            eventually(lambda: len(receiver.keys) == 5, within_s=40)
            eventually(lambda: cell.get("received") == 16 and cell.get("waiting") == 0, within_s=20)
            assert cell.is_ready
        rows = list_alarms(engine)
        assert [row.state for row in rows] == [AlarmState.PUSHED] * 5
        assert {row.ended_ns for row in rows} == {T0 + 40 * S}
        assert sorted(receiver.keys) == sorted(one.dedup_key for one in sent)
        assert len(receiver.pushes) == 5
        assert (bus.depth(ALARMS), bus.depth(dead_queue(ALARMS))) == (0, 1)
    finally:
        bus.close()
        engine.dispose()
