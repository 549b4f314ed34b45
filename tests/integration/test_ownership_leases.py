"""Ownership as agents keep it on a real Redis: renewals, claims from the pool, reclaims and broadcasts."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from nodeagent.contract.codec import encode_task_status
from nodeagent.contract.ownership import (
    CHANNEL,
    LOAD_HASH,
    LOCK_MS,
    LOCK_PREFIX,
    POOL_LIST,
    STATUS_HASH,
    Broadcast,
    Owner,
    TaskStatus,
    Told,
)
from nodeagent.infra.ownership.absences import GONE_S
from nodeagent.infra.ownership.broadcasts import MISSED, WAITING_MAX, Listener, publish
from nodeagent.infra.ownership.leases import Leases
from nodeagent.infra.ownership.pool import Claims
from nodeagent.infra.ownership.port import Renewal, Standing
from nodeagent.infra.ownership.prelude import ALIVE_SET
from nodeagent.infra.ownership.running import Scripts
from nodeagent.infra.redis import connect_redis
from tests.support.eventually import eventually
from tests.support.fake_processes import TurnedClock
from tests.support.ownership import World, camera_ids, life, owned, pooled, redis_world

pytestmark = pytest.mark.services

A, B = life(), life()
LOW = Owner(node_id="n1", incarnation=A, epoch=40)
HIGH = Owner(node_id="n2", incarnation=B, epoch=50)
OLD = Owner(node_id="n1", incarnation=A, epoch=30)


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    made = connect_redis(redis_url)
    yield made
    made.close()


@pytest.fixture
def world(redis_url: str) -> Iterator[World]:
    made = redis_world(redis_url)
    yield made
    made.check()
    made.close()


def put(client: Any, status: TaskStatus | None, key: Owner | None) -> None:
    """What Redis says of `cam`."""
    if status is not None:
        client.hset(STATUS_HASH, "cam", encode_task_status(status))
    if key is not None:
        client.set(LOCK_PREFIX + "cam", str(key), px=1000)


@pytest.mark.parametrize(
    ("status", "key", "ours", "standing", "owner", "key_after"),
    [
        (owned(LOW), LOW, LOW, Standing.HELD, LOW, LOW),
        (owned(LOW), None, LOW, Standing.HELD, LOW, LOW),
        (owned(LOW), OLD, LOW, Standing.HELD, LOW, LOW),
        (owned(LOW), None, OLD, Standing.TAKEN, LOW, None),
        (owned(HIGH), HIGH, LOW, Standing.TAKEN, HIGH, HIGH),
        (owned(HIGH), None, LOW, Standing.TAKEN, HIGH, None),
        (None, HIGH, LOW, Standing.TAKEN, HIGH, HIGH),
        (pooled(LOW), None, LOW, Standing.POOLED, LOW, None),
        (pooled(HIGH), None, LOW, Standing.POOLED, HIGH, None),
        (None, None, LOW, Standing.UNKNOWN, None, None),
        (None, LOW, LOW, Standing.HELD, LOW, LOW),
        (owned(LOW), HIGH, LOW, Standing.TAKEN, HIGH, HIGH),
        (pooled(None), None, LOW, Standing.UNKNOWN, None, None),
        (owned(LOW), LOW, HIGH, Standing.UNKNOWN, LOW, LOW),
        (pooled(LOW), None, HIGH, Standing.UNKNOWN, LOW, None),
    ],
)
def test_a_renewal_says_who_owns_and_changes_only_what_is_ours(
    client: Any,
    status: TaskStatus | None,
    key: Owner | None,
    ours: Owner,
    standing: Standing,
    owner: Owner | None,
    key_after: Owner | None,
) -> None:
    put(client, status, key)
    before = client.hgetall(STATUS_HASH)
    leases = Leases(client)
    assert leases.renew({"cam": ours}) == {"cam": Renewal(standing, owner)}
    assert leases.holders(["cam"]) == ({"cam": key_after} if key_after else {})
    lives_ms = client.pttl(LOCK_PREFIX + "cam")
    assert (lives_ms > LOCK_MS - 2000) is (standing is Standing.HELD)
    assert client.hgetall(STATUS_HASH) == before


@pytest.mark.parametrize("status", [None, owned(HIGH)])
@pytest.mark.parametrize("key", [b"locked by a tool", b"\xff\xfe", b"n1/x/7"])
def test_a_key_that_holds_no_owner_ends_nothing(client: Any, status: TaskStatus | None, key: bytes) -> None:
    put(client, status, None)
    client.set(LOCK_PREFIX + "cam", key)
    assert Leases(client).renew({"cam": LOW}) == {"cam": Renewal(Standing.UNKNOWN, None)}


def test_a_status_of_ours_with_an_epoch_that_is_none_is_left_out(client: Any) -> None:
    client.sadd("node_cameras:n1", "cam", "yard")
    client.hset(STATUS_HASH, "cam", encode_task_status(owned(LOW)).replace(b":40", b":0"))
    client.hset(STATUS_HASH, "yard", encode_task_status(owned(LOW)))
    assert Leases(client).owned_by("n1", A) == {"yard": LOW}


def test_more_cameras_than_a_batch_are_renewed_at_once(client: Any, world: World) -> None:
    owners = {f"cam-{i}": Owner(node_id="n1", incarnation=A, epoch=10 + i) for i in range(1203)}
    world.state.rebuild(world.term(), [(c, owned(owner)) for c, owner in owners.items()])
    leases = Leases(client)
    assert leases.renew(owners) == {c: Renewal(Standing.HELD, owner) for c, owner in owners.items()}
    assert leases.owned_by("n1", A) == owners
    assert leases.renew({}) == {}
    client.set(LOCK_PREFIX + "cam-7", "no owner")
    assert set(leases.holders(list(owners))) == set(owners) - {"cam-7"}
    assert leases.holders([]) == {}


def claims(client: Any, node_id: str, seed: int = 0) -> Claims:
    """A node that is alive and takes cameras."""
    made = Claims(client, node_id, life(), TurnedClock(), random.Random(seed))
    made.alive()
    return made


def nothing_known(_camera_id: str) -> int:
    return 0


@pytest.mark.parametrize("seed", range(5))
def test_three_nodes_share_a_pool_evenly_and_no_camera_is_taken_twice(client: Any, world: World, seed: int) -> None:
    cameras = camera_ids(20)
    client.rpush(POOL_LIST, *cameras)
    nodes = [claims(client, f"n{i}", seed + i) for i in range(3)]
    taken: list[dict[str, Owner]] = [{}, {}, {}]

    def run(index: int) -> None:
        while client.llen(POOL_LIST):
            taken[index].update(nodes[index].take(nothing_known, 20))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    counts = sorted(len(mine) for mine in taken)
    assert counts == [6, 7, 7]
    assert sorted(camera_id for mine in taken for camera_id in mine) == cameras
    assert world.state.loads() == {f"n{i}": len(mine) for i, mine in enumerate(taken)}
    told = [b for b in world.heard(world.term()) if b.told is Told.GRANTED]
    assert {(b.camera_id, b.epoch) for b in told} == {(c, o.epoch) for mine in taken for c, o in mine.items()}


def test_a_node_fills_up_to_its_share_at_once_and_the_dead_have_none(client: Any, world: World) -> None:
    first, second = claims(client, "n1"), claims(client, "n2")
    client.zadd(ALIVE_SET, {"ghost": time.time() * 1000 - 1})
    client.rpush(POOL_LIST, *camera_ids(11))
    assert len(first.take(nothing_known, 20)) == 5
    assert len(second.take(nothing_known, 20)) == 6
    assert first.take(nothing_known, 20) == {}
    assert world.state.loads() == {"n1": 5, "n2": 6}


def test_the_lighter_take_first_and_the_heavier_when_the_lighter_do_not(client: Any, world: World) -> None:
    light, lighter, heavy = (claims(client, name) for name in ("light", "lighter", "heavy"))
    lighter.leave()
    light.leave()
    client.rpush(POOL_LIST, *camera_ids(10))
    assert len(heavy.take(nothing_known, 10)) == 10
    light.alive()
    lighter.alive()
    client.rpush(POOL_LIST, "new-1", "new-2")
    assert heavy.take(nothing_known, 10) == {}
    assert len(light.take(nothing_known, 10)) == 1
    assert len(heavy.take(nothing_known, 1, ahead=10)) == 1, "whom nobody lighter relieves"
    assert world.state.pool() == []
    client.rpush(POOL_LIST, "new-3")
    lighter.leave()
    light.leave()
    assert set(heavy.take(nothing_known, 10)) == {"new-3"}, "nobody else lives"


def test_what_others_wrote_into_the_pool_does_no_harm(client: Any, world: World) -> None:
    node, other = claims(client, "n1"), claims(client, "n2")
    client.rpush(POOL_LIST, "cam", "cam", "cam")
    mine = node.take(nothing_known, 5)
    assert set(mine) == {"cam"}
    assert world.state.pool() == []
    client.rpush(POOL_LIST, "cam", "cam")
    assert other.take(nothing_known, 5) == {}
    assert world.state.pool() == []
    assert Leases(client).holders(["cam"]) == mine
    client.delete(LOCK_PREFIX + "cam")
    client.rpush(POOL_LIST, "cam")
    assert node.take(nothing_known, 5) == mine, "it is the owner still"
    assert (world.state.pool(), Leases(client).holders(["cam"])) == ([], mine)


def test_a_camera_that_left_the_pool_meanwhile_is_not_taken(client: Any, world: World) -> None:
    client.rpush(POOL_LIST, "gone", "cam")

    def known(_camera_id: str) -> int:
        client.lrem(POOL_LIST, 0, "gone")
        return 0

    assert set(claims(client, "n1").take(known, 5)) == {"cam"}
    assert set(world.state.statuses()) == {"cam"}


def test_an_evicted_camera_is_once_in_a_pool_that_somebody_else_wrote_into(client: Any, world: World) -> None:
    term = world.term()
    for leave in (world.state.release, lambda camera_id, owner: world.state.evict(term, camera_id, owner)):
        owner = world.state.grant(term, "cam", "n1", A)
        client.rpush(POOL_LIST, "cam", "cam")
        assert leave("cam", owner)
        assert world.state.pool() == ["cam"]


def test_a_rebuild_sets_the_keys_of_those_who_serve(client: Any, world: World) -> None:
    term, leases = world.term(), Leases(client)
    owner = world.state.grant(term, "cam", "n1", A)
    client.delete(LOCK_PREFIX + "cam")
    assert world.state.rebuild(term, [("cam", pooled(owner))]) == 0
    assert leases.holders(["cam"]) == {}
    assert [world.state.rebuild(term, [("cam", owned(owner))]) for _ in range(2)] == [1, 0]
    assert leases.holders(["cam"]) == {"cam": owner}


def test_an_epoch_is_above_the_one_of_a_key_whose_status_is_lost(client: Any, world: World) -> None:
    client.set(LOCK_PREFIX + "cam", str(LOW.model_copy(update={"epoch": 2**60})))
    assert world.state.grant(world.term(), "cam", "n2", B).epoch == 2**60 + 1


def test_what_is_no_camera_s_id_is_left_out_and_told_once(client: Any, world: World, caplog: Any) -> None:
    alien = b'x","told":"stop'
    client.rpush(POOL_LIST, alien, b"\xff", "cam")
    client.hset(STATUS_HASH, mapping={alien: b"{}", "cam-2": b"{}"})
    for _ in range(2):
        assert world.state.pool() == ["cam"]
        assert world.state.statuses() == {}
    assert len([r for r in caplog.records if "is left out" in r.getMessage()]) == 4
    assert set(claims(client, "n1").take(nothing_known, 5)) == {"cam"}
    assert client.lrange(POOL_LIST, 0, -1) == [alien, b"\xff"]


def test_a_claim_s_epoch_is_above_what_its_node_has_seen(client: Any, world: World) -> None:
    client.rpush(POOL_LIST, "cam")
    assert claims(client, "n1").take(lambda _: 2**60, 5)["cam"].epoch == 2**60 + 1
    assert world.state.loads() == {"n1": 1}


def test_a_camera_whose_key_is_gone_is_returned_once_by_any_number_of_agents(client: Any, world: World) -> None:
    client.rpush(POOL_LIST, *camera_ids(3))
    dead = claims(client, "dead")
    mine = dead.take(nothing_known, 3)
    clock = TurnedClock()
    agents = [Claims(client, f"n{i}", life(), clock) for i in range(2)]
    client.delete(LOCK_PREFIX + "cam-00", LOCK_PREFIX + "cam-01")
    assert [agent.reclaim() for agent in agents] == [[], []]
    clock.now_s += GONE_S - 0.1
    assert [agent.reclaim() for agent in agents] == [[], []]
    assert Leases(client).renew({"cam-01": mine["cam-01"]})["cam-01"].standing is Standing.HELD
    assert Scripts(client).run("take back", "", "cam-01", mine["cam-01"], 1) == b"other", "its key was set meanwhile"
    clock.now_s += 0.2
    agents[0].reclaim()
    agents[1].reclaim()
    assert world.state.pool() == ["cam-00"]
    assert world.state.loads() == {"dead": 2}
    assert world.state.statuses()["cam-00"].owner == mine["cam-00"]
    world.state.grant(world.term(), "cam-00", "n1", A)
    clock.now_s += 2 * GONE_S
    agents[1].reclaim()
    assert world.state.pool() == []


def test_a_damaged_redis_is_counted_anew(client: Any, world: World) -> None:
    term = world.term()
    owners = {c: world.state.grant(term, c, f"n{i % 2}", A) for i, c in enumerate(camera_ids(4))}
    world.state.offer(term, ["waiting", "lost"])
    client.hset(LOAD_HASH, mapping={"n0": 9, "gone": 3})
    client.lrem(POOL_LIST, 0, "lost")
    client.rpush(POOL_LIST, "waiting", "cam-01", "foreign", "foreign")
    client.hset(STATUS_HASH, "alien", b"\xff no status")
    world.state.rebuild(term, [])
    assert world.state.loads() == {"n0": 2, "n1": 2}
    assert sorted(world.state.pool()) == ["foreign", "lost", "waiting"]
    client.delete(STATUS_HASH, POOL_LIST)
    assert world.state.rebuild(term, [(c, pooled(None)) for c in owners]) == 4, "the keys remember"
    assert {c: s.owner for c, s in world.state.statuses().items()} == owners
    assert "alien" not in world.state.statuses()


def test_broadcasts_arrive_in_order_behind_a_word_that_some_may_be_missing(client: Any, redis_url: str) -> None:
    listener = Listener(connect_redis(redis_url))
    try:
        assert listener.get(10.0) is MISSED
        assert listener.get(0.05) is None
        sent = [Broadcast(told=told, camera_id="cam", version=i) for i, told in enumerate(Told)]
        client.publish(CHANNEL, b"no broadcast")
        assert [publish(client, one) for one in sent] == [1] * len(sent)
        assert [listener.get(10.0) for _ in sent] == sent
        assert listener.undecodable == 1
    finally:
        listener.close()
    assert not listener.connected


def test_a_listener_that_nobody_asks_drops_everything_and_says_so(client: Any, redis_url: str) -> None:
    listener = Listener(connect_redis(redis_url))
    try:
        assert listener.get(10.0) is MISSED
        one = Broadcast(told=Told.CHANGED, camera_id="cam", version=1).model_dump_json()
        last = Broadcast(told=Told.CHANGED, camera_id="last", version=1)
        pipe = client.pipeline(transaction=False)
        for _ in range(WAITING_MAX + 1):
            pipe.publish(CHANNEL, one)
        pipe.execute()
        publish(client, last)
        client.publish(CHANNEL, b"the end")
        assert eventually(lambda: listener.undecodable == 1)
        assert [listener.get(0.1) for _ in range(3)] == [MISSED, last, None]
    finally:
        listener.close()
