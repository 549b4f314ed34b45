"""The registry's core on a real Redis and a real database: who gets which camera, and what becomes of it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pika
import pytest

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ownership import LEASE_S, LOCK_PREFIX, AgentReport, Broadcast, Holding, Owner, Resources, Told
from nodeagent.infra.bus.topology import clips_queue
from nodeagent.infra.ownership.grants import RedisState
from nodeagent.infra.ownership.leader import RedisLeader
from nodeagent.infra.ownership.pool import Claims
from nodeagent.infra.redis import connect_redis
from registry.brake import Limits
from registry.core.assembly import Teller
from registry.core.clerk import AUDIT_S
from registry.core.leading import Leading
from registry.core.loop import TURN_S
from registry.http.ports import Contradicted, NotLeader
from registry.member import NodePhase
from registry.store.assignments import Assignments, Grant
from registry.store.errors import Stale, Unknown
from registry.store.nodes import DrainOrder, NodeRow, Nodes
from tests.support.eventually import eventually
from tests.support.registry_store import writer
from tests.support.registry_world import AFTER_LEADER_S, FAILOVER_S, Host, Place, Registry, place
from tests.support.services import RedisServer

SMALL = Resources(decode_cores=1.0, infer_per_s=1000.0, ring_bytes=1e10, write_bytes_s=1e9)


@pytest.fixture
def site(tmp_path: Path, redis_url: str) -> Iterator[Place]:
    with place(tmp_path, redis_url) as made:
        yield made


@pytest.fixture
def memory_site(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path, None, shared=False) as made:
        yield made


def settled(site: Place, cameras: int = 10, nodes: int = 2) -> list[str]:
    """A registry and nodes that serve so many cameras."""
    site.registry()
    for number in range(nodes):
        site.agent(f"node-{number}")
    site.run(1)
    names = site.add_cameras(cameras)
    site.run(10, until=lambda: site.each_once(names))
    assert site.each_once(names)
    return names


def test_new_cameras_go_to_the_least_loaded_nodes_and_are_written_down(site: Place) -> None:
    names = settled(site, cameras=11, nodes=3)
    assert sorted(len(host.holds) for host in site.hosts) == [3, 4, 4]
    assert eventually(lambda: site.written() == site.grants())
    assert not site.leader().desk.claimable()
    # One more, on a running site: it is served within a second of its making.
    (late,) = site.add_cameras(1, first=11)
    assert site.run(5, until=lambda: late in site.served()) <= 1.0
    assert sorted(len(host.holds) for host in site.hosts) == [4, 4, 4]
    assert site.each_once([*names, late])
    assert not any(host.lost for host in site.hosts)


def test_a_dead_nodes_cameras_are_elsewhere_within_a_lease_and_two_turns(site: Place) -> None:
    names = settled(site, cameras=12, nodes=3)
    dead, *others = site.hosts
    before = {camera: owner for camera, owner in site.grants().items() if owner.node_id != dead.node_id}
    dead.alive = False
    assert site.run(20, until=lambda: site.each_once(names)) <= FAILOVER_S + 1.0
    after = site.grants()
    assert {camera: after[camera] for camera in before} == before, "only orphans move"
    assert [len(host.holds) for host in others] == [6, 6]
    assert site.leader().desk.node(dead.node_id).view.phase is NodePhase.DEAD
    assert eventually(lambda: site.written() == site.grants())
    # It comes back and reads that others own what it serves.
    dead.alive = True
    site.run(3)
    assert site.each_once(names)
    assert sorted(dead.lost) == sorted(set(names) - set(before))


def test_nobody_is_evicted_by_a_registry_that_has_only_just_begun(site: Place) -> None:
    names = settled(site)
    site.kill(site.registries[0])
    silent = site.hosts[0]
    silent.alive = False
    site.run(10)
    site.expire_lead()
    second = site.registry("registry-2")
    before = dict(silent.holds)
    site.run(LEASE_S)
    assert second.leads
    assert len(second.desk.owned(silent.node_id, silent.incarnation)) == len(before)
    # After that it judges as ever.
    assert site.run(20, until=lambda: site.each_once(names)) <= AFTER_LEADER_S


def test_another_registry_takes_over_and_no_camera_moves(site: Place) -> None:
    names = settled(site)
    first = site.registries[0]
    second = site.registry("registry-2")
    site.run(2)
    assert [registry.leads for registry in site.registries] == [True, False]
    assert second.desk.cluster().leader == "registry-1"
    assert second.desk.node("node-0").view.cameras == first.desk.node("node-0").view.cameras
    before = site.grants()
    site.kill(first)
    site.run(5)
    site.expire_lead()
    assert site.run(5, until=lambda: second.leads) <= 1.0
    site.run(15)
    assert site.grants() == before
    assert not any(host.lost for host in site.hosts)
    # The first one was only stopped: it finds that its term is over, and changes nothing.
    first.alive = True
    site.run(5)
    assert [registry.leads for registry in site.registries] == [False, True]
    assert site.grants() == before
    site.hosts[0].alive = False
    site.run(20, until=lambda: site.each_once(names))
    assert site.each_once(names)


def test_a_leader_whose_turn_fails_lets_another_one_lead(site: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    names = settled(site)
    first, second = site.registries[0], site.registry("registry-2")
    site.run(1)
    before = site.grants()
    with monkeypatch.context() as patch:
        patch.setattr(first.site.members, "tick", None)
        assert not first.made.loop.guarded_turn()
    assert first.made.loop.guarded_turn()
    site.run(2)
    assert [registry.leads for registry in site.registries] == [False, True]
    site.run(10)
    assert site.grants() == before
    site.hosts[0].alive = False
    site.run(20, until=lambda: site.each_once(names))
    assert site.each_once(names)
    assert second.leads


def test_the_leader_hears_of_nodes_that_report_to_another_registry(site: Place) -> None:
    leader = site.registry()
    site.run(1)
    follower = site.registry("registry-2")
    agents = [site.agent(f"node-{number}") for number in range(2)]
    for agent in agents:
        site.reports_to[agent.node_id] = follower
    site.run(2)
    names = site.add_cameras(6)
    assert site.run(8, until=lambda: site.each_once(names)) <= LEASE_S + 2.0
    assert leader.leads
    # And of their silence; the follower says of them what the leader does.
    agents[0].alive = False
    assert site.run(20, until=lambda: site.each_once(names)) <= FAILOVER_S + 2 * TURN_S + 1.0
    site.run(1.5)
    assert follower.desk.node("node-0").view.phase is NodePhase.DEAD
    with pytest.raises(NotLeader, match="registry-1"):
        follower.desk.move(names[0], "node-1", "anna")


def test_a_redis_that_is_flushed_moves_nothing_and_is_rebuilt(site: Place, redis_url: str) -> None:
    names = settled(site, cameras=20)
    site.registry("registry-2")
    site.run(2)
    before = site.grants()
    for _ in range(2):
        site.client.flushall()
        site.run(AFTER_LEADER_S)
        assert site.grants() == before
    assert not any(host.lost for host in site.hosts)
    assert owners_in_redis(site) == before
    # A node that dies now loses its cameras as ever, to higher epochs.
    site.hosts[0].alive = False
    site.run(20, until=lambda: site.each_once(names))
    assert site.each_once(names)
    after = site.grants()
    assert all(after[camera].epoch > before[camera].epoch for camera in names if after[camera] != before[camera])


def test_a_redis_that_is_away_moves_nothing_and_afterwards_the_dead_are_found(
    site: Place, redis_server: RedisServer
) -> None:
    names = settled(site)
    before = site.grants()
    redis_server.kill9()
    site.run(10)
    assert "redis" in site.registries[0].desk.readiness().state
    dead = site.hosts[0]
    dead.alive = False
    site.run(20)
    assert {camera: owner.node_id for camera, owner in before.items() if owner.node_id != dead.node_id} == {
        camera: owner.node_id for camera, owner in site.grants().items()
    }
    redis_server.start()
    # What was silent while nobody could hear is no evidence: its lease begins when Redis is back.
    site.run(LEASE_S - 1)
    assert not site.hosts[1].began[5:]
    site.run(90, until=lambda: site.each_once(names))
    assert site.each_once(names)
    assert not site.hosts[1].lost


def test_all_is_lost_but_the_agents_and_no_epoch_comes_twice(site: Place, tmp_path: Path, redis_url: str) -> None:
    names = settled(site)
    before = site.grants()
    # Redis is flushed, the registry is new, and its database is last night's: the cameras, and nothing of owners.
    site.kill(site.registries[0])
    with sqlite3.connect(tmp_path / "registry.db") as database:
        for table in ("assignment", "camera_epoch", "node"):
            database.execute(f"DELETE FROM {table}")
    database.close()
    site.client.flushall()
    site.registry("registry-2")
    site.run(AFTER_LEADER_S)
    assert site.grants() == before, "who served a camera serves it"
    assert eventually(lambda: site.written() == before, within_s=20)
    site.hosts[0].alive = False
    site.run(20, until=lambda: site.each_once(names))
    after = site.grants()
    assert all(after[camera].epoch > before[camera].epoch for camera in names if after[camera] != before[camera])


def test_no_camera_starts_anew_while_an_empty_redis_waits_for_the_database(site: Place) -> None:
    names = settled(site)
    before = {name: owner.node_id for name, owner in site.grants().items()}
    site.kill(site.registries[0])
    site.client.flushall()
    stored: Future[dict[str, Owner]] = Future()
    registry = site.registry("registry-2")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(registry.made.clerk), "ask_owners", lambda _clerk: stored)
        site.run(AFTER_LEADER_S + 3 * LEASE_S)
    assert registry.leads
    assert not registry.site.statuses, "who owned them may be in the database"
    # It says now that it knows nothing, either: nodes have the time of a lease to say what they serve.
    stored.set_result({})
    site.run(LEASE_S + 2)
    assert {name: owner.node_id for name, owner in registry.site.owners().items()} == before
    assert sorted(before) == names
    assert site.each_once(names)
    assert not any(host.lost for host in site.hosts)


def lie(site: Place, liar: Host, names: list[str], above: int = 0) -> None:
    """Say that a node serves these cameras, each with its owner's epoch and so much more."""
    owners = site.leader().desk.office.site.owners()
    holds = tuple(Holding(camera_id=name, epoch=owners[name].epoch + above, version=1) for name in names)
    report = liar.report()
    site.leader().desk.report(report.model_copy(update={"holds": holds}))


