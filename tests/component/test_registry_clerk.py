"""The clerk on real databases: what it writes behind, and what it finds again after a restore or a kill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import delete, make_url

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ownership import Owner
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.registry_tables import camera_history
from registry.core.catalogue import Catalogue
from registry.core.clerk import AUDIT_S, SEEN_S, Clerk, Shelves
from registry.store.assignments import Assignments, End, Grant
from registry.store.cameras import Cameras
from registry.store.epochs import Epochs
from registry.store.errors import Unknown
from registry.store.nodes import Nodes, Seen
from tests.support.eventually import eventually
from tests.support.proxy import Proxy
from tests.support.registry_store import copy_of, draft, restore, vault, writer
from tests.support.registry_world import TurnedClock


def owner(epoch: int, node_id: str = "n1") -> Owner:
    return Owner(node_id=node_id, incarnation="a" * 16, epoch=epoch)


def grant(camera_id: str, epoch: int) -> Grant:
    return Grant(camera_id=camera_id, owner=owner(epoch), reason="it was new", granted_ns=1)


@dataclass
class Desk:
    """A clerk whose turns the test makes."""

    url: str
    clock: TurnedClock = field(default_factory=TurnedClock)
    served: dict[str, int] = field(default_factory=dict)
    live: dict[str, Owner] | None = field(default_factory=dict)
    told: list[dict[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = open_database(self.url)
        migrate(self.engine)
        self.cameras = Cameras(self.engine, vault())
        self.assignments, self.nodes, self.epochs = Assignments(self.engine), Nodes(self.engine), Epochs(self.engine)
        self.catalogue = Catalogue(self.cameras)
        shelves = Shelves(self.catalogue, self.epochs, self.assignments, self.nodes)
        self.clerk = Clerk(
            shelves, self.clock, lambda: self.served, lambda changed: self.told.append(dict(changed)), lambda: self.live
        )

    def turn(self, after_s: float = 1.0) -> None:
        self.clock.now_s += after_s
        self.clerk.turn()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(f"sqlite:///{tmp_path}/site.db")
    yield made
    made.engine.dispose()


@pytest.fixture
def mysql_desk(mysql_url: str) -> Iterator[Desk]:
    made = Desk(mysql_url)
    yield made
    made.engine.dispose()


def test_what_changes_is_read_once_and_told(desk: Desk) -> None:
    desk.turn()
    desk.cameras.make(draft("a"), writer())
    desk.cameras.make(draft("b", enabled=False), writer())
    desk.turn()
    assert desk.told == [{"a": 1, "b": 1}]
    assert desk.catalogue.wanted == {"a"}
    row = desk.catalogue.get("a")
    assert row is not None
    assert "hunter2" in row.spec.record.url.get_secret_value()
    desk.cameras.delete("a", 1, writer())
    desk.turn()
    desk.turn()
    assert desk.told[1:] == [{"a": 0}]
    assert (desk.catalogue.wanted, desk.catalogue.get("a")) == (frozenset(), None)
    assert desk.catalogue.version == desk.cameras.version()


def test_grants_ends_and_nodes_are_written_behind(desk: Desk, mysql_desk: Desk) -> None:
    for one in (desk, mysql_desk):
        one.live = {"a": owner(2)}
        one.clerk.granted(grant("a", 1))
        one.clerk.granted(grant("b", 1))
        one.clerk.granted(grant("a", 2))
        one.clerk.ended(End(camera_id="b", epoch=1, reason="gone", ended_ns=one.clock.wall_ns()))
        one.clerk.seen({"n1": Seen("host", "a" * 16, 5)})
        one.epochs.learn({"c": 77})
        one.turn()
        assert one.assignments.owners() == {"a": owner(2)}
        assert [item.end_reason for item in one.assignments.history("b")] == ["gone"]
        assert one.nodes.get("n1").host == "host"
        # A node that somebody forgot is not written down again unless it reports.
        one.nodes.forget("n1", one.nodes.get("n1").version)
        one.turn(SEEN_S + 1)
        with pytest.raises(Unknown):
            one.nodes.get("n1")
        fresh = Epochs(one.engine)
        fresh.load()
        assert fresh.highest("c") == 77


def test_a_row_that_no_database_takes_is_left_out_with_one_error_and_keeps_no_other(
    desk: Desk, mysql_desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    for one in (desk, mysql_desk):
        caplog.clear()
        one.live = None
        # Half of a character is no text.
        one.clerk.granted(replace(grant("b", 1), reason="on \ud800"))
        for name in ("a", "c", "d"):
            one.clerk.granted(grant(name, 1))
        one.clerk.ended(End(camera_id="d", epoch=1, reason="on \ud800", ended_ns=1))
        one.clerk.ended(End(camera_id="c", epoch=1, reason="gone", ended_ns=1))
        one.turn()
        one.turn()
        assert not one.clerk.trouble
        assert one.assignments.owners().keys() == {"a", "d"}
        said = [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "row_left_out"]
        assert len(said) == 2, "one error for each"
        assert "'b'" in said[0]
        assert "'d'" in said[1]


def test_an_audit_finds_what_a_kill_kept_from_being_written(desk: Desk) -> None:
    desk.live = {"a": owner(5), "b": owner(6)}
    desk.turn()
    assert desk.assignments.owners() == {"a": owner(5), "b": owner(6)}
    # A registry that follows knows of no owners, which is no reason to end any.
    desk.live = None
    desk.turn(AUDIT_S + 1)
    assert desk.assignments.owners() == {"a": owner(5), "b": owner(6)}
    desk.live = {"b": owner(6)}
    desk.turn(AUDIT_S + 1)
    assert desk.assignments.owners() == {"b": owner(6)}
    (ended,) = desk.assignments.history("a")
    assert ended.end_reason == "not in the live state"


def test_an_older_database_learns_owners_epochs_and_versions_again(desk: Desk) -> None:
    desk.cameras.make(draft("a"), writer())
    desk.turn()
    backup = copy_of(desk.engine)
    changed = desk.cameras.change(draft("a", name="Gate"), 1, writer(5))
    desk.live = {"a": owner(9)}
    desk.epochs.learn({"a": 9})
    desk.clerk.granted(grant("a", 9))
    desk.turn()
    desk.served = {"a": changed.version}
    restore(desk.engine, backup)
    desk.turn()
    # No agent is refused, and none takes an old configuration for the one that it has.
    assert desk.assignments.owners() == {"a": owner(9)}
    assert desk.cameras.get("a").version > changed.version
    assert desk.told[-1] == {"a": desk.cameras.get("a").version}
    fresh = Epochs(desk.engine)
    fresh.load()
    assert fresh.highest("a") == 9


def test_an_older_database_is_noticed_although_somebody_changed_it_before_it_was_looked_at(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.cameras.make(draft("a"), writer())
    desk.turn()
    backup = copy_of(desk.engine)
    desk.cameras.make(draft("new"), writer(5))
    desk.epochs.learn({"a": 9})
    desk.turn()
    restore(desk.engine, backup)
    # The counter is where it was, or beyond.
    desk.cameras.change(draft("a", name="Gate"), 1, writer(3600))
    with caplog.at_level("WARNING"):
        desk.turn()
        desk.turn()
    assert [record.__dict__.get("event") for record in caplog.records] == ["database_restored"]
    assert desk.catalogue.wanted == {"a"}
    assert desk.told[-1] == {"a": 2, "new": 0}
    fresh = Epochs(desk.engine)
    fresh.load()
    assert fresh.highest("a") == 9


def test_a_change_that_fell_between_two_restored_tables_is_taken_for_one_restore(desk: Desk) -> None:
    desk.cameras.make(draft("a"), writer())
    desk.turn()
    backup = copy_of(desk.engine)
    desk.cameras.change(draft("a", sample_fps=2), 1, writer(5))
    desk.turn()
    # The camera's row was put back and changed again; then the history was put back, without that change.
    restore(desk.engine, backup)
    desk.cameras.change(draft("a", sample_fps=3), 1, writer(9))
    with desk.engine.begin() as connection:
        connection.execute(delete(camera_history).where(camera_history.c.version > 1))
    for _ in range(3):
        desk.turn()
    assert desk.catalogue.restorations == 1
    # And the next one is noticed all the same.
    desk.cameras.make(draft("b"), writer(20))
    desk.turn()
    restore(desk.engine, backup)
    desk.turn()
    assert desk.catalogue.restorations == 2


def test_a_database_that_is_away_loses_nothing(mysql_url: str) -> None:
    port = make_url(mysql_url).port
    assert port is not None
    with Proxy(port) as proxy:
        desk = Desk(mysql_url.replace(f":{port}/", f":{proxy.port}/"))
        desk.turn()
        proxy.cut()
        asked = desk.clerk.ask_owners()
        desk.clerk.granted(grant("a", 3))
        desk.live = {"a": owner(3)}
        desk.turn()
        assert desk.clerk.trouble
        assert isinstance(asked.exception(0), Unavailable)
        proxy.heal()
        eventually(lambda: desk.turn() or not desk.clerk.trouble)
        assert desk.assignments.owners() == {"a": owner(3)}
        desk.engine.dispose()
