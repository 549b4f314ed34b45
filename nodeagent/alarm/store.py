"""The alarm's row: one transaction per step, each harmless when repeated, because kill -9 may come right after it.

An alarm is known by its key.  The row's number is the database's own: where an older database was restored, another
alarm has it by now.

Order of locks, everywhere: first the rows of `alarm_slot`, the rule's before the zone's, then the row of `alarm`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, CursorResult, Engine, Row, Select, delete, insert, select, update
from sqlalchemy.dialects import mysql, sqlite

from nodeagent.alarm.brake import RULE_ZONE, end_storms, first_state, hold, is_full
from nodeagent.alarm.merge import ZONE_MAX, Confirmation, Known, amend, known_from, reach_ns
from nodeagent.alarm.states import DONE, OPEN, Event, sources
from nodeagent.contract.alarm import AlarmMessage
from nodeagent.contract.errors import AgentError, Unavailable
from nodeagent.infra.alarm_records import AlarmRow, AlarmState, PushRow, Untold, pushes_of, row_from
from nodeagent.infra.database import reading, write
from nodeagent.infra.tables import alarm, alarm_key, alarm_slot, push_attempt

#: Work on one alarm that was started so often without an end is not started again: it kills its worker.
MAX_STARTS = 5
#: Columns of a row whose step came to an orderly end.
RELEASED: Final[dict[str, Any]] = {"claimed_by": None, "starts": 0}
#: Longest text kept in `state_reason` and `partial_reason`, characters.
REASON_MAX = 500


class RowLost(AgentError):
    """The database has the alarm no more: an older one was restored.  Record its message anew."""

    def __init__(self, key: str) -> None:
        super().__init__(f"alarm {key}: the database has it no more, an older one was restored")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a message.

    Attributes:
        row: the alarm as it stands now.
        new: a row was made.
        repeated: the key was known before.
        summary: made with it: an alarm of its own, which tells of a storm that began.
    """

    row: AlarmRow
    new: bool
    repeated: bool
    summary: AlarmRow | None = None


@dataclass(frozen=True, slots=True)
class Cutting:
    """What the cut of a replay gave.

    Attributes:
        replay_path: none when there was nothing to cut.
        replay_start_ns, replay_length_ns: capture time of its first frame, and its length.
        partial_reason: why it does not cover the window; empty: it does.
        missing_ns: how much of the window it does not show.
    """

    replay_path: str | None = None
    replay_sha256: str | None = None
    replay_start_ns: int | None = None
    replay_length_ns: int | None = None
    partial_reason: str = ""
    missing_ns: int = 0
    snapshot_path: str | None = None
    snapshot_sha256: str | None = None