def test_a_node_that_lies_gets_no_camera_and_the_owner_keeps_it(site: Place, caplog: pytest.LogCaptureFixture) -> None:
    names = settled(site)
    # It reports what the test says, and nothing by itself.
    liar = site.agent("liar", alive=False)
    before = site.grants()
    for _ in range(5):
        lie(site, liar, names, above=1_000)
        site.run(1)
        assert not site.leader().desk.owned("liar", liar.incarnation)
    after = site.grants()
    assert {name: owner.node_id for name, owner in after.items()} == {n: owner.node_id for n, owner in before.items()}
    assert all(after[name].epoch > before[name].epoch + 1_000 for name in names), "no judge refuses what they record"
    assert not any(host.lost for host in site.hosts)
    said = [record for record in caplog.records if getattr(record, "event", "") == "claim_doubted"]
    assert len(said) == len(names), "once each, however often it says so"
    # Nor does it where a new registry finds an empty Redis, and knows from the database alone.
    assert eventually(lambda: site.written() == after)
    site.kill(site.registries[0])
    site.client.flushall()
    site.registry("registry-2")
    site.run(TURN_S)
    for _ in range(8):
        lie(site, liar, sorted(site.leader().desk.office.site.owners()), above=1_000)
        site.run(1)
        assert not site.leader().desk.owned("liar", liar.incarnation)
    assert site.each_once(names)


