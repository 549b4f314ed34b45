"""What the desk has in hand: alarms with their messages, and what stands in the way."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from nodeagent.alarm.states import FINAL
from nodeagent.alarm.store import Recorded
from nodeagent.alarm.work import Done
from nodeagent.contract.alarm import AlarmMessage
from nodeagent.contract.states import State
from nodeagent.infra.alarm_records import AlarmRow, Untold
from nodeagent.infra.board import BoardCell
from nodeagent.infra.bus.port import Delivery
from nodeagent.infra.bus.topology import RETRY_DELAYS_S

log = logging.getLogger(__name__)

#: Counter of new alarms that nobody is told of, by the reason.
UNTOLD_COUNTERS: Mapping[str, str] = {Untold.STORM: "braked"}


@dataclass(slots=True, eq=False)
class Job:
    """An alarm in hand: its unacknowledged message and how far it is.

    Attributes:
        delivery: none when the alarm was taken up from its row alone.
        taken_s: when the message was taken, monotonic.
        due_s: when it is looked at again.
        work: the step that it has in one of the pools.
        began_s: when a thread began with that step, monotonic; none while the step waits for a thread.
        owed: the row's claim was to be given back and the database was away.
    """

    delivery: Delivery | None
    row: AlarmRow
    taken_s: float
    due_s: float = 0.0
    work: Future[Done] | None = None
    began_s: float | None = None
    owed: bool = False

    def hold(self, delivery: Delivery) -> Delivery | None:
        """Hold another message of the same alarm; returns the one that was held."""
        older, self.delivery = self.delivery, delivery
        return older


@dataclass(slots=True)
class Trouble:
    """What stands in the way now, for the status board; empty texts: nothing."""

    database: str = ""
    storage: str = ""
    #: What the last attempt at a push target gave, by its name.
    targets: Mapping[str, str] = field(default_factory=dict)

    def state(self, connected: bool, busy: bool) -> tuple[State, str]:
        """The worst of it."""
        if self.database:
            return State.DATABASE_DOWN, self.database
        if not connected:
            return State.BUS_DOWN, "the broker does not answer"
        if self.storage:
            return State.STORAGE_FULL, self.storage
        if self.targets:
            return State.PUSH_FAILING, "; ".join(f"{name}: {why}" for name, why in sorted(self.targets.items()))
        return (State.RUNNING if busy else State.IDLE), ""


def retry_after_s(row: AlarmRow, attempt: int) -> float:
    """Delay before a push is tried again: grows with the failed attempts of its worst target, and with the message's
    own count, which grows too while a target is left out.
    """
    failed: dict[str, int] = {}
    for push in row.pushes:
        failed[push.target] = failed.get(push.target, 0) + (not push.accepted)
    worst = max(attempt, *failed.values()) if failed else attempt
    return RETRY_DELAYS_S[min(max(worst, 1), len(RETRY_DELAYS_S)) - 1]


def account(cell: BoardCell, message: AlarmMessage, recorded: Recorded) -> None:
    """Count and tell what became of a message."""
    row = recorded.row
    if not recorded.new:
        cell.add("duplicates", int(row.state in FINAL and message.stage == "started"))
        return
    cell.add("rows")
    if row.untold:
        cell.add(UNTOLD_COUNTERS[row.untold])
    what = f"{row.rule_id} {row.zone} at {row.camera_id}{f', {row.state_reason}' if row.state_reason else ''}"
    told = {"event": "alarm_recorded", "alarm": row.id, "camera": row.camera_id}
    log.info("alarm %s: %s", row.dedup_key, what, extra=told)
    if recorded.summary is not None:
        told |= {"event": "storm_began", "alarm": recorded.summary.id}
        log.warning("%s", recorded.summary.summary, extra=told)
