"""Puts the core together: memory, clerk, loop and desk around one database and, where there is one, one Redis."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
from sqlalchemy import Engine

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import Broadcast, Owner, Told
from nodeagent.infra.bus.rabbitmq_consumers import Consumers
from nodeagent.infra.clock import Clock
from nodeagent.infra.ownership.broadcasts import publish
from nodeagent.infra.ownership.grants import RedisState
from nodeagent.infra.ownership.leader import RedisLeader
from nodeagent.infra.ownership.leases import Leases
from nodeagent.infra.ownership.port import LEADER_MS, Leader, LiveState
from nodeagent.infra.redis import connect_redis
from registry.brake import USUAL, Limits
from registry.core.asked import Asked
from registry.core.catalogue import Catalogue
from registry.core.clerk import Clerk, Shelves
from registry.core.desk import Desk
from registry.core.exchange import Exchange
from registry.core.leading import Office
from registry.core.loop import RENEW_S, Identity, Loop
from registry.core.site import Site
from registry.core.witnesses import Broker, Witnesses
from registry.memory_state import MemoryLeader, MemoryState
from registry.rebalance import PART_PER_MINUTE
from registry.secrets import Vault
from registry.store.assignments import Assignments
from registry.store.cameras import Cameras
from registry.store.epochs import Epochs
from registry.store.nodes import Nodes

log = logging.getLogger(__name__)

#: Changed cameras that are told of one by one.  Of more, agents hear from the answers to their reports.
CHANGED_MOST = 200
#: Broadcasts that wait for a Redis that is slow; further ones are dropped, which costs their agents two seconds.
TELL_MOST = 1_000
#: Seconds since the loop's last whole turn within which the leader's lock that it saw cannot have run out.
SURE_S = LEADER_MS / 1000 - RENEW_S
#: Seconds that broadcasts have which wait at the end.
TELL_END_S = 2.0


class Teller:
    """Publishes broadcasts in a thread of its own, so that a Redis that only carries them holds nobody up."""

    def __init__(self, client: redis.Redis | None) -> None:
        """Without a client nothing is told: agents find out by asking."""
        self._client = client
        self._queue: queue.Queue[Broadcast | None] = queue.Queue(TELL_MOST)
        self._thread = threading.Thread(target=self._run, name="teller", daemon=True)
        self._thread.start()

    def tell(self, broadcast: Broadcast) -> None:
        """Have it published, unless too many wait."""
        try:
            self._queue.put_nowait(broadcast)
        except queue.Full:
            log.debug("broadcast of %s dropped: too many wait", broadcast.camera_id)

    def close(self) -> None:
        """Publish what waits, as far as Redis takes it now, and end."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            log.debug("broadcasts that wait are dropped")
        self._thread.join(TELL_END_S)

    def _run(self) -> None:
        while (broadcast := self._queue.get()) is not None:
            if self._client is None:
                continue
            try:
                publish(self._client, broadcast)
            except Unavailable as exc:
                log.debug("broadcast of %s: %s", broadcast.camera_id, exc)
            except Exception:
                # The outermost line of the thread: one broadcast that fails must not end all that follow.
                log.exception("a broadcast failed", extra={"event": "broadcast_failed"})


@dataclass(slots=True)
class Assembled:
    """The core's parts.  Whoever made it runs `clerk.run` and `loop.run` in a thread each."""

    office: Office
    clerk: Clerk
    loop: Loop
    desk: Desk
    teller: Teller
    engine: Engine
    _clients: list[Any] = field(default_factory=list)

    def close(self) -> None:
        """Let go of all connections; both threads have ended."""
        self.teller.close()
        for client in self._clients:
            client.close()
        self.engine.dispose()


def assemble(
    *,
    registry_id: NodeId,
    engine: Engine,
    vault: Vault,
    clock: Clock,
    redis_url: str | None,
    bus_url: str | None = None,
    shared: bool,
    limits: Limits = USUAL,
    places: bool = True,
    evens: float = PART_PER_MINUTE,
) -> Assembled:
    """Make the core; nothing runs yet, and nothing is connected.

    Args:
        registry_id: name of this registry.
        engine: the database, migrated.
        vault: keys of stream credentials.
        clock: the clock.
        redis_url: none: there is no Redis, and nothing is broadcast.
        bus_url: none: no RabbitMQ is asked for silent nodes.
        shared: whether live state is in Redis, for several registries, or in this process.
        limits: how long silence of nodes is borne.
        places: whether the registry gives cameras to nodes (strategy `broadcast`).
        evens: part of all cameras that it moves per minute until nodes are equally full; 0: it moves none.

    Raises:
        ConfigError: that is no URL of a Redis, or of a RabbitMQ.
    """
    identity = Identity(registry_id, secrets.token_hex(8))
    # Connections of their own for broadcasts, live state and exchange.
    clients = [connect_redis(redis_url) for _ in range(3)] if redis_url is not None else []
    teller = Teller(clients[0] if clients else None)
    epochs = Epochs(engine)
    site = Site(epochs, clock.monotonic_s(), limits)
    catalogue = Catalogue(Cameras(engine, vault))
    shelves = Shelves(catalogue, epochs, Assignments(engine), Nodes(engine))
    state, leader = _live(clients[1] if shared and clients else None, clock, teller)
    loop: Loop

    def live() -> Mapping[CameraId, Owner] | None:
        # After a stop of this process the clerk may wake before the loop does, which finds out that another one leads.
        is_sure = loop.leads and not loop.trouble and clock.monotonic_s() - loop.turned_s < SURE_S
        return site.owners() if is_sure else None

    clerk = Clerk(shelves, clock, site.served, lambda changed: _tell_changed(teller, changed), live)
    office = Office(site, state, catalogue, clerk, clock, places, evens)
    exchange = Exchange(clients[2], registry_id, identity.life) if shared and clients else None
    keys = Leases(clients[1]) if shared and clients else None
    broker = Broker(Consumers(bus_url), clock) if bus_url is not None else None
    loop = Loop(identity, office, leader, exchange, Witnesses(keys, broker))
    desk = Desk(loop, office, shelves.nodes, Asked(site, catalogue))
    return Assembled(office, clerk, loop, desk, teller, engine, [*clients, *filter(None, [broker])])


def _live(client: redis.Redis | None, clock: Clock, teller: Teller) -> tuple[LiveState, Leader]:
    if client is not None:
        return RedisState(client), RedisLeader(client)
    leader = MemoryLeader(clock)
    return MemoryState(leader, clock, teller.tell), leader


def _tell_changed(teller: Teller, changed: Mapping[CameraId, int]) -> None:
    for camera_id, version in sorted(changed.items())[:CHANGED_MOST]:
        teller.tell(Broadcast(told=Told.CHANGED, camera_id=camera_id, version=version))