def test_a_camera_that_moves_again_or_meets_a_new_registry_goes_on_until_its_last_owner_captures_it(
    site: Place,
) -> None:
    site.registry()
    had, between, gets = (site.agent(name) for name in ("node-0", "node-1", "node-2"))
    for host in (between, gets):
        host.alive = False
    site.run(1)
    (camera,) = site.add_cameras(1)
    site.run(10, until=lambda: camera in had.holds)
    # It hands over whatever others own, and is told what happens by what the test has them report.
    had.leaving = True

    def moved_to(host: Host) -> Owner:
        leader = site.leader()
        leader.desk.report(host.report())
        leader.made.loop.turn()
        in_background(leader, site, lambda: leader.desk.move(camera, host.node_id, "anna"))
        owner: Owner = leader.desk.owner(camera)
        assert owner.node_id == host.node_id
        return owner

    moved_to(between)
    owner = moved_to(gets)
    between.holds[camera] = owner.epoch - 1
    site.leader().desk.report(between.report())
    site.run(2)
    assert camera in had.holds, "who owned it in between says nothing of who owns it now"
    assert not site.leader().desk.owned(had.node_id, had.incarnation), "no credentials for who owns it no more"
    site.kill(site.registries[0])
    site.expire_lead()
    site.registry("registry-2")
    site.run(TURN_S)
    gets.holds[camera] = owner.epoch
    gets.sees = False
    site.leader().desk.report(gets.report())
    site.run(2)
    assert camera in had.holds, "the new leader saw nothing of it, and it has no picture yet"
    gets.sees = True
    site.leader().desk.report(gets.report())
    site.run(2)
    assert camera not in had.holds


