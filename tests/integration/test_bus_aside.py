"""The status board learns what a worker's queue put aside, and that it is gone again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis

from nodeagent.contract.codec import Message
from nodeagent.contract.report import Kind
from nodeagent.infra.board import Board
from nodeagent.infra.bus.aside import watch_aside
from nodeagent.infra.bus.topology import ALARMS
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.stop import Stop
from nodeagent.infra.worker import WorkerContext
from tests.support.buses import make_bus, take
from tests.support.eventually import eventually

pytestmark = pytest.mark.services


def test_dead_letters_are_counted_with_their_time_until_a_person_purges_them(tmp_path: Path, redis_url: str) -> None:
    settings = Settings.model_validate({"node": {"node_id": "n1", "state_dir": tmp_path}})
    cell = Board.create(tmp_path / "board", "n1", 1, 1, cells=1).claim("alarm:0", Kind.ALARM)
    stop, bus = Stop(), make_bus(redis_url)
    bus.declare()
    before_ns = time.time_ns()
    watch_aside(WorkerContext("alarm:0", settings, cell, stop, SystemClock(), tmp_path), bus, ALARMS, every_s=0.05)
    try:
        bus.consume(ALARMS, 10)
        for text in (b"no", b"sense"):
            bus.publish(ALARMS, "cam", Message(text, {}))
            bus.dead(take(bus), "no alarm")
        assert eventually(lambda: cell.get("put_aside") == 2)
        assert before_ns <= cell.get("put_aside_ns") <= time.time_ns()
        redis.Redis.from_url(redis_url).delete("bus:alarms.dead")
        assert eventually(lambda: (cell.get("put_aside"), cell.get("put_aside_ns")) == (0, 0))
    finally:
        stop.request()
        bus.close()
