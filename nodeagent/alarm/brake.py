"""Holds back alarms of a rule that alarms too often (`storm` decides), in the transaction that records them.

A held alarm, what it adds to its storm and the summary that is told of it are written together: killed before the
commit there is none of them, and the message comes again; killed after it there are all, and the summary is found by
its row.  Whoever reads how full an hour is holds the lock of the rule's row of `alarm_slot`, so two workers count one
after the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, insert, select, update

from nodeagent.alarm.storm import HOUR_NS, SETTLED_NS, began_text, is_braked, is_over, over_text, summary_key
from nodeagent.contract.alarm import AlarmMessage
from nodeagent.infra.alarm_records import AlarmState
from nodeagent.infra.database import reading, write
from nodeagent.infra.tables import alarm, alarm_slot, alarm_storm

#: Zone of the slot that stands for a whole rule: a rule's own zones have names.
RULE_ZONE: Final = ""
#: Storms whose end is told at a time.
STORMS_MAX: Final = 64
#: Columns that a summary has from one of the alarms that were held: what a person sees of them.
_SHOWN: Final = (
    "camera_id", "rule_id", "rule_kind", "zone", "node_id", "epoch", "severity", "started_ns", "confirmed_ns",
    "last_ns", "ended_ns", "subjects", "sample_ns", "timings", "replay_from_ns", "replay_to_ns",
)  # fmt: skip


def is_full(connection: Connection, message: AlarmMessage) -> bool:
    """Whether the hour around the message's alarm, which is not recorded yet, has as many as its rule lets through.

    The rule's slot is locked.
    """
    at_ns, most = message.confirmed_ns, message.storm_per_hour
    if not most:
        return False
    counted = select(alarm.c.confirmed_ns).where(
        alarm.c.camera_id == message.camera_id,
        alarm.c.rule_id == message.rule_id,
        alarm.c.shadow.is_(False),
        alarm.c.summary == "",
    )
    column = alarm.c.confirmed_ns
    before = counted.where(column <= at_ns, column > at_ns - HOUR_NS).order_by(column.desc()).limit(most)
    after = counted.where(column > at_ns, column < at_ns + HOUR_NS).order_by(column).limit(most)
    others = [*connection.execute(before).scalars(), *connection.execute(after).scalars()]
    return is_braked(others, at_ns, most)


def hold(connection: Connection, slot_id: int, held: Row[Any], per_hour: int, now_ns: int) -> int | None:
    """Count an alarm that was just recorded and is held into its storm; returns the row of the summary when it is the
    first one.

    The rule's slot, `slot_id`, is locked.
    """
    at_ns = held.confirmed_ns
    query = (
        select(alarm_storm)
        .where(
            alarm_storm.c.over_ns == 0,
            alarm_storm.c.camera_id == held.camera_id,
            alarm_storm.c.rule_id == held.rule_id,
            alarm_storm.c.began_ns <= at_ns + HOUR_NS,
            alarm_storm.c.last_ns >= at_ns - HOUR_NS,
        )
        .order_by(alarm_storm.c.id.desc())
        .limit(1)
    )
    storm = connection.execute(query).first()
    if storm is not None:
        values = {
            "began_ns": min(storm.began_ns, at_ns),
            "last_ns": max(storm.last_ns, at_ns),
            "last_id": held.id if at_ns >= storm.last_ns else storm.last_id,
            "held": storm.held + 1,
            "touched_ns": max(storm.touched_ns, now_ns),
        }
        connection.execute(update(alarm_storm).where(alarm_storm.c.id == storm.id).values(values))
        return None
    made = {
        "camera_id": held.camera_id, "rule_id": held.rule_id, "first_key": held.dedup_key, "last_id": held.id,
        "began_ns": at_ns, "last_ns": at_ns, "held": 1, "touched_ns": now_ns, "over_ns": 0,
    }  # fmt: skip
    connection.execute(insert(alarm_storm).values(made))
    key = summary_key(held.camera_id, held.rule_id, held.dedup_key, over=False)
    text = began_text(held.camera_id, held.rule_id, per_hour)
    return _summary(connection, slot_id, held, key, text, {"storm_per_hour": per_hour}, {}, now_ns)


def end_storms(engine: Engine, now_ns: int) -> list[str]:
    """Make the summaries of storms that are over by now; returns their keys.

    Raises:
        Unavailable: the database is away.
    """
    query = (
        select(alarm_storm.c.id, alarm_storm.c.camera_id, alarm_storm.c.rule_id)
        .where(
            alarm_storm.c.over_ns == 0,
            alarm_storm.c.last_ns <= now_ns - HOUR_NS,
            alarm_storm.c.touched_ns <= now_ns - SETTLED_NS,
        )
        .order_by(alarm_storm.c.id)
        .limit(STORMS_MAX)
    )
    with reading(engine, "storms") as connection:
        due = connection.execute(query).all()
    made = [
        write(
            engine,
            "end of storm",
            partial(_end, storm_id=one.id, camera_id=one.camera_id, rule_id=one.rule_id, now_ns=now_ns),
        )
        for one in due
    ]
    return [key for key in made if key is not None]


def _end(connection: Connection, storm_id: int, camera_id: str, rule_id: str, now_ns: int) -> str | None:
    """End one storm; None when somebody else did, or it goes on."""
    slot = select(alarm_slot.c.id).where(
        alarm_slot.c.camera_id == camera_id, alarm_slot.c.rule_id == rule_id, alarm_slot.c.zone == RULE_ZONE
    )
    slot_id = connection.execute(slot.with_for_update()).scalar()
    storm = connection.execute(select(alarm_storm).where(alarm_storm.c.id == storm_id)).first()
    if slot_id is None or storm is None or storm.over_ns or not is_over(storm.last_ns, storm.touched_ns, now_ns):
        return None
    connection.execute(update(alarm_storm).where(alarm_storm.c.id == storm.id).values(over_ns=now_ns))
    last = connection.execute(select(alarm).where(alarm.c.id == storm.last_id)).one()
    key = summary_key(storm.camera_id, storm.rule_id, storm.first_key, over=True)
    text = over_text(storm.camera_id, storm.rule_id, storm.held)
    times = {"started_ns": storm.began_ns, "ended_ns": storm.last_ns}
    return key if _summary(connection, slot_id, last, key, text, {"held": storm.held}, times, now_ns) else None


def _summary(
    connection: Connection,
    slot_id: int,
    shown: Row[Any],
    key: str,
    text: str,
    figures: Mapping[str, int],
    times: Mapping[str, int],
    now_ns: int,
) -> int | None:
    """Make an alarm that stands for others and shows one of them; None when there is one of this key: the tables of an
    older database are put back one after the other.
    """
    if connection.execute(select(alarm.c.id).where(alarm.c.dedup_key == key)).first() is not None:
        return None
    evidence = json.loads(shown.evidence)
    evidence["values"] = figures
    values = {
        **{name: shown._mapping[name] for name in _SHOWN},
        **times,
        "slot_id": slot_id,
        "dedup_key": key,
        "kind": "system",
        "shadow": False,
        "untold": "",
        "summary": text,
        "evidence": json.dumps(evidence, sort_keys=True),
        "messages": 0,
        **first_state(AlarmState.RECEIVED, "", now_ns),
    }
    made = connection.execute(insert(alarm).values(values))
    return made.inserted_primary_key[0] if made.inserted_primary_key else None


def first_state(state: AlarmState, reason: str, now_ns: int) -> dict[str, Any]:
    """Columns that say how far a new row has come: received, or no further to go at once."""
    return {
        "state": state.value,
        "state_reason": reason,
        "state_times": {one.value: now_ns for one in (AlarmState.RECEIVED, state)},
        "starts": 0,
        "claimed_until_ns": now_ns,
        "partial": False,
        "partial_reason": "",
        "missing_ns": 0,
    }