def test_a_registry_in_memory_starts_anew_and_no_camera_moves(memory_site: Place) -> None:
    site = memory_site
    names = settled(site)
    before = site.grants()
    assert eventually(lambda: site.written() == before)
    site.kill(site.registries[0])
    site.run(5)
    site.registry("registry-1")
    site.run(AFTER_LEADER_S)
    assert site.grants() == before
    site.hosts[0].alive = False
    site.run(20, until=lambda: site.each_once(names))
    assert site.each_once(names)


def test_cameras_move_slowly_to_a_node_that_joined(memory_site: Place) -> None:
    site = memory_site
    names = settled(site, cameras=8, nodes=1)
    joined = site.agent("node-1")
    site.run(60)
    assert not joined.holds, "a camera stays for a while where it was put"
    site.run(1200, until=lambda: len(joined.holds) == 4)
    assert len(joined.holds) == 4
    site.run(120)
    assert len(joined.holds) == 4
    assert site.each_once(names)


def test_nothing_moves_to_a_node_that_joined_where_that_is_not_wanted(memory_site: Place) -> None:
    site = memory_site
    site.registry(evens=0.0)
    site.agent("node-0")
    site.run(1)
    names = site.add_cameras(4)
    site.run(10, until=lambda: site.each_once(names))
    joined = site.agent("node-1")
    site.run(900)
    assert not joined.holds
    assert site.each_once(names)


def test_agents_that_take_cameras_themselves_find_those_of_the_dead_in_the_pool(site: Place, redis_url: str) -> None:
    registry = site.registry(places=False)
    agents = [site.agent(f"node-{number}") for number in range(2)]
    client = connect_redis(redis_url)
    claims = [Claims(client, agent.node_id, agent.incarnation, site.clock) for agent in agents]

    def take() -> bool:
        for agent, claim in zip(agents, claims, strict=True):
            if agent.alive:
                claim.alive()
                claim.take(lambda _camera: 0, 10, ahead=10)
        return site.each_once(names)

    names = site.add_cameras(6)
    assert sorted(registry.desk.claimable()) == names
    site.run(LEASE_S + 5, until=take)
    assert site.each_once(names)
    agents[0].alive = False
    assert site.run(30, until=take) <= AFTER_LEADER_S + 1
    site.run(1)
    assert registry.site.owners() == site.grants()
    with pytest.raises(Contradicted, match="stop the agent"):
        registry.desk.drain("node-1", order(), None)
    # One that it gives back is its own no more.
    given = names[0]
    assert agents[1].state is not None
    assert agents[1].state.release(given, site.grants()[given])
    site.run(1)
    assert given not in registry.desk.node("node-1").view.cameras
    assert registry.desk.owner(given) is None
    client.close()


def test_grants_do_not_wait_for_a_database_that_hangs(site: Place, tmp_path: Path) -> None:
    names = settled(site)
    eventually(lambda: site.written() == site.grants())
    before = site.written()
    blocker = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    site.hosts[0].alive = False
    assert site.run(20, until=lambda: site.each_once(names)) <= FAILOVER_S + 1.0
    assert site.written() == before
    blocker.execute("ROLLBACK")
    blocker.close()
    assert eventually(lambda: site.written() == site.grants(), within_s=20)


def test_two_agents_with_one_id_move_nothing_and_one_is_told(site: Place, caplog: pytest.LogCaptureFixture) -> None:
    names = settled(site)
    before = site.grants()
    twin = site.agent("node-0", host="elsewhere")
    site.run(30)
    assert twin.told
    assert "give one of them another id" in twin.told[0]
    assert not twin.holds
    assert not site.hosts[0].told
    assert site.grants() == before
    assert sum(getattr(record, "event", "") == "node_twice" for record in caplog.records) == 1
    assert site.each_once(names)


def test_an_agent_that_is_started_anew_gets_its_cameras_back(site: Place) -> None:
    names = settled(site)
    site.run(60)
    old, other = site.hosts
    had, others = sorted(old.holds), dict(other.holds)
    old.alive = False
    again = site.agent(old.node_id)
    site.run(LEASE_S, until=lambda: sorted(again.holds) == had)
    assert sorted(again.holds) == had
    assert other.holds == others
    assert site.each_once(names)


