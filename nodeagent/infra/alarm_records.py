"""Alarms as the database has them: the rows, typed, and the reads that show them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, Row, select

from nodeagent.contract.alarm import Evidence
from nodeagent.contract.errors import DecodeError
from nodeagent.infra.database import reading
from nodeagent.infra.tables import alarm, push_attempt


class AlarmState(StrEnum):
    """How far an alarm has come."""

    #: The row is stored.
    RECEIVED = "received"
    #: Its clips are pinned; the window is not over, or not on disk yet.
    WAITING = "waiting"
    #: Replay and snapshot are on disk and verified; some target has not accepted the push yet.
    REPLAY_READY = "replay_ready"
    #: Every target has accepted it.
    PUSHED = "pushed"
    #: Complete, and nobody is configured to be told; or nobody is to be told of it, and it has no replay.
    RECORDED = "recorded"
    #: Its processing was started five times and never came to an end: a person must look.
    QUARANTINED = "quarantined"


class Untold(StrEnum):
    """Why nobody is told of an alarm although its rule counts."""

    #: Its rule has alarmed too often within the hour.
    STORM = "storm"


@dataclass(frozen=True, slots=True)
class PushRow:
    """One request to one target.

    Attributes:
        started_ns: wall clock, UTC ns.
        status: HTTP status; none when no answer came.
        error: what went wrong, free of secrets; empty when accepted.
    """

    target: str
    started_ns: int
    duration_ms: int
    status: int | None
    accepted: bool
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRow:
    """One alarm and all that became of it.

    Attributes:
        id: number of the row.
        dedup_key: key of its first message, the Idempotency-Key of its pushes.
        started_ns, confirmed_ns, last_ns, ended_ns: capture times of the episode; `ended_ns` is none while it lasts.
        sample_ns: capture time of the confirming sample.
        shadow: of a rule in shadow mode: recorded without replay, and nobody is told.
        untold: why nobody is told of it although its rule counts: `storm`; empty: somebody is.
        summary: what it tells when it stands for alarms that nobody is told of; empty: it is an alarm of its own.
        timings: wall clock, UTC ns, by step: `closed`, `inference_started`, `inference_done`, `judged`, then the states
            of this row by their names.
        replay_path: the MP4; none before it is cut, and when there was nothing to cut.
        replay_start_ns, replay_length_ns: capture time of its first frame, and its length.
        partial: whether the replay does not cover its window; `partial_reason` says why, `missing_ns` how much.
        starts: times that work on it began without an end since.
        messages: messages that were merged into it.
    """

    id: int
    dedup_key: str
    kind: str
    state: AlarmState
    state_reason: str
    camera_id: str
    rule_id: str
    rule_kind: str
    zone: str
    node_id: str
    epoch: int
    severity: str
    shadow: bool
    untold: str
    summary: str
    started_ns: int
    confirmed_ns: int
    last_ns: int
    ended_ns: int | None
    subjects: int
    sample_ns: int
    evidence: Evidence
    timings: Mapping[str, int]
    replay_from_ns: int
    replay_to_ns: int
    replay_path: str | None
    replay_sha256: str | None
    replay_start_ns: int | None
    replay_length_ns: int | None
    partial: bool
    partial_reason: str
    missing_ns: int
    snapshot_path: str | None
    snapshot_sha256: str | None
    push_body: str | None
    starts: int
    messages: int
    pushes: tuple[PushRow, ...] = ()


#: Columns that go into an AlarmRow as they are.
_PLAIN = tuple(
    name for name in AlarmRow.__dataclass_fields__ if name not in {"state", "evidence", "timings", "partial", "pushes"}
)


def row_from(row: Row[Any], pushes: Iterable[PushRow] = ()) -> AlarmRow:
    """An AlarmRow from a row of the table `alarm`.

    Raises:
        DecodeError: somebody else wrote into the table.
    """
    got = row._mapping
    try:
        return AlarmRow(
            **{name: got[name] for name in _PLAIN},
            state=AlarmState(got["state"]),
            evidence=Evidence.model_validate_json(got["evidence"]),
            timings={**json.loads(got["timings"]), **got["state_times"]},
            partial=bool(got["partial"]),
            pushes=tuple(pushes),
        )
    except (ValidationError, ValueError, TypeError) as exc:
        raise DecodeError(f"table alarm, row {got['id']}: {type(exc).__name__}") from None


def pushes_of(connection: Connection, alarm_ids: Iterable[int]) -> dict[int, list[PushRow]]:
    """Push attempts by alarm, oldest first."""
    found: dict[int, list[PushRow]] = {}
    query = select(push_attempt).where(push_attempt.c.alarm_id.in_(list(alarm_ids))).order_by(push_attempt.c.id)
    for row in connection.execute(query):
        push = PushRow(row.target, row.started_ns, row.duration_ms, row.status, bool(row.accepted), row.error)
        found.setdefault(row.alarm_id, []).append(push)
    return found


def list_alarms(
    engine: Engine, limit: int = 50, camera: str | None = None, since_ns: int | None = None
) -> list[AlarmRow]:
    """The latest alarms, newest first, with their push attempts.

    Args:
        engine: see `infra.database`.
        limit: how many at most.
        camera: only of this camera.
        since_ns: only those confirmed at or after this time, UTC ns.

    Raises:
        Unavailable: the database is away, or was never migrated.
        DecodeError: a row that is none of ours.
    """
    query = select(alarm).order_by(alarm.c.confirmed_ns.desc(), alarm.c.id.desc()).limit(limit)
    if camera is not None:
        query = query.where(alarm.c.camera_id == camera)
    if since_ns is not None:
        query = query.where(alarm.c.confirmed_ns >= since_ns)
    with reading(engine, "list alarms") as connection:
        rows = connection.execute(query).all()
        pushes = pushes_of(connection, [row.id for row in rows])
    return [row_from(row, pushes.get(row.id, ())) for row in rows]


def show(engine: Engine, which: int | str) -> AlarmRow | None:
    """One alarm by its row number or its dedup_key; None when there is none.

    Raises:
        Unavailable: the database is away, or was never migrated.
        DecodeError: the row is none of ours.
    """
    column = alarm.c.id if isinstance(which, int) else alarm.c.dedup_key
    with reading(engine, "show alarm") as connection:
        row = connection.execute(select(alarm).where(column == which)).first()
        if row is None:
            return None
        return row_from(row, pushes_of(connection, [row.id]).get(row.id, ()))
