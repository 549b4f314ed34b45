"""What live ownership state promises (`infra.ownership.port`), on a real Redis and in the memory of one registry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from nodeagent.contract.errors import Fenced
from nodeagent.contract.ownership import Owner, TaskPhase, TaskStatus, Told
from nodeagent.infra.ownership.port import Term
from tests.support.eventually import eventually
from tests.support.ownership import World, life, memory_world, owned, pooled, redis_world

pytestmark = pytest.mark.services

A, B = life(), life()


@pytest.fixture(params=["redis", "memory"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = redis_world(request.getfixturevalue("redis_url")) if request.param == "redis" else memory_world()
    yield made
    made.check()
    made.close()


@pytest.fixture
def term(world: World) -> Term:
    return world.term()


def test_a_grant_is_seen_everywhere_and_told(world: World, term: Term) -> None:
    before_ms = time.time_ns() // 1_000_000
    world.state.offer(term, ["cam", "other"])
    owner = world.state.grant(term, "cam", "n1", A)
    assert (owner.node_id, owner.incarnation) == ("n1", A)
    assert before_ms < owner.epoch <= time.time_ns() // 1_000_000 + 2
    status = world.state.statuses()["cam"]
    assert (status.phase, status.owner) == (TaskPhase.OWNED, owner)
    assert before_ms <= status.since_ms <= time.time_ns() // 1_000_000
    assert world.state.pool() == ["other"]
    assert world.state.loads() == {"n1": 1}
    assert world.state.owned_by("n1", A) == {"cam": owner}
    assert world.state.owned_by("n1", B) == {}
    told = [(b.told, b.camera_id, b.node_id, b.epoch) for b in world.heard(term)]
    assert told == [
        (Told.POOLED, "cam", "", 0),
        (Told.POOLED, "other", "", 0),
        (Told.GRANTED, "cam", "n1", owner.epoch),
    ]


@pytest.mark.parametrize("known", [2**53 + 1, 1_999_999_999_999_999, 10**18 - 1, 2**62, 2**63 - 2])
def test_an_epoch_follows_the_highest_known_exactly(world: World, term: Term, known: int) -> None:
    assert world.state.grant(term, "cam", "n1", A, known).epoch == known + 1


def test_an_epoch_follows_the_one_of_the_last_owner(world: World, term: Term) -> None:
    last = Owner(node_id="n1", incarnation=A, epoch=2**60)
    world.state.rebuild(term, [("waiting", pooled(last)), ("owned", owned(last))])
    for camera_id in ("waiting", "owned"):
        assert world.state.grant(term, camera_id, "n2", B).epoch == 2**60 + 1


def test_after_the_last_epoch_nothing_is_granted(world: World, term: Term) -> None:
    with pytest.raises(Fenced, match="no epoch is left"):
        world.state.grant(term, "cam", "n1", A, 2**63 - 1)
    assert world.state.statuses() == {}
    last = world.state.grant(term, "cam", "n1", A, 2**63 - 2)
    with pytest.raises(Fenced, match="no epoch is left"):
        world.state.grant(term, "cam", "n2", B)
    assert world.state.owned_by("n1", A) == {"cam": last}


def test_an_owner_that_is_granted_again_keeps_its_epoch(world: World, term: Term) -> None:
    first = world.state.grant(term, "cam", "n1", A)
    assert world.state.grant(term, "cam", "n1", A) == first
    assert world.state.grant(term, "cam", "n1", A, known=first.epoch) == first
    assert [b.told for b in world.heard(term)] == [Told.GRANTED]
    passed = world.state.grant(term, "cam", "n1", A, known=first.epoch + 5)
    assert passed.epoch >= first.epoch + 6
    assert world.state.loads() == {"n1": 1}


def test_another_life_of_the_node_gets_another_epoch(world: World, term: Term) -> None:
    first = world.state.grant(term, "cam", "n1", A)
    second = world.state.grant(term, "cam", "n1", B)
    assert second.epoch > first.epoch
    assert world.state.loads() == {"n1": 1}
    assert world.state.owned_by("n1", A) == {}


def test_a_moved_camera_leaves_nothing_behind(world: World, term: Term) -> None:
    first = world.state.grant(term, "cam", "n1", A)
    second = world.state.grant(term, "cam", "n2", B)
    assert second.epoch > first.epoch
    assert world.state.loads() == {"n2": 1}
    assert world.state.owned_by("n1", A) == {}
    assert not world.state.evict(term, "cam", first)
    assert not world.state.release("cam", first)
    assert world.state.owned_by("n2", B) == {"cam": second}


def test_an_evicted_camera_waits_once_and_remembers_its_epoch(world: World, term: Term) -> None:
    owner = world.state.grant(term, "cam", "n1", A)
    world.heard(term)
    for _ in range(2):
        assert world.state.evict(term, "cam", owner)
    assert world.state.pool() == ["cam"]
    status = world.state.statuses()["cam"]
    assert (status.phase, status.owner) == (TaskPhase.POOLED, owner)
    assert world.state.loads() == {}
    told = [(b.told, b.camera_id, b.node_id, b.epoch) for b in world.heard(term)]
    assert told == [(Told.STOP, "cam", "n1", owner.epoch), (Told.POOLED, "cam", "", 0)]
    again = world.state.grant(term, "cam", "n1", A)
    assert again.epoch > owner.epoch
    assert not world.state.evict(term, "cam", owner)


def test_a_released_camera_waits_and_nobody_is_told_to_stop(world: World, term: Term) -> None:
    owner = world.state.grant(term, "cam", "n1", A)
    world.heard(term)
    assert world.state.release("cam", owner)
    assert world.state.release("cam", owner)
    assert world.state.pool() == ["cam"]
    assert [b.told for b in world.heard(term)] == [Told.POOLED]
    assert not world.state.release("unknown", owner)


def test_only_unknown_cameras_are_offered(world: World, term: Term) -> None:
    world.state.grant(term, "owned", "n1", A)
    assert world.state.offer(term, ["b", "owned", "a", "b"]) == 2
    assert world.state.offer(term, ["a", "c"]) == 1
    assert world.state.pool() == ["b", "a", "c"]
    assert world.state.statuses()["c"].owner is None


def test_many_cameras_are_offered_and_rebuilt(world: World, term: Term) -> None:
    cameras = [f"cam-{number}" for number in range(1001)]
    assert world.state.offer(term, cameras) == 1001
    assert world.state.pool() == cameras
    owners = {c: Owner(node_id=f"n{i % 7}", incarnation=A, epoch=10 + i) for i, c in enumerate(cameras)}
    assert world.state.rebuild(term, [(c, owned(owner)) for c, owner in owners.items()]) == 1001
    assert {c: status.owner for c, status in world.state.statuses().items()} == owners
    assert world.state.pool() == []


def test_a_forgotten_camera_is_gone_and_its_owner_stops(world: World, term: Term) -> None:
    owner = world.state.grant(term, "cam", "n1", A)
    world.state.offer(term, ["waiting"])
    world.heard(term)
    for camera_id in ("cam", "waiting", "unknown", "cam"):
        world.state.forget(term, camera_id)
    assert (world.state.statuses(), world.state.pool(), world.state.loads()) == ({}, [], {})
    assert [(b.told, b.node_id, b.epoch) for b in world.heard(term)] == [(Told.STOP, "n1", owner.epoch)]


def test_a_stale_leader_changes_nothing(world: World, term: Term) -> None:
    state = world.state
    owner = state.grant(term, "cam", "n1", A)
    state.offer(term, ["waiting"])
    world.heard(term)
    before = (state.statuses(), state.pool(), state.loads())
    world.leader.resign(term)
    now = world.term("registry-2")
    assert now.token > term.token
    attempts: list[Callable[[Term], object]] = [
        lambda stale: state.grant(stale, "cam", "n2", B),
        lambda stale: state.evict(stale, "cam", owner),
        lambda stale: state.offer(stale, ["new"]),
        lambda stale: state.forget(stale, "cam"),
        lambda stale: state.rebuild(stale, [("cam", owned(owner.model_copy(update={"epoch": owner.epoch + 9})))]),
    ]
    for stale in (term, Term(registry_id="registry-2", token=term.token), Term(registry_id="x", token=now.token)):
        for attempt in attempts:
            with pytest.raises(Fenced):
                attempt(stale)
    assert (state.statuses(), state.pool(), state.loads()) == before
    assert world.heard(now) == []


def test_one_registry_leads_at_a_time(world: World) -> None:
    leader = world.leader
    first = world.term("one")
    assert leader.acquire("two") is None
    assert leader.acquire("one") == first
    assert leader.renew(first)
    leader.resign(first)
    assert not leader.renew(first)
    second = leader.acquire("two")
    assert second is not None
    assert second.token > first.token
    leader.resign(first)
    assert leader.acquire("one") is None
    leader.resign(second)
    ahead = leader.acquire("one", known=2**60)
    assert ahead is not None
    assert ahead.token == 2**60 + 1
    leader.resign(ahead)
    after = leader.acquire("two")
    assert after is not None
    assert after.token > ahead.token


def test_a_term_that_ran_out_goes_on_unless_somebody_led_since(world: World) -> None:
    leader = world.leader
    first = leader.acquire("one", ttl_ms=50)
    assert first is not None
    eventually(lambda: _over(world, first))
    assert leader.renew(first, ttl_ms=50)
    second = eventually(lambda: leader.acquire("two"))
    assert second is not None
    assert second.token > first.token
    assert not leader.renew(first)
    assert leader.renew(second)


def _over(world: World, term: Term) -> bool:
    try:
        world.state.rebuild(term, [])
    except Fenced:
        return True
    return False


def test_tokens_grow_through_the_loss_of_everything(world: World) -> None:
    first = world.term("one")
    world.lose()
    eventually(lambda: time.time_ns() // 1_000_000 > first.token)
    assert not world.leader.renew(first)
    second = world.term("one")
    assert second.token > first.token
    third = world.leader.acquire("one", known=second.token + 100)
    assert third is not None
    assert third.token == second.token + 101


LOW, HIGH = Owner(node_id="n1", incarnation=A, epoch=40), Owner(node_id="n2", incarnation=B, epoch=50)


@pytest.mark.parametrize(
    ("before", "remembered", "after", "changed"),
    [
        ([], [owned(LOW)], owned(LOW), 1),
        ([], [pooled(LOW)], pooled(LOW), 1),
        ([], [pooled(None)], pooled(None), 1),
        ([], [owned(LOW), owned(HIGH)], owned(HIGH), 1),
        ([], [owned(HIGH), owned(LOW)], owned(HIGH), 1),
        ([], [pooled(LOW), owned(LOW)], owned(LOW), 1),
        ([], [owned(LOW), pooled(HIGH)], pooled(HIGH), 1),
        ([], [pooled(None), owned(LOW)], owned(LOW), 1),
        ([owned(LOW)], [owned(HIGH)], owned(HIGH), 1),
        ([owned(HIGH)], [owned(LOW)], owned(HIGH), 0),
        ([owned(LOW)], [pooled(HIGH)], pooled(HIGH), 1),
        ([owned(HIGH)], [pooled(HIGH)], owned(HIGH), 0),
        ([pooled(HIGH)], [owned(HIGH)], pooled(HIGH), 0),
        ([pooled(HIGH)], [owned(LOW)], pooled(HIGH), 0),
        ([pooled(None)], [owned(LOW)], owned(LOW), 1),
        ([pooled(LOW)], [pooled(HIGH)], pooled(HIGH), 1),
    ],
)
def test_a_rebuild_takes_the_highest_epoch(
    world: World, term: Term, before: list[TaskStatus], remembered: list[TaskStatus], after: TaskStatus, changed: int
) -> None:
    world.state.rebuild(term, [("cam", status) for status in before])
    assert world.state.rebuild(term, [("cam", status) for status in remembered]) == changed
    for _ in range(2):
        found = world.state.statuses()["cam"]
        assert (found.phase, found.owner) == (after.phase, after.owner)
        world.check()
        assert world.state.rebuild(term, [("cam", status) for status in remembered]) == 0
    assert world.state.grant(term, "cam", "n3", A).epoch > 50
    assert [b.told for b in world.heard(term)] == [Told.GRANTED], "a rebuild tells nobody anything"


def test_everything_lost_is_rebuilt_without_moving_a_camera(world: World, term: Term) -> None:
    owners = {f"cam-{i}": world.state.grant(term, f"cam-{i}", f"n{i % 2}", A) for i in range(6)}
    evicted = owners.pop("cam-5")
    world.state.evict(term, "cam-5", evicted)
    before = {c: (s.phase, s.owner) for c, s in world.state.statuses().items()}
    world.lose()
    assert world.state.statuses() == {}
    reports = [(camera_id, owned(owner)) for camera_id, owner in owners.items()]
    database = [("cam-0", pooled(None)), ("cam-5", pooled(evicted)), ("cam-6", pooled(None))]
    again = world.term()
    world.state.rebuild(again, [*database, *reports])
    before["cam-6"] = (TaskPhase.POOLED, None)
    assert {c: (s.phase, s.owner) for c, s in world.state.statuses().items()} == before
    assert world.state.grant(again, "cam-5", "n1", A).epoch > evicted.epoch