def test_a_node_that_was_forgotten_is_none_of_the_next_leaders_either(site: Place) -> None:
    names = settled(site, nodes=3)
    first, gone = site.leader(), site.hosts[0]
    second = site.registry("registry-2")
    site.run(2)
    first.desk.drain(gone.node_id, order(), None)
    site.run(30, until=lambda: not gone.holds)
    gone.alive = False
    site.run(FAILOVER_S + 1, until=lambda: first.desk.node(gone.node_id).view.phase is NodePhase.DEAD)
    site.run(2)

    class Away(Nodes):
        """Cannot be written just now."""

        def forget(self, node_id: str, version: int) -> None:
            raise Unavailable(f"database: forget {node_id}, {version}")

    away = replace(first.desk, notes=Away(site.engine))
    (refused,) = in_background(first, site, lambda: away.forget(gone.node_id, "anna", None))
    assert isinstance(refused, Unavailable) and "forget node-0" in str(refused)
    assert first.desk.node(gone.node_id).version, "nothing was done: it can be asked for again"
    with pytest.raises(NotLeader):
        second.desk.forget(gone.node_id, "anna", None)
    assert in_background(first, site, lambda: first.desk.forget(gone.node_id, "anna", None)) == [None]
    with pytest.raises(Unknown):
        Nodes(site.engine).get(gone.node_id)
    site.run(LEASE_S + 2)
    site.kill(first)
    site.expire_lead()
    site.run(AFTER_LEADER_S + 2)
    assert second.leads
    assert [one.view.node_id for one in second.desk.nodes("", 10, None)] == ["node-1", "node-2"]
    assert site.each_once(names)


def test_a_node_that_reports_while_it_is_forgotten_keeps_its_row_and_its_order(site: Place) -> None:
    settled(site, nodes=3)
    leader, back = site.leader(), site.hosts[0]
    leader.desk.drain(back.node_id, order(), None)
    site.run(30, until=lambda: not back.holds)
    back.alive = False
    site.run(FAILOVER_S + 1, until=lambda: leader.desk.node(back.node_id).view.phase is NodePhase.DEAD)
    before = Nodes(site.engine).get(back.node_id)

    class Late(Nodes):
        """Is read a moment before the node reports."""

        def get(self, node_id: str) -> NodeRow:
            row = super().get(node_id)
            leader.desk.report(back.report())
            return row

    desk = replace(leader.desk, notes=Late(site.engine))
    (refused,) = in_background(leader, site, lambda: desk.forget(back.node_id, "anna", None))
    assert isinstance(refused, Contradicted) and "reports again" in str(refused)
    after = Nodes(site.engine).get(back.node_id)
    assert (after.version, after.drain) == (before.version, before.drain) and after.drain is not None
    assert leader.desk.node(back.node_id).view.phase is NodePhase.DRAINING


def order(forced: bool = False) -> DrainOrder:
    return DrainOrder(by="anna", at_ns=1, forced=forced)


def test_a_node_that_is_drained_hands_its_cameras_over_and_gets_them_no_more(site: Place) -> None:
    names = settled(site, cameras=30, nodes=3)
    leader = site.leader()
    with pytest.raises(Unknown):
        leader.desk.drain("nobody", order(), None)
    standing = leader.desk.drain("node-0", order(), None)
    with pytest.raises(Stale):
        leader.desk.drain("node-0", order(), standing.version + 7)
    eventually(lambda: leader.made.clerk.drains)
    drained = site.hosts[0]
    steps: set[int] = set()
    site.run(30, until=lambda: steps.add(len(drained.holds)) or not drained.holds)  # type: ignore[func-returns-value]
    assert site.each_once(names)
    # Eight at a time, and the rest when these are captured.
    assert steps - {10} == {2, 0}
    site.run(2)
    now = leader.desk.node("node-0")
    assert (now.view.phase, now.drain.left, now.drain.moved) == (NodePhase.DRAINING, 0, 10)
    more = site.add_cameras(3, first=30)
    site.run(3)
    assert not drained.holds
    leader.desk.undrain("node-0", "anna", None)
    eventually(lambda: not leader.made.clerk.drains)
    more += site.add_cameras(3, first=33)
    site.run(3)
    assert drained.holds
    assert site.each_once([*names, *more])


def test_a_source_that_gives_no_picture_yet_is_not_captured(site: Place) -> None:
    """It may be ten seconds until its first key frame: until then the old owner goes on."""
    names = settled(site, cameras=2)
    leader, (old, new) = site.leader(), site.hosts
    (name,) = old.holds
    old.leaving = True
    new.sees = False
    site.run(6)
    assert sorted(new.holds) == names
    assert not leader.desk.report(old.report()).captured
    assert list(old.holds) == [name]
    new.sees = True
    site.run(4, until=lambda: not old.holds)
    assert not old.holds