class AlarmStore:
    """Writes of one alarm worker.  Every method raises Unavailable when the database is away."""

    def __init__(self, engine: Engine, worker: str) -> None:
        """`worker`: a name that no other running worker has, the same after a restart: it owns its claims again."""
        self._engine = engine
        self._worker = worker

    def probe(self) -> None:
        """Write and commit, so that it is known whether the database takes writes: one that is read-only or full still
        answers questions.
        """

        def change(connection: Connection) -> None:
            made = connection.execute(insert(alarm_slot).values(camera_id="", rule_id="", zone=self._worker[:ZONE_MAX]))
            number = made.inserted_primary_key[0] if made.inserted_primary_key else None
            connection.execute(delete(alarm_slot).where(alarm_slot.c.id == number))

        write(self._engine, "probe", change)

    def record(self, message: AlarmMessage, now_ns: int) -> Recorded:
        """Amend the alarm that the message is about, or make one."""
        # Made in a transaction of its own: two that insert the same row and then lock it would wait for each other.
        write(self._engine, "slot", lambda connection: _make_slots(connection, message))
        return write(self._engine, "record", lambda connection: _record(connection, message, now_ns))

    def load(self, key: str) -> AlarmRow:
        """The alarm as it stands now, with its push attempts.

        Raises:
            RowLost: there is none.
        """
        with reading(self._engine, "load") as connection:
            row = connection.execute(select(alarm).where(alarm.c.dedup_key == key)).first()
            if row is None:
                raise RowLost(key)
            return row_from(row, pushes_of(connection, [row.id]).get(row.id, ()))

    def advance(self, row: AlarmRow, event: Event, now_ns: int, values: Mapping[str, Any] | None = None) -> bool:
        """Change the state by `event`, with more columns if any; False when the row's state does not allow it."""

        def change(connection: Connection) -> bool:
            ways = sources(event)
            where = [alarm.c.dedup_key == row.dedup_key, alarm.c.state.in_(list(ways))]
            found = connection.execute(select(alarm).where(*where).with_for_update()).first()
            if found is None:
                return False
            target = next(to for state, to in ways.items() if state == found.state)
            times = {target.value: now_ns, **found.state_times}
            new = {"state": target.value, "state_times": times, **(values or {})}
            connection.execute(update(alarm).where(alarm.c.dedup_key == row.dedup_key).values(new))
            return True

        return write(self._engine, f"state {event}", change)

    def claim(self, key: str, now_ns: int, until_ns: int) -> bool:
        """Take the row for cutting or pushing and count the start; False: another worker holds it, or it is gone."""
        free = (
            (alarm.c.claimed_by.is_(None)) | (alarm.c.claimed_by == self._worker) | (alarm.c.claimed_until_ns < now_ns)
        )
        query = (
            update(alarm)
            .where(alarm.c.dedup_key == key, free)
            .values(claimed_by=self._worker, claimed_until_ns=until_ns, starts=alarm.c.starts + 1)
        )
        return write(self._engine, "claim", lambda connection: _count(connection.execute(query)) == 1)

    def release(self, key: str, orderly: bool) -> None:
        """Give the row back.  An orderly end forgets the starts; one by an unknown error does not."""
        query = (
            update(alarm)
            .where(alarm.c.dedup_key == key, alarm.c.claimed_by == self._worker)
            .values(claimed_by=None, starts=0 if orderly else alarm.c.starts)
        )
        write(self._engine, "release", lambda connection: connection.execute(query))

    def forgotten(self, now_ns: int, before_ns: int, limit: int) -> list[str]:
        """Keys of alarms that are not final and that nobody had in hand since `before_ns`, longest forgotten first.

        They count as in hand from now on, so that no two workers get the same.
        """

        def take(connection: Connection) -> list[str]:
            query = (
                select(alarm.c.dedup_key)
                .where(alarm.c.state.in_(list(OPEN)), alarm.c.claimed_until_ns < before_ns)
                .order_by(alarm.c.claimed_until_ns, alarm.c.id)
                .limit(limit)
                .with_for_update()
            )
            found = list(connection.execute(query).scalars())
            values = {"claimed_by": None, "claimed_until_ns": now_ns}
            connection.execute(update(alarm).where(alarm.c.dedup_key.in_(found)).values(values))
            return found

        return write(self._engine, "forgotten", take)

    def end_storms(self, now_ns: int) -> list[str]:
        """Keys of summaries that were made now, each of a storm that is over."""
        return end_storms(self._engine, now_ns)

    def done_of(self, keys: Sequence[str]) -> list[str]:
        """Those of these keys whose alarm came to its end; not those that were given up, which somebody may look at."""
        query = select(alarm.c.dedup_key).where(alarm.c.dedup_key.in_(keys), alarm.c.state.in_(list(DONE)))
        with reading(self._engine, "done") as connection:
            return list(connection.execute(query).scalars())

    def replay_ready(self, row: AlarmRow, cutting: Cutting, push_body: str, now_ns: int) -> bool:
        """Keep what was cut and the body of its push, and give the row back; False when another worker was faster."""
        return self.advance(
            row,
            Event.CUT,
            now_ns,
            {
                "replay_path": cutting.replay_path,
                "replay_sha256": cutting.replay_sha256,
                "replay_start_ns": cutting.replay_start_ns,
                "replay_length_ns": cutting.replay_length_ns,
                "partial": bool(cutting.partial_reason),
                "partial_reason": cutting.partial_reason[:REASON_MAX],
                "missing_ns": cutting.missing_ns,
                "snapshot_path": cutting.snapshot_path,
                "snapshot_sha256": cutting.snapshot_sha256,
                "push_body": push_body,
                **RELEASED,
            },
        )

    def pushed(self, row: AlarmRow, event: Event, now_ns: int) -> bool:
        """Everybody has been told (or there is nobody), and the row is given back; False when it was final before."""
        return self.advance(row, event, now_ns, RELEASED)

    def attempt(self, key: str, push: PushRow) -> None:
        """Keep one push attempt.

        Raises:
            RowLost: there is no such alarm.
        """

        def keep(connection: Connection) -> None:
            found = connection.execute(select(alarm.c.id).where(alarm.c.dedup_key == key)).scalar()
            if found is None:
                raise RowLost(key)
            connection.execute(insert(push_attempt).values(alarm_id=found, **asdict(push)))

        write(self._engine, "push attempt", keep)

    def quarantine(self, row: AlarmRow, reason: str, now_ns: int) -> bool:
        """Give the alarm up for a person to look at."""
        return self.advance(row, Event.GIVE_UP, now_ns, {"state_reason": reason[:REASON_MAX], "claimed_by": None})


def _count(result: CursorResult[Any]) -> int:
    return result.rowcount


def _insert_or_keep(connection: Connection, names: Mapping[str, str]) -> Any:
    if connection.dialect.name == "sqlite":
        return sqlite.insert(alarm_slot).values(names).on_conflict_do_nothing()
    return mysql.insert(alarm_slot).values(names).on_duplicate_key_update(zone=alarm_slot.c.zone)


def _slot_names(message: AlarmMessage) -> list[dict[str, str]]:
    """The slots of a message in the order in which they are locked: of its rule if that has a brake, of its zone."""
    zones = (RULE_ZONE, message.zone) if message.storm_per_hour and not message.shadow else (message.zone,)
    return [{"camera_id": message.camera_id, "rule_id": message.rule_id, "zone": zone} for zone in zones]


