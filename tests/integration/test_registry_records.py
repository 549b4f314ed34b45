"""Assignments, epochs, nodes, algorithms and tokens in the registry's store, on both databases."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ownership import Owner
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.registry_tables import assignment, camera_epoch
from registry.store.algorithms import Algorithms
from registry.store.assignments import FOLLOWED, Assignments, End, Grant
from registry.store.epochs import Epochs
from registry.store.errors import Invalid, Stale, Unknown
from registry.store.nodes import DrainOrder, Nodes, Seen
from registry.store.tokens import Tokens
from registry.tokens import Deed, Presented, Role, parse_token
from tests.support.registry_store import T0, copy_of, in_clear, restore

S = 1_000_000_000
LIFE = "0123456789abcdef"


@pytest.fixture(params=["sqlite", pytest.param("mysql", marks=pytest.mark.services)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    where = f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("mysql_url")
    opened = open_database(where)
    migrate(opened)
    yield opened
    opened.dispose()


def grant(camera_id: str, epoch: int, node_id: str = "node-1") -> Grant:
    return Grant(
        camera_id=camera_id,
        owner=Owner(node_id=node_id, incarnation=LIFE, epoch=epoch),
        reason=f"for {epoch}",
        granted_ns=T0 + epoch,
        explanation={"considered": [node_id], "weights": {"空": 0.5}},
    )


def run_at_once(deeds: list[Callable[[], None]]) -> list[BaseException]:
    failed: list[BaseException] = []

    def run(deed: Callable[[], None]) -> None:
        try:
            deed()
        except Exception as exc:
            failed.append(exc)

    threads = [threading.Thread(target=run, args=(deed,)) for deed in deeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def stored_epochs(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {row.camera_id: row.epoch for row in connection.execute(select(camera_epoch))}


# Assignments.


def test_whatever_the_order_of_grants_the_highest_epoch_is_the_current_one(engine: Engine) -> None:
    store = Assignments(engine)
    orders = list(itertools.permutations((5, 6, 9)))
    for number, order in enumerate(orders):
        for epoch in order:
            store.record([grant(f"cam-{number}", epoch, f"node-{epoch}")] * 2, T0 + 60 * S)
    cameras = [f"cam-{number}" for number in range(len(orders))]
    assert {one.grant.owner.epoch for one in store.current(cameras).values()} == {9}
    assert store.owners() == {name: Owner(node_id="node-9", incarnation=LIFE, epoch=9) for name in cameras}
    for name in cameras:
        history = store.history(name)
        assert [(one.grant.owner.epoch, one.ended_ns, one.end_reason) for one in history] == [
            (9, None, ""),
            (6, T0 + 60 * S, FOLLOWED),
            (5, T0 + 60 * S, FOLLOWED),
        ]
        assert history[0].grant == grant(name, 9, "node-9")
        assert [one.grant.owner.epoch for one in store.history(name, below=9, limit=1)] == [6]
    assert set(stored_epochs(engine).values()) == {9}


def test_registries_that_record_at_once_leave_one_grant_open(engine: Engine) -> None:
    store, cameras = Assignments(engine), [f"cam-{n}" for n in range(8)]

    def record(epochs: range) -> Callable[[], None]:
        def run() -> None:
            for epoch in epochs:
                store.record([grant(name, epoch) for name in cameras], T0)

        return run

    assert run_at_once([record(range(1, 12, 2)), record(range(2, 13, 2)), record(range(12, 0, -3))]) == []
    with engine.connect() as connection:
        still_open = connection.execute(select(assignment.c.epoch).where(assignment.c.ended_ns.is_(None))).scalars()
        assert list(still_open) == [12] * len(cameras)


def test_a_grant_ends_once_and_only_itself(engine: Engine) -> None:
    store = Assignments(engine)
    store.record([grant("a", 5), grant("b", 6)], T0)
    late = End(camera_id="a", epoch=4, reason="late", ended_ns=T0 + S)
    end = End(camera_id="a", epoch=5, reason="node-1 is dead", ended_ns=T0 + 2 * S)
    again = End(camera_id="a", epoch=5, reason="again", ended_ns=T0 + 3 * S)
    store.end([late, end, again])
    assert set(store.current(["a", "b"])) == {"b"}
    (ended,) = store.history("a")
    assert (ended.ended_ns, ended.end_reason) == (T0 + 2 * S, "node-1 is dead")


def test_open_grants_are_listed_in_parts_and_by_node(engine: Engine) -> None:
    store = Assignments(engine)
    store.record([grant(f"cam-{n}", 3, f"node-{n % 2}") for n in range(5)], T0)
    first, after = store.page(limit=3)
    rest, end = store.page(after=after, limit=3)
    assert [one.grant.camera_id for one in [*first, *rest]] == [f"cam-{n}" for n in range(5)]
    assert end is None
    assert [one.grant.camera_id for one in store.page(node_id="node-1")[0]] == ["cam-1", "cam-3"]


def test_old_grants_are_forgotten_and_current_ones_are_not(engine: Engine) -> None:
    store = Assignments(engine)
    store.record([grant("a", 5), grant("a", 6), grant("b", 5)], T0)
    assert store.forget(T0) == 0
    assert store.forget(T0 + 1) == 1
    assert [one.grant.owner.epoch for one in store.history("a")] == [6]
    assert set(store.current(["a", "b"])) == {"a", "b"}


# Epochs.


def test_no_registry_lowers_what_another_one_wrote(engine: Engine) -> None:
    one, other = Epochs(engine), Epochs(engine)
    one.learn({"a": 10, "b": 3})
    other.learn({"a": 7, "b": 5})
    assert (one.save(), other.save(), one.save()) == (2, 2, 0)
    assert stored_epochs(engine) == {"a": 10, "b": 5}
    other.load()
    one.learn({"a": 9})
    assert (other.highest("a"), one.highest("a"), one.highest("c")) == (10, 10, 0)


def test_epochs_grow_through_a_restored_backup(engine: Engine) -> None:
    epochs, store = Epochs(engine), Assignments(engine)
    store.record([grant("a", 10)], T0)
    epochs.load()
    backup = copy_of(engine)
    store.record([grant("a", 20), grant("b", 21)], T0)
    epochs.learn({"a": 20, "b": 21, "c": 22})
    epochs.save()
    restore(engine, backup)
    assert stored_epochs(engine) == {"a": 10}
    # The running registry brings it up.
    epochs.load()
    assert [epochs.highest(name) for name in "abc"] == [20, 21, 22]
    assert epochs.save() == 3
    assert stored_epochs(engine) == {"a": 20, "b": 21, "c": 22}
    # One that starts on the old database hears of the higher ones from reports; then an open grant of the backup ends.
    restore(engine, backup)
    started = Epochs(engine)
    started.load()
    assert started.highest("a") == 10
    started.learn({"a": 20})
    started.save()
    store.record([grant("a", 21, "node-2")], T0)
    assert [one.grant.owner.epoch for one in store.history("a") if one.ended_ns is None] == [21]


def test_epochs_that_could_not_be_written_are_written_later(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/a.db")
    epochs = Epochs(engine)
    epochs.learn({"a": 5})
    with pytest.raises(Unavailable):
        epochs.save()
    with pytest.raises(Unavailable):
        epochs.load()
    assert epochs.highest("a") == 5
    migrate(engine)
    assert epochs.save() == 1
    assert stored_epochs(engine) == {"a": 5}
    engine.dispose()


# Nodes.


def test_nodes_that_reported_are_kept_and_time_does_not_go_back(engine: Engine) -> None:
    nodes = Nodes(engine)
    nodes.see({"node-2": Seen("b", LIFE, T0), "node-1": Seen("a", LIFE, T0)})
    nodes.see({"node-1": Seen("c", "f" * 16, T0 + S)})
    nodes.see({"node-1": Seen("c", "f" * 16, T0 - S)})
    got = nodes.get("node-1")
    assert (got.host, got.incarnation, got.first_seen_ns, got.last_seen_ns) == ("c", "f" * 16, T0, T0 + S)
    first, after = nodes.page(limit=1)
    assert [one.node_id for one in [*first, *nodes.page(after=after)[0]]] == ["node-1", "node-2"]
    with pytest.raises(Unknown, match="node node-9"):
        nodes.get("node-9")


def test_of_two_orders_to_one_version_of_a_node_one_holds(engine: Engine) -> None:
    nodes = Nodes(engine)
    nodes.see({"node-1": Seen("a", LIFE, T0)})
    failed = run_at_once([lambda by=by: nodes.order_drain("node-1", 1, DrainOrder(by, T0, False)) for by in "xyz"])
    assert [type(exc) for exc in failed] == [Stale, Stale]
    held = nodes.get("node-1")
    assert held.version == 2 and held.drain is not None
    nodes.see({"node-1": Seen("a", LIFE, T0 + S)})
    assert nodes.drains() == {"node-1": held.drain}
    forced = nodes.order_drain("node-1", 2, DrainOrder("anna", T0 + S, True))
    assert forced.drain == DrainOrder("anna", T0 + S, True)
    assert nodes.end_drain("node-1", 3).drain is None
    assert nodes.end_drain("node-1", 4).version == 4
    assert nodes.drains() == {}
    with pytest.raises(Stale):
        nodes.forget("node-1", 3)
    nodes.forget("node-1", 4)
    with pytest.raises(Unknown):
        nodes.end_drain("node-1", 4)


# Algorithms.


def test_each_version_of_parameters_is_kept(engine: Engine) -> None:
    store = Algorithms(engine)
    store.put("tracker", {"iou": 0.3}, 0, "anna", T0)
    store.put("other", {"a": [1, {"深": None}]}, 0, "anna", T0)
    made = store.put("tracker", {"iou": 0.4}, 1, "bob", T0 + S)
    assert made == store.get("tracker") == store.history("tracker")[0]
    assert [(one.version, one.parameters) for one in store.history("tracker")] == [(2, {"iou": 0.4}), (1, {"iou": 0.3})]
    for stale in (0, 1, 3):
        with pytest.raises(Stale):
            store.put("tracker", {}, stale, "eve", T0)
    store.take_out("tracker", 2, "eve", T0)
    assert [one.name for one in store.page()[0]] == ["other"]
    for gone in (lambda: store.get("tracker"), lambda: store.take_out("tracker", 3, "eve", T0)):
        with pytest.raises(Unknown):
            gone()
    assert store.put("tracker", {}, 0, "anna", T0).version == 4
    assert [one.name for one in store.page(limit=1)[0]] == ["other"] and store.page(limit=1)[1] == "other"


def test_of_two_who_write_one_version_of_parameters_one_wins(engine: Engine) -> None:
    store = Algorithms(engine)
    store.put("tracker", {}, 0, "anna", T0)
    failed = run_at_once([lambda n=n: store.put("tracker", {"n": n}, 1, "x", T0) for n in range(4)])
    assert [type(exc) for exc in failed] == [Stale] * 3
    assert store.get("tracker").version == 2


@pytest.mark.parametrize("parameters", [{"a": float("nan")}, {"a": object()}, {"a": "x" * 1_000_001}])
def test_parameters_that_are_no_json_are_refused(engine: Engine, parameters: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="parameters: expected"):
        Algorithms(engine).put("tracker", parameters, 0, "anna", T0)


# Tokens.


def test_a_token_is_known_by_itself_alone_and_only_its_hash_is_kept(engine: Engine) -> None:
    tokens = Tokens(engine)
    bearer, shown = tokens.make_for_person("anna", Role.OPERATOR, "cli", T0)
    presented = parse_token(shown.get_secret_value())
    assert tokens.bearer_of(presented) == bearer
    assert bearer.role is Role.OPERATOR and bearer.may(Deed.MOVE)
    assert presented.secret not in in_clear(engine) + repr(bearer) + repr(shown) + repr(tokens.page())
    wrong = Presented(presented.token_id, ("0" if presented.secret[0] != "0" else "1") + presented.secret[1:])
    assert tokens.bearer_of(wrong) is None
    assert tokens.bearer_of(Presented("0" * 16, presented.secret)) is None


def test_a_revoked_token_opens_nothing_again(engine: Engine) -> None:
    tokens = Tokens(engine)
    node, shown = tokens.make_for_node("rack", "node-1", "cli", T0)
    other, kept = tokens.make_for_node("rack", "node-1", "cli", T0)
    assert node.may(Deed.FETCH, "node-1") and node.token_id != other.token_id
    tokens.used({node.token_id: T0 + 5 * S, other.token_id: T0 + S})
    tokens.used({node.token_id: T0 + 3 * S})
    tokens.revoke(node.token_id, "anna", T0 + 9 * S)
    tokens.revoke(node.token_id, "bob", T0 + 10 * S)
    assert tokens.bearer_of(parse_token(shown.get_secret_value())) is None
    assert tokens.bearer_of(parse_token(kept.get_secret_value())) == other
    first, after = tokens.page(limit=1)
    rows = {row.bearer.token_id: row for row in [*first, *tokens.page(after=after)[0]]}
    gone = rows[node.token_id]
    assert (gone.last_used_ns, gone.revoked_ns, gone.revoked_by) == (T0 + 5 * S, T0 + 9 * S, "anna")
    assert (rows[other.token_id].last_used_ns, rows[other.token_id].revoked_ns) == (T0 + S, 0)
    with pytest.raises(Unknown):
        tokens.revoke("0" * 16, "anna", T0)
