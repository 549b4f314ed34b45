"""The alarm worker's desk with all around it: a real database, pool and HTTP target; only the bus is one in memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from nodeagent.alarm.desk import AlarmDesk
from nodeagent.alarm.steps import go_on
from nodeagent.alarm.worker import build_desk
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.alarm_records import AlarmRow, list_alarms
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.settings.sections import PushSettings
from nodeagent.infra.storage import Storage
from tests.support.alarms import MemoryBus, worker_context
from tests.support.eventually import eventually
from tests.support.receiver import PushReceiver

S = NS_PER_S
SECRET = "k3y"


class World:
    """A desk and all around it."""

    def __init__(self, folder: Path, targets: tuple[PushSettings, ...], **alarm: Any) -> None:
        self.folder = folder
        self.ctx = worker_context(folder, targets, **alarm)
        self.engine = open_database(self.ctx.settings.database_url)
        migrate(self.engine)
        self.bus = MemoryBus()
        self.storage = Storage(self.ctx.settings.pools)
        self.desk = self.new_desk()

    def new_desk(self) -> AlarmDesk:
        return build_desk(self.ctx, "0", self.engine, self.bus, go_on)  # type: ignore[arg-type]

    def until(self, check: Any, within_s: float = 20.0) -> Any:
        def turn() -> Any:
            self.desk.turn(0.01)
            return check()

        return eventually(turn, within_s=within_s, every_s=0.02)

    def settled(self) -> bool:
        return self.bus.empty

    @property
    def row(self) -> AlarmRow:
        (row,) = list_alarms(self.engine)
        return row

    def close(self) -> None:
        self.desk.drain(time.monotonic() + 10)
        self.engine.dispose()


def just_over() -> int:
    """A start of recording for which the window of an alarm 15 s later is over since a moment."""
    return (time.time_ns() // S - 26) * S


def target(receiver: PushReceiver, name: str = "crm", timeout_s: float = 5.0) -> PushSettings:
    return PushSettings.model_validate({"name": name, "url": receiver.url, "secret": SECRET, "timeout_s": timeout_s})
