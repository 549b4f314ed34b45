"""The storm brake on both databases: what is held, counted and told, whoever records it, in whatever order."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select

from nodeagent.alarm import brake
from nodeagent.alarm.states import Event
from nodeagent.alarm.store import AlarmStore, Cutting
from nodeagent.alarm.storm import HOUR_NS, SETTLED_NS, is_braked, summary_key
from nodeagent.contract.alarm import AlarmMessage
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.alarm_records import AlarmRow, AlarmState, Untold, list_alarms, show
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.tables import alarm, alarm_storm
from tests.support.alarms import T0, message

S = NS_PER_S
#: Between two alarms: over the cooldown, so each is one of its own.
APART_NS = 120 * S


@pytest.fixture(params=["sqlite", pytest.param("mysql", marks=pytest.mark.services)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("mysql_url")
    opened = open_database(url)
    migrate(opened)
    yield opened
    opened.dispose()


def episode(number: int, **changes: Any) -> AlarmMessage:
    return message(confirmed_ns=T0 + number * APART_NS, **{"storm_per_hour": 2, **changes})


def summaries(engine: Engine) -> list[AlarmRow]:
    return [row for row in list_alarms(engine) if row.summary]


def storms(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(alarm_storm).order_by(alarm_storm.c.id)))


def test_over_so_many_within_the_hour_the_rest_is_recorded_and_one_summary_told(engine: Engine) -> None:
    store = AlarmStore(engine, "w")
    done = [store.record(episode(n), T0 + n) for n in range(5)]
    assert [one.row.untold for one in done] == ["", "", *["storm"] * 3]
    assert {one.row.state for one in done[2:]} == {AlarmState.RECORDED}
    assert done[2].row.state_reason == "storm: more than storm_per_hour = 2 within the hour"
    (told,) = summaries(engine)
    assert [one.summary for one in done] == [None, None, told, None, None]
    assert told.dedup_key == summary_key("gate-1", "yard", done[2].row.dedup_key, over=False)
    assert (told.kind, told.state, told.zone) == ("system", AlarmState.RECEIVED, "北门")
    assert told.summary == "rule yard on camera gate-1: 2 alarms within the hour, further ones are recorded only"
    # It shows the first one that was held.
    first = done[2].row
    assert (told.confirmed_ns, told.replay_from_ns, told.evidence.boxes) == (
        first.confirmed_ns, first.replay_from_ns, first.evidence.boxes,
    )  # fmt: skip
    assert told.evidence.values == {"storm_per_hour": 2}
    assert [(one.held, one.over_ns) for one in storms(engine)] == [(3, 0)]


def test_redelivered_updates_and_ends_follow_what_the_start_got_and_count_nothing(engine: Engine) -> None:
    store = AlarmStore(engine, "w")
    for n in range(3):
        store.record(episode(n), T0)
    for n in range(3):
        again = store.record(episode(n), T0)
        ended = store.record(episode(n, stage="ended", ended_ns=T0 + n * APART_NS + 5 * S), T0)
        assert (again.new, again.summary, ended.new) == (False, None, False)
        assert ended.row.untold == ("storm" if n == 2 else "")
    # A rule that was made to let all through changes nothing of what was decided.
    assert store.record(episode(2, storm_per_hour=0), T0).row.untold == "storm"
    assert ([one.held for one in storms(engine)], len(summaries(engine))) == ([1], 1)


def test_what_comes_late_and_out_of_order_fills_no_hour_twice(engine: Engine) -> None:
    store = AlarmStore(engine, "w")
    numbers = list(range(-40, 41, 4))
    random.Random(7).shuffle(numbers)
    for n in numbers:
        store.record(episode(n), T0)
    rows = [row for row in list_alarms(engine, 100) if not row.summary]
    told = [row.confirmed_ns for row in rows if not row.untold]
    assert (len(rows), 2 <= len(told) < len(rows)) == (len(numbers), True)
    assert not any(is_braked([other for other in told if other != at], at, 2) for at in told)
    assert sum(one.held for one in storms(engine)) == len(rows) - len(told)


def test_other_rules_cameras_and_what_nobody_is_told_of_fill_no_hour(engine: Engine) -> None:
    store = AlarmStore(engine, "w")
    for n in range(4):
        store.record(episode(n, shadow=True), T0)
    sent = [episode(n, **one) for n in range(2) for one in ({}, {"rule_id": "r2"}, {"camera_id": "Gate-1"})]
    assert {store.record(one, T0).row.untold for one in sent} == {""}
    # All zones of a rule are one storm.
    assert store.record(episode(3, zone="b"), T0).row.untold == Untold.STORM
    assert store.record(episode(9, storm_per_hour=0), T0).row.untold == ""


def test_the_end_is_told_once_with_the_count_and_a_new_storm_begins_anew(engine: Engine) -> None:
    store, other = AlarmStore(engine, "node-1/alarm:0"), AlarmStore(engine, "node-2/alarm:0")
    for n in range(5):
        store.record(episode(n), T0)
    last_ns = T0 + 4 * APART_NS
    assert store.end_storms(last_ns + HOUR_NS - 1) == []
    (key,) = store.end_storms(last_ns + HOUR_NS)
    assert (store.end_storms(last_ns + HOUR_NS), other.end_storms(last_ns + 2 * HOUR_NS)) == ([], [])
    over = show(engine, key)
    assert over is not None
    assert over.summary == "rule yard on camera gate-1: the storm is over, 3 alarms more recorded and not told"
    assert (over.started_ns, over.ended_ns, over.evidence.values) == (T0 + 2 * APART_NS, last_ns, {"held": 3})
    # What is judged later still is of another storm: each that is held is in the count of one.
    late = store.record(episode(3, zone="b"), T0 + 9 * HOUR_NS)
    assert late.row.untold == "storm" and late.summary is not None
    assert store.end_storms(T0 + 9 * HOUR_NS + SETTLED_NS - 1) == []
    (again,) = store.end_storms(T0 + 9 * HOUR_NS + SETTLED_NS)
    assert again != key
    assert [one.held for one in storms(engine)] == [3, 1]


def test_summaries_take_the_way_of_alarms_and_are_found_by_their_rows(engine: Engine) -> None:
    store = AlarmStore(engine, "w")
    done = [store.record(episode(n), T0) for n in range(3)]
    summary = done[2].summary
    assert summary is not None
    # Killed right after the commit: the sweep finds it, and of the held alarms none.
    assert store.forgotten(T0 + S, T0 + 1, 9) == [done[0].row.dedup_key, done[1].row.dedup_key, summary.dedup_key]
    assert store.replay_ready(summary, Cutting("/r.mp4", "ab", T0, 20 * S), "{}", T0)
    assert store.advance(summary, Event.ACCEPTED, T0)
    # No message is merged into it, though it lies at the same time on the same camera.
    assert store.record(message(confirmed_ns=T0 + 2 * APART_NS + S, storm_per_hour=2), T0).row.id == done[2].row.id
    assert store.load(summary.dedup_key).messages == 0


def test_killed_before_the_commit_there_is_neither_alarm_nor_storm_nor_summary(engine: Engine) -> None:
    store = AlarmStore(engine, "w")
    for n in range(2):
        store.record(episode(n), T0)

    class Killed(BaseException):
        pass

    left = 0

    def kill(*_statement: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    for allowed in itertools.count():
        left = allowed
        event.listen(engine, "before_cursor_execute", kill)
        try:
            store.record(episode(2), T0)
            break
        except Killed:
            pass
        finally:
            event.remove(engine, "before_cursor_execute", kill)
        assert (len(list_alarms(engine)), storms(engine)) == (2, [])
    assert allowed >= 12
    assert ([one.held for one in storms(engine)], len(summaries(engine)), len(list_alarms(engine))) == ([1], 1, 4)


def test_workers_at_once_tell_of_no_more_than_the_rule_lets_through_and_of_one_storm(engine: Engine) -> None:
    sent = [episode(n, camera_id=f"cam-{n % 2}", zone=f"z{n % 3}", storm_per_hour=3) for n in range(24)]
    failed: list[Exception] = []
    made: list[str] = []

    def work(name: str, mine: list[AlarmMessage]) -> None:
        store = AlarmStore(engine, name)
        try:
            for one in mine:
                recorded = store.record(one, T0)
                made.extend([recorded.summary.dedup_key] if recorded.summary else [])
        except Exception as exc:
            failed.append(exc)

    threads = [threading.Thread(target=work, args=(f"w{i}", sent[:: 1 if i % 2 else -1])) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    rows = [row for row in list_alarms(engine, 100) if not row.summary]
    # All within one hour: exactly three of each camera, whoever came first.
    assert Counter((row.camera_id, row.untold) for row in rows) == {
        ("cam-0", ""): 3, ("cam-1", ""): 3, ("cam-0", "storm"): 9, ("cam-1", "storm"): 9,
    }  # fmt: skip
    assert sorted(one.held for one in storms(engine)) == [9, 9]
    assert sorted(made) == sorted(row.dedup_key for row in summaries(engine)) and len(made) == 2


def test_two_that_end_a_storm_at_once_tell_of_it_once(engine: Engine) -> None:
    for n in range(4):
        AlarmStore(engine, "w").record(episode(n), T0)
    barrier = threading.Barrier(2)
    ended: list[str] = []

    def end() -> None:
        barrier.wait()
        ended.extend(brake.end_storms(engine, T0 + 3 * HOUR_NS))

    threads = [threading.Thread(target=end) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 1
    with engine.connect() as connection:
        assert len(connection.execute(select(alarm.c.id).where(alarm.c.summary != "")).all()) == 2
