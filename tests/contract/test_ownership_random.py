"""Random histories of ownership on a real Redis: two registries, three nodes, lost terms, lost keys, lost everything.

After every step: epochs of a camera strictly grow, a key names the owner that the status names, no camera is twice in
the pool or in none, and loads are what nodes own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from nodeagent.contract.errors import Fenced
from nodeagent.contract.ids import CameraId
from nodeagent.contract.ownership import LOCK_PREFIX, Owner, TaskPhase, TaskStatus
from nodeagent.infra.ownership.absences import GONE_S
from nodeagent.infra.ownership.leases import Leases
from nodeagent.infra.ownership.pool import Claims
from nodeagent.infra.ownership.port import Standing, Term
from nodeagent.infra.ownership.prelude import LEADER_KEY
from nodeagent.infra.redis import connect_redis
from tests.support.fake_processes import TurnedClock
from tests.support.ownership import World, camera_ids, life, owned, pooled, redis_world

pytestmark = pytest.mark.services

CAMERAS = camera_ids(6)
STEPS = 250


class Node:
    """An agent: what it believes that it owns, until it reads otherwise."""

    def __init__(self, client: Any, node_id: str, draw: random.Random) -> None:
        self.node_id, self.incarnation, self.clock = node_id, life(), TurnedClock()
        self.leases = Leases(client)
        self.claims = Claims(client, node_id, self.incarnation, self.clock, draw)
        self.held: dict[CameraId, Owner] = {}


class History:
    """One random run; `granted` is every owner that there ever was, by camera, as a database would know it."""

    def __init__(self, client: Any, world: World, seed: int) -> None:
        self.client, self.world, self.draw = client, world, random.Random(seed)
        self.nodes = [Node(client, f"n{i}", self.draw) for i in range(3)]
        self.terms: dict[str, Term] = {}
        self.granted: dict[CameraId, list[Owner]] = {camera_id: [] for camera_id in CAMERAS}
        self.fenced = 0

    def step(self) -> None:
        """Do something, and check what always holds."""
        steps = [self.grant] * 5 + [self.evict] * 3 + [self.renew] * 3 + [self.claim] * 2 + [self.release] * 2
        steps += [self.change_leader, self.lose_keys, self.lose_a_life, self.flush]
        try:
            self.draw.choice(steps)()
        except Fenced:
            self.fenced += 1
        self.check()

    def check(self) -> None:
        """What always holds."""
        self.world.check()
        statuses = self.world.state.statuses()
        assert set(self.world.state.pool()) | {c for c, s in statuses.items() if s.phase == "owned"} == set(statuses)
        for camera_id, key in self.nodes[0].leases.holders(list(statuses)).items():
            assert statuses[camera_id] == statuses[camera_id].model_copy(
                update={"phase": TaskPhase.OWNED, "owner": key}
            )
        for camera_id, owners in self.granted.items():
            assert camera_id not in statuses or not owners or statuses[camera_id].owner in {owners[-1], None}

    def learn(self, camera_id: CameraId, owner: Owner, node: Node) -> None:
        """A grant was answered: a new epoch is above all before it."""
        owners = self.granted[camera_id]
        if owner not in owners:
            assert not owners or owner.epoch > owners[-1].epoch
            owners.append(owner)
        node.held[camera_id] = owner

    def term(self) -> Term:
        """Of any registry, which may have lost its lead long ago."""
        registry_id = self.draw.choice(["one", "two"])
        term = self.terms.get(registry_id) or self.world.leader.acquire(registry_id)
        if term is None:
            raise Fenced("somebody else leads")
        self.terms[registry_id] = term
        return term

    def change_leader(self) -> None:
        if self.draw.random() < 0.5:
            self.client.delete(LEADER_KEY)
        for registry_id in self.draw.sample(["one", "two"], 2):
            term = self.world.leader.acquire(registry_id)
            if term is not None:
                assert all(term == known or term.token > known.token for known in self.terms.values())
                self.terms[registry_id] = term

    def grant(self) -> None:
        node, camera_id = self.draw.choice(self.nodes), self.draw.choice(CAMERAS)
        self.learn(camera_id, self.world.state.grant(self.term(), camera_id, node.node_id, node.incarnation), node)

    def evict(self) -> None:
        camera_id = self.draw.choice(CAMERAS)
        if self.granted[camera_id]:
            self.world.state.evict(self.term(), camera_id, self.draw.choice(self.granted[camera_id][-2:]))

    def release(self) -> None:
        node = self.draw.choice(self.nodes)
        if node.held:
            camera_id = self.draw.choice(sorted(node.held))
            node.leases.release(camera_id, node.held.pop(camera_id))

    def renew(self) -> None:
        node = self.draw.choice(self.nodes)
        for camera_id, renewal in node.leases.renew(node.held).items():
            if renewal.standing is Standing.HELD:
                assert node.held[camera_id] == self.granted[camera_id][-1]
            elif renewal.standing is not Standing.UNKNOWN:
                del node.held[camera_id]

    def claim(self) -> None:
        node = self.draw.choice(self.nodes)
        node.claims.alive()
        for camera_id, owner in node.claims.take(self.known, 2).items():
            self.learn(camera_id, owner, node)

    def known(self, camera_id: CameraId) -> int:
        return max((owner.epoch for owner in self.granted[camera_id]), default=0)

    def lose_keys(self) -> None:
        """Keys run out, and somebody notices."""
        self.client.delete(*(LOCK_PREFIX + camera_id for camera_id in self.draw.sample(CAMERAS, 2)))
        claims, clock = self.nodes[0].claims, self.nodes[0].clock
        claims.reclaim()
        clock.now_s += GONE_S
        claims.reclaim()

    def lose_a_life(self) -> None:
        """An agent is started anew and remembers nothing."""
        node = self.draw.choice(self.nodes)
        self.nodes[self.nodes.index(node)] = Node(self.client, node.node_id, self.draw)

    def flush(self) -> None:
        """Everything is lost, and a leader rebuilds it from what it knows and what nodes report."""
        if self.draw.random() < 0.7:
            return
        self.client.flushall()
        known = max((term.token for term in self.terms.values()), default=0)
        self.terms = {"one": _begun(self.world, known)}
        memories: list[tuple[CameraId, TaskStatus]] = [
            (camera_id, pooled(owners[-1] if owners else None)) for camera_id, owners in self.granted.items()
        ]
        memories += [(c, owned(owner)) for node in self.nodes for c, owner in node.held.items()]
        self.draw.shuffle(memories)
        self.world.state.rebuild(self.terms["one"], memories)
        for camera_id, owners in self.granted.items():
            found = self.world.state.statuses()[camera_id].owner
            assert found == (owners[-1] if owners else None), "no epoch went back"


def _begun(world: World, known: int) -> Term:
    term = world.leader.acquire("one", known=known)
    assert term is not None
    return term


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    made = connect_redis(redis_url)
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_epochs_grow_and_the_books_balance(redis_url: str, client: Any, seed: int) -> None:
    world = redis_world(redis_url)
    history = History(client, world, seed)
    for _ in range(STEPS):
        history.step()
    world.close()
    assert history.fenced, "no stale leader tried anything"
    assert sum(len(owners) for owners in history.granted.values()) > 20