def test_an_order_to_drain_outlives_the_registry_that_took_it(site: Place) -> None:
    names = settled(site, cameras=6)
    first = site.leader()
    first.desk.drain("node-0", order(), None)
    site.kill(first)
    site.expire_lead()
    second = site.registry("registry-2")
    site.run(AFTER_LEADER_S + 30, until=lambda: not site.hosts[0].holds)
    assert sorted(site.hosts[1].holds) == names
    assert second.desk.node("node-0").view.phase is NodePhase.DRAINING
    # Nor does it end with the agent: the next life drains as well.
    site.hosts[0].alive = False
    site.run(FAILOVER_S)
    site.agent("node-0")
    site.run(2)
    assert second.desk.node("node-0").view.phase is NodePhase.DRAINING


def test_a_drain_without_room_elsewhere_is_refused_unless_forced(site: Place) -> None:
    site.registry()
    for number in range(2):
        site.agent(f"node-{number}", capacity=SMALL)
    site.run(1)
    # Each camera is taken to need 0.15 cores: ten fill both nodes but for a little.
    names = site.add_cameras(10)
    site.run(8)
    assert site.each_once(names)
    leader = site.leader()
    with pytest.raises(Contradicted, match="cannot take 4 of 5 cameras"):
        leader.desk.drain("node-0", order(), None)
    leader.desk.drain("node-0", order(forced=True), None)
    eventually(lambda: leader.made.clerk.drains)
    site.run(15)
    assert site.each_once(names)
    assert not site.hosts[0].holds


def test_an_agent_that_leaves_keeps_its_cameras_until_others_capture_them(site: Place) -> None:
    names = settled(site)
    leaving, taker = site.hosts
    taker.opens = False
    leaving.leaving = True
    had = set(leaving.holds)
    site.run(3)
    assert had <= set(taker.holds)
    assert set(leaving.holds) == had
    taker.opens = True
    site.run(2)
    assert not leaving.holds
    assert set(taker.holds) == set(names)


def test_a_camera_that_is_deleted_or_disabled_is_served_no_more(site: Place) -> None:
    names = settled(site, cameras=4)
    deleted, disabled, *rest = names
    site.cameras.delete(deleted, 1, writer())
    row = site.cameras.get(disabled)
    site.cameras.change(row.draft.model_copy(update={"enabled": False}), row.version, writer())
    site.notice()
    site.run(2)
    leader = site.leader()
    assert {placed.camera_id for placed in leader.desk.assignments("", 10, None, None)} == set(rest)
    assert eventually(lambda: set(site.written()) == set(rest))
    assert RedisState(site.client).statuses().keys() == set(rest)


def in_background(registry: Registry, site: Place, ask: object) -> list[object]:
    """What a request of another thread gives while the loop turns."""
    got: list[object] = []

    def work() -> None:
        try:
            got.append(ask())  # type: ignore[operator]
        except Exception as exc:
            got.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    eventually(lambda: site.run(TURN_S) and got)
    thread.join()
    return got


def test_a_camera_is_moved_by_hand_and_stays(site: Place) -> None:
    names = settled(site, cameras=4)
    leader, (source, target) = site.leader(), site.hosts
    camera = next(iter(source.holds))
    (owner,) = in_background(leader, site, lambda: leader.desk.move(camera, target.node_id, "anna"))
    site.run(20)
    assert site.grants()[camera] == owner
    assert camera in source.lost
    found = leader.desk.explain(camera)
    assert found.node_id == target.node_id
    with pytest.raises(Unknown):
        leader.desk.move("nobody", target.node_id, "anna")
    source.alive = False
    site.run(FAILOVER_S + 1)
    with pytest.raises(Contradicted, match="is dead"):
        leader.desk.move(camera, source.node_id, "anna")
    assert site.each_once(names)


def test_cameras_go_where_their_labels_are(site: Place) -> None:
    site.registry()
    north = site.agent("node-0", labels={"site": "north"})
    south = site.agent("node-1", labels={"site": "south"})
    site.run(1)
    names = site.add_cameras(4, labels={"site": "south", "colour": "red"})
    lost = site.add_cameras(1, first=4, labels={"site": "west"})
    site.run(LEASE_S + 1)
    assert (sorted(south.holds), sorted(north.holds)) == (names, [])
    (waits,) = site.leader().desk.assignments("cam-003", 10, None, None)
    assert waits.camera_id == lost[0]
    assert "labels" in waits.reason


