"""The alarm's rows on both databases: one row per episode whoever writes, claims, and the reads of the CLI."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from nodeagent.alarm.states import Event
from nodeagent.alarm.store import AlarmStore, Cutting
from nodeagent.contract.alarm import AlarmMessage
from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.alarm_records import AlarmState, PushRow, list_alarms, show
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.tables import alarm, alarm_key, alarm_slot
from tests.support.alarms import T0, message

S = NS_PER_S


@pytest.fixture(params=["sqlite", pytest.param("mysql", marks=pytest.mark.services)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("mysql_url")
    opened = open_database(url)
    migrate(opened)
    yield opened
    opened.dispose()


def count(engine: Engine, table: Any) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_a_message_that_comes_again_amends_its_row(engine: Engine) -> None:
    store = AlarmStore(engine, "w")
    first = store.record(message(), T0)
    again = store.record(message(stage="ended", ended_ns=T0 + 30 * S, severity="critical"), T0 + 1)
    assert (first.new, first.repeated) == (True, False)
    assert (again.new, again.repeated) == (False, True)
    assert (again.row.id, again.row.ended_ns, again.row.severity) == (first.row.id, T0 + 30 * S, "critical")
    assert again.row.timings == {"closed": T0 + 16 * S, "judged": T0 + 17 * S, "received": T0}
    assert again.row.zone == "北门"


def test_another_key_within_the_cooldown_is_merged_and_found_again_by_its_own_key(engine: Engine) -> None:
    store = AlarmStore(engine, "w")
    first = store.record(message(), T0)
    other = message(confirmed_ns=T0 + 40 * S, node_id="node-2")
    assert other.dedup_key != first.row.dedup_key
    merged = store.record(other, T0)
    assert (merged.new, merged.row.id, merged.row.dedup_key) == (False, first.row.id, first.row.dedup_key)
    late = store.record(other.model_copy(update={"stage": "ended", "ended_ns": T0 + 900 * S}), T0)
    assert (late.repeated, late.row.id, late.row.ended_ns) == (True, first.row.id, T0 + 900 * S)


def test_beyond_the_cooldown_or_in_another_slot_it_is_another_alarm(engine: Engine) -> None:
    store = AlarmStore(engine, "w")
    sent = [message(), message(confirmed_ns=T0 + 100 * S), message(zone="b"), message(rule_id="r2")]
    sent += [message(camera_id="Gate-1"), message(zone="B")]
    assert [store.record(one, T0).new for one in sent] == [True] * 6


def test_what_is_told_of_and_what_is_not_are_never_one_alarm(engine: Engine) -> None:
    store = AlarmStore(engine, "w")
    tried = store.record(message(shadow=True), T0)
    real = store.record(message(), T0)
    assert (tried.row.shadow, tried.row.state, tried.row.state_reason) == (True, AlarmState.RECORDED, "shadow mode")
    assert (real.new, real.row.shadow, real.row.state) == (True, False, AlarmState.RECEIVED)
    # Other keys within the cooldown, as of a judge that lost its memory: each goes to its own.
    after = [store.record(message(shadow=shadow, confirmed_ns=T0 + 30 * S), T0) for shadow in (True, False)]
    assert [(one.new, one.row.id) for one in after] == [(False, tried.row.id), (False, real.row.id)]
    # Nobody takes up what needs nothing any more.
    assert store.forgotten(T0 + S, T0 + S, 10) == [real.row.dedup_key]


def test_a_writer_of_the_release_before_leaves_the_columns_to_their_defaults(engine: Engine) -> None:
    row = AlarmStore(engine, "w").record(message(shadow=True), T0).row
    new = ("id", "dedup_key", "shadow", "untold", "summary")
    with engine.begin() as connection:
        names = [column.name for column in alarm.columns if column.name not in new]
        columns = ", ".join(names)
        connection.exec_driver_sql(f"INSERT INTO alarm (dedup_key, {columns}) SELECT 'old', {columns} FROM alarm")
    old = show(engine, "old")
    assert old is not None and (old.id != row.id, old.shadow, old.untold, old.summary) == (True, False, "", "")


def test_a_late_copy_of_an_older_episode_finds_its_alarm_behind_a_newer_one(engine: Engine) -> None:
    store = AlarmStore(engine, "w")
    old = store.record(message(), T0).row
    store.record(message(confirmed_ns=T0 + 500 * S), T0)
    late = store.record(message(confirmed_ns=T0 + 17 * S, node_id="node-2"), T0)
    assert (late.new, late.row.id) == (False, old.id)


def test_workers_at_once_make_one_row_per_episode(engine: Engine) -> None:
    episodes = [message(camera_id=f"cam-{n % 2}", confirmed_ns=T0 + n * 1000 * S) for n in range(6)]
    sent: list[AlarmMessage] = []
    for one in episodes:
        twin = message(camera_id=one.camera_id, confirmed_ns=one.confirmed_ns + 2 * S, node_id="node-2")
        sent += [one, one.model_copy(update={"stage": "ended", "ended_ns": one.confirmed_ns + 9 * S}), twin]
    failed: list[Exception] = []

    def work(name: str, mine: list[AlarmMessage]) -> None:
        store = AlarmStore(engine, name)
        try:
            for one in mine:
                store.record(one, T0)
        except Exception as exc:
            failed.append(exc)

    threads = [threading.Thread(target=work, args=(f"w{i}", sent[:: 1 if i % 2 else -1])) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (count(engine, alarm), count(engine, alarm_key), count(engine, alarm_slot)) == (6, 12, 2)
    rows = list_alarms(engine)
    assert {row.messages for row in rows} == {12}
    assert {row.ended_ns - row.confirmed_ns for row in rows if row.ended_ns} == {9 * S}


def test_a_claim_is_held_by_one_worker_and_is_its_own_after_a_restart(engine: Engine) -> None:
    store, other = AlarmStore(engine, "node/alarm:0"), AlarmStore(engine, "node/alarm:1")
    row = store.record(message(), T0).row
    assert store.claim(row.dedup_key, T0, T0 + 60 * S)
    assert not other.claim(row.dedup_key, T0 + S, T0 + 61 * S)
    assert AlarmStore(engine, "node/alarm:0").claim(row.dedup_key, T0 + S, T0 + 61 * S)
    assert store.load(row.dedup_key).starts == 2
    other.release(row.dedup_key, orderly=True)
    assert not other.claim(row.dedup_key, T0 + 2 * S, T0 + 62 * S)
    assert other.claim(row.dedup_key, T0 + 62 * S, T0 + 99 * S)
    other.release(row.dedup_key, orderly=True)
    assert store.load(row.dedup_key).starts == 0
    assert store.claim(row.dedup_key, T0, T0 + S)


def test_a_state_only_moves_along_the_table(engine: Engine) -> None:
    store = AlarmStore(engine, "w")
    row = store.record(message(), T0).row
    assert not store.advance(row, Event.ACCEPTED, T0)
    assert store.advance(row, Event.WAIT, T0 + 1)
    assert store.replay_ready(row, Cutting("/r.mp4", "ab", T0, 20 * S, "no video", S), "{}", T0 + 2)
    assert not store.replay_ready(row, Cutting(), "{}", T0 + 3)
    assert store.advance(row, Event.ACCEPTED, T0 + 4)
    assert not store.quarantine(row, "x", T0 + 5)
    final = store.load(row.dedup_key)
    assert (final.state, final.replay_path, final.partial, final.missing_ns) == (AlarmState.PUSHED, "/r.mp4", True, S)
    steps = {name: final.timings[name] for name in ("received", "waiting", "replay_ready", "pushed")}
    assert steps == {"received": T0, "waiting": T0 + 1, "replay_ready": T0 + 2, "pushed": T0 + 4}


def test_an_alarm_that_was_taken_up_is_not_taken_again_by_another_worker(engine: Engine) -> None:
    mine, other = (AlarmStore(engine, name) for name in ("node-1/alarm:0", "node-2/alarm:0"))
    rows = [mine.record(message(zone=zone), T0).row for zone in "abc"]
    assert mine.advance(rows[2], Event.GIVE_UP, T0)
    assert mine.claim(rows[0].dedup_key, T0, T0 + 60 * S)
    assert mine.forgotten(T0 + 60 * S, T0, 9) == []
    assert mine.forgotten(T0 + 60 * S, T0 + 1, 9) == [rows[1].dedup_key]
    assert other.forgotten(T0 + 61 * S, T0 + 60 * S, 9) == []
    assert other.forgotten(T0 + 700 * S, T0 + 100 * S, 1) == [rows[0].dedup_key]
    assert other.claim(rows[0].dedup_key, T0 + 700 * S, T0 + 760 * S)


def test_reads_of_the_cli(engine: Engine) -> None:
    store = AlarmStore(engine, "w")
    old = store.record(message(), T0).row
    new = store.record(message(camera_id="gate-2", confirmed_ns=T0 + 900 * S), T0).row
    store.attempt(old.dedup_key, PushRow("crm", T0, 12, 500, False, "HTTP 500"))
    store.attempt(old.dedup_key, PushRow("crm", T0 + 1, 10, 200, True, ""))
    assert [row.id for row in list_alarms(engine)] == [new.id, old.id]
    assert [row.id for row in list_alarms(engine, limit=1)] == [new.id]
    assert [row.id for row in list_alarms(engine, camera="gate-1")] == [old.id]
    assert [row.id for row in list_alarms(engine, since_ns=T0 + 800 * S)] == [new.id]
    shown = show(engine, old.dedup_key)
    assert shown is not None and shown == show(engine, old.id)
    told = [(push.status, push.accepted, push.error) for push in shown.pushes]
    assert told == [(500, False, "HTTP 500"), (200, True, "")]
    assert show(engine, "0" * 32) is None and show(engine, 999) is None


def test_a_row_that_somebody_else_wrote_is_refused_not_believed(engine: Engine) -> None:
    row = AlarmStore(engine, "w").record(message(), T0).row
    with engine.begin() as connection:
        connection.execute(alarm.update().values(state="on holiday"))
    with pytest.raises(DecodeError):
        show(engine, row.id)
