"""Live ownership state for tests: on a real Redis and in memory, with what was broadcast."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import Broadcast, Owner, TaskPhase, TaskStatus
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.ownership.broadcasts import Listener
from nodeagent.infra.ownership.grants import RedisState
from nodeagent.infra.ownership.leader import RedisLeader
from nodeagent.infra.ownership.port import Leader, LiveState, Term
from nodeagent.infra.redis import connect_redis
from registry.memory_state import MemoryLeader, MemoryState
from tests.support.eventually import eventually


def life() -> str:
    """An incarnation that nobody had before."""
    return secrets.token_hex(8)


def owned(owner: Owner) -> TaskStatus:
    """What a node says that serves a camera."""
    return TaskStatus(phase=TaskPhase.OWNED, owner=owner, since_ms=1)


def pooled(owner: Owner | None) -> TaskStatus:
    """What a database says of a camera without an owner."""
    return TaskStatus(phase=TaskPhase.POOLED, owner=owner, since_ms=1)


@dataclass
class World:
    """State, leader, and everything that was broadcast.

    Attributes:
        lose: forgets all of it, as FLUSHALL or a restart of a registry does.
        poll: the next thing that was broadcast, if it has arrived.
    """

    state: LiveState
    leader: Leader
    lose: Callable[[], None]
    poll: Callable[[], Broadcast | None]
    close: Callable[[], None] = field(default=lambda: None)

    def term(self, registry_id: NodeId = "registry-1") -> Term:
        """The term of a registry that leads, or begins to."""
        term = self.leader.acquire(registry_id)
        assert term is not None
        return term

    def heard(self, term: Term) -> list[Broadcast]:
        """Everything that was broadcast since the last call: all that comes before a mark of its own."""
        mark, found = f"mark-{life()}", list[Broadcast]()
        self.state.offer(term, [mark])
        while (got := eventually(self.poll)) is not None and got.camera_id != mark:
            found.append(got)
        self.state.forget(term, mark)
        return found

    def check(self) -> None:
        """What holds at any time: each camera is owned or once in the pool, and loads are what nodes own."""
        statuses = self.state.statuses()
        waiting = [camera_id for camera_id, status in statuses.items() if status.phase is TaskPhase.POOLED]
        assert sorted(self.state.pool()) == sorted(waiting)
        owners = {c: status.owner for c, status in statuses.items() if status.phase is TaskPhase.OWNED}
        assert self.state.loads() == Counter(owner.node_id for owner in owners.values() if owner is not None)
        for node_id, incarnation in {(o.node_id, o.incarnation) for o in owners.values() if o is not None}:
            mine = {c: o for c, o in owners.items() if o and (o.node_id, o.incarnation) == (node_id, incarnation)}
            assert self.state.owned_by(node_id, incarnation) == mine


def redis_world(url: str) -> World:
    """State on a Redis that is empty."""
    client: Any = connect_redis(url)
    listener = Listener(connect_redis(url))
    eventually(lambda: listener.connected)

    def poll() -> Broadcast | None:
        while (got := listener.get(0.0)) is not None:
            if isinstance(got, Broadcast):
                return got
        return None

    def lose() -> None:
        client.flushall()

    def close() -> None:
        listener.close()
        client.close()

    return World(RedisState(client), RedisLeader(client), lose, poll, close)


def memory_world() -> World:
    """State in memory."""
    told: deque[Broadcast] = deque()
    clock = SystemClock()

    def poll() -> Broadcast | None:
        return told.popleft() if told else None

    def lose() -> None:
        world.leader = leader = MemoryLeader(clock)
        world.state = MemoryState(leader, clock, told.append)

    leader = MemoryLeader(clock)
    world = World(MemoryState(leader, clock, told.append), leader, lose, poll)
    return world


def camera_ids(count: int) -> list[CameraId]:
    """So many cameras."""
    return [f"cam-{number:02}" for number in range(count)]
