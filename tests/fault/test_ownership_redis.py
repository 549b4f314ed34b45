"""Live ownership while Redis dies, hangs, loses everything or fails over without its last writes.

What holds through all of it: no epoch goes back, no camera moves, and nobody is told that it lost what it owns.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent.contract.errors import Fenced, Unavailable
from nodeagent.contract.ownership import LOCK_PREFIX, POOL_LIST, Broadcast, Owner, Told
from nodeagent.infra.ownership.absences import GONE_S
from nodeagent.infra.ownership.broadcasts import MISSED, Listener, publish
from nodeagent.infra.ownership.grants import RedisState
from nodeagent.infra.ownership.leader import RedisLeader
from nodeagent.infra.ownership.leases import Leases
from nodeagent.infra.ownership.pool import Claims
from nodeagent.infra.ownership.port import Standing
from nodeagent.infra.redis import connect_redis
from tests.support.eventually import eventually
from tests.support.fake_processes import TurnedClock
from tests.support.ownership import World, life, owned, pooled, redis_world
from tests.support.proxy import Proxy
from tests.support.sentinel import SentinelSite
from tests.support.services import RedisServer, free_port

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

A, B = life(), life()
HINT = Broadcast(told=Told.CHANGED, camera_id="cam", version=3)


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    made = connect_redis(redis_url)
    yield made
    made.close()


@pytest.fixture
def world(redis_server: RedisServer, redis_url: str) -> Iterator[World]:
    made = redis_world(redis_url)
    yield made
    redis_server.start()
    made.check()
    made.close()


def trying(what: Callable[[], object], within_s: float = 30.0) -> object:
    """The result, as soon as Redis is there again."""

    def attempt() -> list[object]:
        try:
            return [what()]
        except Unavailable as exc:
            raise AssertionError(str(exc)) from exc

    return eventually(attempt, within_s)[0]


def test_a_restart_costs_nothing_but_its_time(redis_server: RedisServer, client: Any, world: World) -> None:
    term = world.term()
    owners = {c: world.state.grant(term, c, "n1", A) for c in ("a", "b")}
    world.state.offer(term, ["waiting"])
    before = (world.state.statuses(), world.state.pool(), world.state.loads())
    leases = Leases(client)
    redis_server.kill9()
    attempts: list[Callable[[], object]] = [
        lambda: world.state.grant(term, "a", "n2", B),
        lambda: world.state.rebuild(term, []),
        world.state.statuses,
        world.state.pool,
        lambda: leases.renew(owners),
        lambda: world.leader.renew(term),
        lambda: publish(client, HINT),
    ]
    for attempt in attempts:
        with pytest.raises(Unavailable):
            attempt()
    redis_server.start()
    assert trying(lambda: world.leader.renew(term))
    assert {r.standing for r in leases.renew(owners).values()} == {Standing.HELD}
    assert (world.state.statuses(), world.state.pool(), world.state.loads()) == before
    assert world.state.grant(term, "a", "n2", B).epoch > owners["a"].epoch


def test_keys_that_ran_out_while_redis_was_away_cost_nobody_a_camera(
    redis_server: RedisServer, client: Any, world: World
) -> None:
    client.rpush(POOL_LIST, "cam")
    clock = TurnedClock()
    agent, other = Claims(client, "n1", A, clock), Claims(client, "n2", B, clock)
    mine = agent.take(lambda _: 0, 1)
    # What an outage of more than ten seconds leaves behind.
    client.delete(LOCK_PREFIX + "cam")
    assert other.reclaim() == []
    redis_server.kill9()
    clock.now_s += GONE_S
    with pytest.raises(Unavailable):
        other.reclaim()
    redis_server.start()
    assert trying(other.reclaim) == [], "as long as nobody could renew, no time has passed"
    assert Leases(client).renew(mine)["cam"].standing is Standing.HELD
    clock.now_s += GONE_S
    assert other.reclaim() == []
    assert world.state.owned_by("n1", A) == mine


def test_a_flushed_redis_is_rebuilt_and_no_camera_moves(client: Any, world: World) -> None:
    term = world.term()
    owners = {f"cam-{i}": world.state.grant(term, f"cam-{i}", f"n{i % 2}", A) for i in range(4)}
    owners["cam-0"] = world.state.grant(term, "cam-0", "n1", A, known=owners["cam-0"].epoch + 1_000_000)
    leases = Leases(client)
    world.heard(term)
    client.flushall()
    assert {r.standing for r in leases.renew(owners).values()} == {Standing.UNKNOWN}
    with pytest.raises(Fenced):
        world.state.grant(term, "cam-0", "n2", B)
    assert not world.leader.renew(term)
    again = world.leader.acquire("registry-1", known=term.token)
    assert again is not None
    assert again.token > term.token
    # The database is a grant behind, and offers every camera before the first report has come.
    world.state.offer(again, owners)
    database = [(c, pooled(None)) for c in owners]
    world.state.rebuild(again, database + [(c, owned(owner)) for c, owner in owners.items()])
    assert {c: s.owner for c, s in world.state.statuses().items()} == owners
    assert {r.standing for r in leases.renew(owners).values()} == {Standing.HELD}
    assert {b.told for b in world.heard(again)} == {Told.POOLED}, "nobody was told to stop or to start"
    for camera_id, owner in owners.items():
        assert world.state.grant(again, camera_id, "n3", B).epoch > owner.epoch


def test_agents_restore_a_flushed_redis_without_any_registry(client: Any, world: World) -> None:
    client.rpush(POOL_LIST, *(f"cam-{i}" for i in range(4)))
    agents = [Claims(client, name, incarnation, TurnedClock()) for name, incarnation in (("n1", A), ("n2", B))]
    for agent in agents:
        agent.alive()
    held = [agent.take(lambda _: 0, 4) for agent in agents]
    stale = {"cam-4": Owner(node_id="n1", incarnation=A, epoch=7)}
    latest = {"cam-4": Owner(node_id="n2", incarnation=B, epoch=8)}
    leases = Leases(client)
    client.flushall()
    client.rpush(POOL_LIST, "cam-4")
    unknown = [{c for c, r in leases.renew(mine).items() if r.standing is Standing.UNKNOWN} for mine in held]
    assert unknown == [set(mine) for mine in held]
    assert [agent.restore(mine) for agent, mine in zip(agents, held, strict=True)] == [2, 2]
    assert agents[0].restore(stale) == 1
    assert agents[1].restore(latest) == 1
    assert agents[0].restore(stale) == 0, "somebody has it by a later epoch"
    assert agents[0].restore(held[0]) == agents[0].restore({}) == 0
    assert world.state.owned_by("n1", A) == held[0]
    assert world.state.owned_by("n2", B) == held[1] | latest
    assert {r.standing for r in leases.renew(held[1] | latest).values()} == {Standing.HELD}
    assert world.state.pool() == []


def test_a_failover_that_lost_a_grant_gives_the_camera_back_to_who_has_it() -> None:
    with SentinelSite() as site:
        client = connect_redis(site.url)
        state, leader, leases = RedisState(client), RedisLeader(client), Leases(client)
        term = leader.acquire("registry-1")
        assert term is not None
        first = state.grant(term, "cam", "n1", A)
        kept = state.grant(term, "kept", "n1", A)
        eventually(site.replicated)
        listener = Listener(connect_redis(site.url))
        assert listener.get(10.0) is MISSED
        site.part()
        second = state.grant(term, "cam", "n2", B)
        told = listener.get(10.0)
        assert isinstance(told, Broadcast)
        assert (told.told, told.epoch) == (Told.GRANTED, second.epoch)
        site.fail_over()
        assert trying(lambda: state.owned_by("n1", A), 60) == {"cam": first, "kept": kept}
        assert leases.renew({"cam": second})["cam"].standing is Standing.UNKNOWN, "the new owner goes on"
        again = eventually(lambda: leader.acquire("registry-2", known=term.token))
        assert again is not None
        assert again.token > term.token
        assert eventually(lambda: listener.get(0.5), 30) is MISSED
        publish(client, HINT)
        assert eventually(lambda: listener.get(0.5)) == HINT
        listener.close()
        reports = [("cam", owned(first)), ("cam", owned(second)), ("kept", owned(kept))]
        assert state.rebuild(again, reports) == 1
        assert state.rebuild(again, reports) == 0
        assert state.loads() == {"n1": 1, "n2": 1}
        assert leases.renew({"cam": second})["cam"].standing is Standing.HELD
        assert leases.renew({"cam": first})["cam"].standing is Standing.TAKEN
        assert state.grant(again, "cam", "n1", A).epoch > second.epoch
        client.close()


def test_a_listener_comes_back_by_itself_and_says_that_it_may_have_missed_some(
    redis_server: RedisServer, redis_url: str
) -> None:
    listener = Listener(connect_redis(redis_url))
    try:
        assert listener.get(10.0) is MISSED
        for end in (redis_server.kill9, redis_server.stop):
            end()
            assert eventually(lambda: not listener.connected)
            assert listener.get(0.1) is None
            redis_server.start()
            assert listener.get(20.0) is MISSED
            publisher = connect_redis(redis_url)
            assert publish(publisher, HINT) == 1
            publisher.close()
            assert listener.get(10.0) == HINT
    finally:
        listener.close()


def test_a_listener_notices_a_network_that_swallows_everything(redis_server: RedisServer, redis_url: str) -> None:
    with Proxy(redis_server.port) as proxy:
        listener = Listener(connect_redis(redis_url.replace(f":{redis_server.port}/", f":{proxy.port}/")))
        publisher = connect_redis(redis_url)
        try:
            assert listener.get(10.0) is MISSED
            proxy.stall()
            assert eventually(lambda: not listener.connected, 20)
            publish(publisher, HINT)
            proxy.heal()
            found = eventually(lambda: listener.get(1.0), 30)
            assert found is MISSED
            publish(publisher, HINT)
            assert listener.get(10.0) == HINT
        finally:
            listener.close()
            publisher.close()


def test_a_redis_that_hangs_is_unavailable_within_seconds_and_used_again(
    redis_server: RedisServer, client: Any, world: World
) -> None:
    owner = world.state.grant(world.term(), "cam", "n1", A)
    leases = Leases(client)
    assert leases.renew({"cam": owner})["cam"].standing is Standing.HELD
    redis_server.freeze()
    started = time.monotonic()
    try:
        with pytest.raises(Unavailable):
            leases.renew({"cam": owner})
        assert time.monotonic() - started < 15
    finally:
        redis_server.thaw()
    standing = trying(lambda: leases.renew({"cam": owner})["cam"].standing)
    assert standing is Standing.HELD


def test_tls_is_used_with_a_known_certificate_and_refused_without(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    port = free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    with RedisServer(options=[*options, "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"]):
        client = connect_redis(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}")
        term = RedisLeader(client).acquire("registry-1")
        assert term is not None
        owner = RedisState(client).grant(term, "cam", "n1", A)
        assert Leases(client).holders(["cam"]) == {"cam": owner}
        client.close()
        stranger = connect_redis(f"rediss://127.0.0.1:{port}/0")
        with pytest.raises(Unavailable):
            RedisState(stranger).statuses()
        stranger.close()


def test_an_owner_of_a_later_epoch_is_never_put_aside_by_older_memories(client: Any, world: World) -> None:
    term = world.term()
    late = world.state.grant(term, "cam", "n1", A)
    old = Owner(node_id="n2", incarnation=B, epoch=late.epoch - 1)
    for memories in ([("cam", owned(old))], [("cam", pooled(old))], [("cam", pooled(None))]):
        assert world.state.rebuild(term, memories) == 0
    client.hdel("camera_task_status", "cam")
    world.state.rebuild(term, [("cam", owned(old))])
    assert world.state.owned_by("n1", A) == {"cam": late}, "its key is a memory, too"