def test_a_site_may_bear_longer_silence(memory_site: Place) -> None:
    site = memory_site
    site.registry(limits=Limits(lease_s=20.0))
    for number in range(2):
        site.agent(f"node-{number}")
    site.run(1)
    names = site.add_cameras(4)
    site.run(30, until=lambda: site.each_once(names))
    site.hosts[0].alive = False
    assert 20.0 <= site.run(60, until=lambda: site.each_once(names)) <= 20.0 + FAILOVER_S


def owners_in_redis(site: Place) -> dict[str, Owner | None]:
    return {camera: status.owner for camera, status in RedisState(site.client).statuses().items()}


def test_what_only_the_leader_remembers_is_restored_too(site: Place, tmp_path: Path) -> None:
    settled(site, cameras=0, nodes=5)
    names = site.add_cameras(10)
    blocker = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    site.run(10, until=lambda: site.each_once(names))
    before = site.grants()
    for host in site.hosts[:4]:
        host.alive = False
    site.run(8)
    assert site.leader().desk.cluster().freeze is not None
    # No node says so, no database has it, and Redis lost it.
    site.client.flushall()
    site.run(1)
    assert owners_in_redis(site) == before
    # A registry that followed remembers as well, also when nobody can lead for a while.
    second = site.registry("registry-2")
    site.run(2)
    site.kill(site.registries[0])
    site.client.flushall()
    other = RedisLeader(site.client)
    term = other.acquire("registry-3")
    assert term is not None
    site.run(3)
    other.resign(term)
    site.run(2)
    assert second.leads
    assert owners_in_redis(site) == before
    blocker.execute("ROLLBACK")
    blocker.close()


def test_many_nodes_that_fall_silent_at_once_keep_their_cameras(site: Place) -> None:
    settled(site, cameras=10, nodes=5)
    before = site.grants()
    follower = site.registry("registry-2")
    silent: list[Host] = site.hosts[:4]
    for host in silent:
        host.alive = False
    site.run(20)
    leader = site.leader()
    freeze = leader.desk.cluster().freeze
    assert freeze is not None
    assert "fell silent together" in freeze.reason
    told = follower.desk.cluster().freeze
    assert told is not None
    assert (told.reason, told.until_ns) == (freeze.reason, pytest.approx(freeze.until_ns, abs=5))
    for host in silent:
        host.alive = True
    site.run(5)
    assert leader.desk.cluster().freeze is None
    assert site.grants() == before


def test_of_many_silent_nodes_those_that_redis_does_not_hear_either_lose_their_cameras(site: Place) -> None:
    names = settled(site, cameras=10, nodes=5)
    *silent, last = site.hosts
    dead, *mute = silent
    for host in silent:
        host.alive = False
    # The registry does not hear the others, but they renew what they hold.
    for _ in range(22):
        for host in mute:
            assert host.state is not None
            host.state.renew(host.owners())
        site.run(1)
        if site.clock.now_s % 5 < 1:
            site.client.delete(*(LOCK_PREFIX + camera for camera in dead.holds))
    assert site.leader().desk.cluster().freeze is not None
    assert site.leader().desk.node(dead.node_id).view.phase is NodePhase.DEAD
    taken = set(dead.holds)
    assert taken <= set(last.holds)
    assert not any(set(host.holds) & set(last.holds) for host in mute)
    assert site.each_once(sorted(last.holds))
    assert len(names) == len(last.holds) + sum(len(host.holds) for host in mute)


