"""Messages of an alarm in any order give one row, and those of two alarms two: the algebra, then the database."""

from __future__ import annotations

import itertools
from functools import reduce
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodeagent.alarm.merge import amend, known_from
from nodeagent.alarm.plan import Piece, Window, choose, gaps_in
from nodeagent.alarm.store import AlarmStore
from nodeagent.contract.alarm import AlarmMessage
from nodeagent.contract.clip import ClipId
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.alarm_records import list_alarms
from nodeagent.infra.database import migrate, open_database
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.evidence import Author
from tests.support.alarms import T0, message
from tests.support.scenarios import Scene, intrusion, stands

S = NS_PER_S


@st.composite
def messages(draw: st.DrawFn) -> AlarmMessage:
    """Of one slot, all within one cooldown of each other."""
    started = T0 + draw(st.integers(0, 10)) * S
    confirmed = started + draw(st.integers(0, 5)) * S
    return message(
        stage=draw(st.sampled_from(["started", "updated", "ended"])),
        episode_started_ns=started,
        confirmed_ns=confirmed,
        ended_ns=draw(st.none() | st.integers(0, 10).map(lambda s: confirmed + s * S)),
        severity=draw(st.sampled_from(["info", "warning", "critical"])),
        node_id=draw(st.sampled_from(["a", "b"])),
        cooldown_s=60.0,
    )


@given(messages(), messages(), messages())
def test_amending_commutes_associates_and_repeats_harmlessly(a: AlarmMessage, b: AlarmMessage, c: AlarmMessage) -> None:
    x, y, z = map(known_from, (a, b, c))
    assert amend(x, y) == amend(y, x)
    assert amend(amend(x, y), z) == amend(x, amend(y, z))
    assert amend(x, x) == x


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(messages(), min_size=2, max_size=3), st.data())
def test_any_order_with_any_repetition_gives_the_same_row(
    tmp_path_factory: object, sent: list[AlarmMessage], data: st.DataObject
) -> None:
    expected = reduce(amend, map(known_from, sent))
    for number, order in enumerate(itertools.permutations(sent)):
        again = data.draw(st.lists(st.sampled_from(sent), max_size=2), label=f"redelivered {number}")
        folder = tmp_path_factory.mktemp("merge")  # type: ignore[attr-defined]
        row = _stored(folder, [*order, *again])
        first = expected.first
        assert (row.started_ns, row.last_ns, row.ended_ns) == (
            expected.started_ns, expected.last_ns, expected.ended_ns,
        )  # fmt: skip
        assert (row.severity, row.subjects) == (expected.severity, expected.subjects)
        assert (row.confirmed_ns, row.sample_ns, row.node_id) == (first.confirmed_ns, first.sample_ns, first.node_id)
        assert (row.replay_from_ns, row.replay_to_ns) == (first.replay_from_ns, first.replay_to_ns)
        assert row.dedup_key == order[0].dedup_key
        assert row.messages == len(order) + len(again)


def _stored(folder: Path, sent: list[AlarmMessage]):  # type: ignore[no-untyped-def]
    engine = open_database(f"sqlite:///{folder}/a.db")
    try:
        migrate(engine)
        store = AlarmStore(engine, "w")
        for one in sent:
            store.record(one, T0)
        (row,) = list_alarms(engine)
        return row
    finally:
        engine.dispose()


@st.composite
def visits(draw: st.DrawFn) -> Scene:
    """One intruder after the other, with pauses around the cooldown, and perhaps a camera that is away in one."""
    people, gone, at = [], [], 5.0
    for _ in range(draw(st.integers(1, 5))):
        left = at + draw(st.integers(3, 12))
        people.append(stands(0.8, 0.7, at, left))
        pause = draw(st.integers(5, 45))
        if draw(st.booleans()) and pause > 10:
            gone.append((left + 1.0, left + pause - 1.0))
        at = left + pause
    return Scene(tuple(people), at + 30.0, gone=tuple(gone))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(visits(), st.sampled_from([2.0, 10.0, 20.0]), st.sampled_from([5.0, 15.0, 30.0]), st.randoms())
def test_what_the_judge_tells_gives_one_row_per_alarm_in_any_order(
    tmp_path_factory: object, scene: Scene, exit_s: float, cooldown_s: float, chance: Random
) -> None:
    judge = CameraJudge(Author("node", "cam", 15.0, 15.0), [intrusion(exit_s=exit_s, cooldown_s=cooldown_s)], 5.0)
    told: list[AlarmMessage] = []
    for clip in scene.clips():
        judge.ledger.arrive(clip.header)
        told += judge.judge(clip)
    began = {one.dedup_key: one for one in told if one.stage == "started"}
    chance.shuffle(told)
    engine = open_database(f"sqlite:///{tmp_path_factory.mktemp('told')}/a.db")  # type: ignore[attr-defined]
    migrate(engine)
    store = AlarmStore(engine, "w")
    for one in told:
        store.record(one, T0)
    rows = {row.dedup_key: row for row in list_alarms(engine)}
    engine.dispose()
    assert {key: row.confirmed_ns for key, row in rows.items()} == {k: m.confirmed_ns for k, m in began.items()}


@st.composite
def clips(draw: st.DrawFn) -> list[Piece]:
    """Any clips, overlapping ones of two epochs and holes included."""
    found = []
    for epoch in (1, 2):
        at = draw(st.integers(80, 120))
        for _ in range(draw(st.integers(0, 8))):
            at += draw(st.sampled_from([0, 0, 0, 1, 7]))
            length = draw(st.integers(1, 10))
            clip = ClipId(camera_id="c", epoch=epoch, start_ns=at * S)
            found.append(Piece(clip, at * S, (at + length) * S))
            at += length
    return found


@given(clips())
def test_what_is_chosen_covers_all_that_the_clips_cover(pieces: list[Piece]) -> None:
    window = Window(100 * S, 130 * S, 115 * S)
    chosen = choose(pieces, window)
    ends = [p.end_ns for p in chosen]
    assert ends == sorted(set(ends))
    assert len(set(chosen)) == len(chosen)

    def seconds(of: list[Piece]) -> set[int]:
        return {s for s in range(100, 130) for p in of if p.start_ns <= s * S < p.end_ns}

    assert seconds(chosen) == seconds(pieces)
    missing = gaps_in([(p.start_ns, p.end_ns) for p in chosen], window)
    assert sum(b - a for a, b in missing) == (30 - len(seconds(pieces))) * S