def _slot_of(names: Mapping[str, str]) -> Select[Any]:
    return select(alarm_slot.c.id).where(*(alarm_slot.c[name] == value for name, value in names.items()))


def _make_slots(connection: Connection, message: AlarmMessage) -> None:
    for names in _slot_names(message):
        if connection.execute(_slot_of(names)).first() is None:
            connection.execute(_insert_or_keep(connection, names))


def _locked_slots(connection: Connection, message: AlarmMessage) -> tuple[int, int]:
    """Row numbers of the slots of rule and zone; where the rule has no brake both are the zone's."""
    found = [connection.execute(_slot_of(names).with_for_update()).scalar() for names in _slot_names(message)]
    ids = [slot_id for slot_id in found if slot_id is not None]
    if len(ids) < len(found):
        raise Unavailable("database: record: a slot that was just made is gone, an older database is being restored")
    return ids[0], ids[-1]


def _record(connection: Connection, message: AlarmMessage, now_ns: int) -> Recorded:
    rule_slot_id, slot_id = _locked_slots(connection, message)
    own = select(alarm_key.c.alarm_id).where(alarm_key.c.dedup_key == message.dedup_key)
    alarm_id = connection.execute(own).scalar()
    repeated = alarm_id is not None
    if alarm_id is None:
        alarm_id = _touching(connection, slot_id, message)
    new = alarm_id is None
    if alarm_id is None:
        untold = Untold.STORM if not message.shadow and is_full(connection, message) else None
        made = connection.execute(insert(alarm).values(_first_values(slot_id, message, untold, now_ns)))
        alarm_id = made.inserted_primary_key[0] if made.inserted_primary_key else None
    else:
        # Locked although the slot is: claims and states change without the slot's lock.
        row = connection.execute(select(alarm).where(alarm.c.id == alarm_id).with_for_update()).one()
        known = amend(_known_of(row), known_from(message))
        values = {**_known_values(known), "messages": alarm.c.messages + 1}
        if row.claimed_by is None:
            values["claimed_until_ns"] = now_ns
        connection.execute(update(alarm).where(alarm.c.id == alarm_id).values(values))
    if not repeated:
        connection.execute(insert(alarm_key).values(dedup_key=message.dedup_key, alarm_id=alarm_id))
    stored = connection.execute(select(alarm).where(alarm.c.id == alarm_id)).one()
    if not new or stored.untold != Untold.STORM:
        return Recorded(row_from(stored), new=new, repeated=repeated)
    told_id = hold(connection, rule_slot_id, stored, message.storm_per_hour, now_ns)
    told = None if told_id is None else connection.execute(select(alarm).where(alarm.c.id == told_id)).one()
    return Recorded(row_from(stored), new, repeated, summary=None if told is None else row_from(told))


def _touching(connection: Connection, slot_id: int, message: AlarmMessage) -> int | None:
    """The latest alarm of the slot whose interval touches the message's within the cooldown.

    What is told of and what is not are never one alarm.
    """
    earliest_ns, latest_ns = reach_ns(message)
    query = (
        select(alarm.c.id)
        .where(
            alarm.c.slot_id == slot_id,
            alarm.c.shadow == message.shadow,
            alarm.c.started_ns <= latest_ns,
            alarm.c.last_ns >= earliest_ns,
        )
        .order_by(alarm.c.started_ns.desc(), alarm.c.id.desc())
        .limit(1)
    )
    return connection.execute(query).scalar()


def _known_of(row: Row[Any]) -> Known:
    first = Confirmation(**{name: getattr(row, name) for name in Confirmation.__dataclass_fields__})
    return Known(first, row.started_ns, row.last_ns, row.ended_ns, row.severity, row.subjects)


def _known_values(known: Known) -> dict[str, Any]:
    first = {name: getattr(known.first, name) for name in Confirmation.__dataclass_fields__}
    rest = ("started_ns", "last_ns", "ended_ns", "severity", "subjects")
    return first | {name: getattr(known, name) for name in rest}


def _first_values(slot_id: int, message: AlarmMessage, untold: Untold | None, now_ns: int) -> dict[str, Any]:
    # Where nobody is told it is final at once, in this one statement: there is no step that could begin to cut or push.
    reason = "shadow mode" if message.shadow else ""
    if untold is Untold.STORM:
        reason = f"storm: more than storm_per_hour = {message.storm_per_hour} within the hour"
    return {
        **_known_values(known_from(message)),
        "slot_id": slot_id,
        "dedup_key": message.dedup_key,
        "kind": message.kind,
        "camera_id": message.camera_id,
        "rule_id": message.rule_id,
        "zone": message.zone,
        "messages": 1,
        "shadow": message.shadow,
        "untold": untold or "",
        "summary": "",
        **first_state(AlarmState.RECORDED if reason else AlarmState.RECEIVED, reason, now_ns),
    }