def test_a_silent_node_that_consumes_in_rabbitmq_keeps_its_cameras(site: Place, rabbitmq_url: str) -> None:
    site.registry(bus_url=rabbitmq_url, limits=Limits(freeze_s=3_600.0))
    for number in range(5):
        site.agent(f"node-{number}")
    site.run(1)
    names = site.add_cameras(10)
    site.run(10, until=lambda: site.each_once(names))
    deaf, dead, *_ = silent = site.hosts[:4]
    agent = pika.BlockingConnection(pika.URLParameters(rabbitmq_url))
    channel = agent.channel()
    channel.queue_declare(clips_queue(deaf.node_id), durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_consume(clips_queue(deaf.node_id), lambda *_: None)
    # They report to nobody, and renew nothing in Redis.
    for host in silent:
        host.alive = False
        site.client.delete(*(LOCK_PREFIX + camera for camera in host.holds))
    site.run(8)
    desk = site.leader().desk
    assert desk.cluster().freeze is not None
    others = [host.node_id for host in silent[1:]]

    def lost() -> bool:
        # RabbitMQ is asked beside the loop, in time that is not the test's.
        site.run(1)
        return all(desk.node(node_id).view.phase is NodePhase.DEAD for node_id in others)

    eventually(lost, within_s=20)
    site.run(5)
    assert desk.cluster().freeze is not None
    assert desk.node(deaf.node_id).view.phase is NodePhase.SUSPECT
    assert set(desk.node(deaf.node_id).view.cameras) == set(deaf.holds)
    assert site.served().keys() == set(names) - set(deaf.holds)
    assert dead.holds
    agent.close()
    eventually(lambda: site.run(1) and desk.node(deaf.node_id).view.phase is NodePhase.DEAD, within_s=20)


def test_no_report_keeps_the_clerk_from_its_work(memory_site: Place) -> None:
    names = settled(memory_site, cameras=2)
    host = memory_site.hosts[0]
    held = Holding(camera_id=names[0], epoch=1, version=2**63 - 1)
    memory_site.leader().desk.report(host.report().model_copy(update={"holds": (held,)}))
    memory_site.run(TURN_S)
    more = memory_site.add_cameras(1, first=2)
    memory_site.run(5, until=lambda: memory_site.each_once(names + more))
    assert eventually(lambda: memory_site.written().keys() == {*names, *more})


def test_a_report_tells_costs_and_versions_of_what_its_node_was_given_only(memory_site: Place) -> None:
    names = settled(memory_site, cameras=2)
    host = memory_site.hosts[0]
    served = sorted(host.holds)
    costs = {name: SMALL for name in (*names, "nowhere")}
    # It says that it serves its neighbour's cameras as well, and such as there are not.
    holds = tuple(Holding(camera_id=name, epoch=1, version=9) for name in (*names, "nowhere"))
    memory_site.leader().desk.report(host.report().model_copy(update={"costs": costs, "holds": holds}))
    memory_site.run(TURN_S)
    site = memory_site.leader().site
    assert sorted(site.costs) == served
    assert {name: version for name, version in site.served().items() if version == 9} == dict.fromkeys(served, 9)


def test_a_registry_that_was_stopped_ends_nothing_that_its_successor_began(site: Place) -> None:
    (name,) = settled(site, cameras=1)
    stopped = site.leader().made
    assert eventually(lambda: site.written().keys() == {name})
    # Its loop does not turn, and another one leads, and gives a camera that it never heard of.
    site.clock.now_s += 10 * AUDIT_S
    owner = Owner(node_id="node-0", incarnation="a" * 16, epoch=5)
    given = Grant(camera_id="new", owner=owner, reason="it is new", granted_ns=1)
    Assignments(site.engine).record([given], site.clock.wall_ns())
    for _ in range(3):
        # Answered before anything is written in a turn: the last answer comes after two whole turns of the clerk.
        stopped.clerk.ask_owners().result(10)
    assert site.written().keys() == {name, "new"}


def test_a_report_that_cannot_be_judged_keeps_nobody_from_anything(
    memory_site: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = settled(memory_site, cameras=2)
    known, hear = memory_site.leader().site, memory_site.leader().site.hear

    def odd(report: AgentReport, wall_ns: int, now_s: float) -> object:
        if report.report.node_id == "node-0":
            raise OverflowError("a number that nobody thought of")
        return hear(report, wall_ns, now_s)

    monkeypatch.setattr(known, "hear", odd)
    memory_site.run(FAILOVER_S + 1)
    assert {owner.node_id for owner in known.owners().values()} == {"node-1"}
    assert sorted(known.owners()) == names
    assert "a report cannot be judged" in caplog.text


def test_what_was_not_done_in_time_is_never_done(memory_site: Place) -> None:
    settled(memory_site, cameras=1)
    done: list[str] = []

    def deed(_leading: Leading) -> None:
        done.append("late")

    loop = memory_site.leader().made.loop
    with pytest.raises(Unavailable, match="busy"):
        loop.ask(deed, 0.05)
    memory_site.run(2 * TURN_S)
    assert not done


def test_a_broadcast_that_fails_ends_none_after_it() -> None:
    told: list[str] = []

    class Client:
        def publish(self, _channel: str, text: bytes) -> int:
            told.append("tried")
            if len(told) == 1:
                raise ValueError(text)
            return 1

    teller = Teller(Client())  # type: ignore[arg-type]
    for name in ("gate", "yard"):
        teller.tell(Broadcast(told=Told.POOLED, camera_id=name))
    assert eventually(lambda: len(told) == 2)
    teller.close()
