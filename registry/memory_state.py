"""Live ownership state in the memory of one registry, where Redis only carries broadcasts.

The same promises as `nodeagent.infra.ownership.port` makes for Redis, without keys that expire: the registry that holds
the state is the only one that changes it.  After a restart it is empty, and is rebuilt from the database and from what
nodes report, like a Redis that was flushed.  Epochs are above the wall clock in ms as well as above every known one, so
they grow through that too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from nodeagent.contract.errors import Fenced, Unavailable
from nodeagent.contract.ids import NS_PER_MS, CameraId, NodeId
from nodeagent.contract.ownership import Broadcast, Incarnation, Owner, TaskPhase, TaskStatus, Told
from nodeagent.infra.clock import Clock
from nodeagent.infra.ownership.port import LEADER_MS, Term, best_remembered

log = logging.getLogger(__name__)

#: No epoch reaches this one.
EPOCH_LIMIT = 2**63


class MemoryLeader:
    """`Leader` in memory: for registries of one process, which is one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._term: Term | None = None
        self._token = 0
        self._until_s = 0.0

    def acquire(self, registry_id: NodeId, known: int = 0, ttl_ms: int = LEADER_MS) -> Term | None:
        """Begin a term, or go on with the own one; see the port."""
        with self._lock:
            term = self._leading()
            if term is not None and term.registry_id != registry_id:
                return None
            if term is None or known > term.token:
                self._token = max(known, self._token, self._clock.wall_ns() // NS_PER_MS) + 1
                term = self._term = Term(registry_id=registry_id, token=self._token)
            self._until_s = self._clock.monotonic_s() + ttl_ms / 1000
            return term

    def renew(self, term: Term, ttl_ms: int = LEADER_MS) -> bool:
        """Go on leading; see the port."""
        with self._lock:
            if self._term != term:
                return False
            self._until_s = self._clock.monotonic_s() + ttl_ms / 1000
            return True

    def resign(self, term: Term) -> None:
        """End the term."""
        with self._lock:
            if self._term == term:
                self._term = None

    def leads(self, term: Term) -> bool:
        """Whether this term goes on now."""
        with self._lock:
            return self._leading() == term

    def _leading(self) -> Term | None:
        return self._term if self._clock.monotonic_s() < self._until_s else None


class MemoryState:
    """`LiveState` in memory.

    `tell` publishes a broadcast.  One that cannot be published is lost, as broadcasts may be: whoever misses it asks
    the registry within two seconds.
    """

    def __init__(self, leader: MemoryLeader, clock: Clock, tell: Callable[[Broadcast], object]) -> None:
        self._leader, self._clock, self._publish = leader, clock, tell
        self._lock = threading.Lock()
        self._statuses: dict[CameraId, TaskStatus] = {}
        #: Keys only, in the order in which they came.
        self._pool: dict[CameraId, None] = {}
        self._cameras: dict[NodeId, set[CameraId]] = {}

    def grant(
        self, term: Term, camera_id: CameraId, node_id: NodeId, incarnation: Incarnation, known: int = 0
    ) -> Owner:
        """Make this node the owner and tell everyone; see the port."""
        with self._lock:
            self._check(term, camera_id)
            last = self._owner(camera_id)
            if last is not None and self._owned(camera_id) and known <= last.epoch:
                mine = Owner(node_id=node_id, incarnation=incarnation, epoch=last.epoch)
                if last == mine:
                    return last
            epoch = max(known, last.epoch if last else 0, self._now_ms()) + 1
            if epoch >= EPOCH_LIMIT:
                raise Fenced(f"{camera_id}: no epoch is left above {known}")
            owner = Owner(node_id=node_id, incarnation=incarnation, epoch=epoch)
            self._put(camera_id, TaskPhase.OWNED, owner)
        self._tell(Told.GRANTED, camera_id, node_id, epoch)
        return owner

    def evict(self, term: Term, camera_id: CameraId, expected: Owner) -> bool:
        """Take a camera from its owner into the pool; see the port."""
        with self._lock:
            self._check(term, camera_id)
            if self._owner(camera_id) != expected:
                return False
            if not self._owned(camera_id):
                return True
            self._put(camera_id, TaskPhase.POOLED, expected)
        self._tell(Told.STOP, camera_id, expected.node_id, expected.epoch)
        self._tell(Told.POOLED, camera_id)
        return True

    def release(self, camera_id: CameraId, owner: Owner) -> bool:
        """Hand a camera back; see the port."""
        with self._lock:
            if self._owner(camera_id) != owner:
                return False
            if not self._owned(camera_id):
                return True
            self._put(camera_id, TaskPhase.POOLED, owner)
        self._tell(Told.POOLED, camera_id)
        return True

    def offer(self, term: Term, cameras: Iterable[CameraId]) -> int:
        """Put unknown cameras into the pool; see the port."""
        put = []
        with self._lock:
            self._check(term, "offer")
            for camera_id in cameras:
                if camera_id not in self._statuses:
                    self._put(camera_id, TaskPhase.POOLED, None)
                    put.append(camera_id)
        for camera_id in put:
            self._tell(Told.POOLED, camera_id)
        return len(put)

    def forget(self, term: Term, camera_id: CameraId) -> None:
        """Drop a camera; see the port."""
        with self._lock:
            self._check(term, camera_id)
            last = self._owner(camera_id)
            self._remove(camera_id)
            self._statuses.pop(camera_id, None)
        if last is not None:
            self._tell(Told.STOP, camera_id, last.node_id, last.epoch)

    def rebuild(self, term: Term, remembered: Iterable[tuple[CameraId, TaskStatus]]) -> int:
        """Restore what a restart lost; see the port."""
        changed = 0
        with self._lock:
            self._check(term, "rebuild")
            for camera_id, status in best_remembered(remembered).items():
                last = self._owner(camera_id)
                epoch = status.owner.epoch if status.owner else 0
                if camera_id not in self._statuses or epoch > (last.epoch if last else 0):
                    self._put(camera_id, status.phase if status.owner else TaskPhase.POOLED, status.owner)
                    changed += 1
        return changed

    def statuses(self) -> dict[CameraId, TaskStatus]:
        """Status of every camera."""
        with self._lock:
            return dict(self._statuses)

    def pool(self) -> list[CameraId]:
        """Cameras that nobody owns, the one that waits longest first."""
        with self._lock:
            return list(self._pool)

    def loads(self) -> dict[NodeId, int]:
        """How many cameras each node owns."""
        with self._lock:
            return {node_id: len(cameras) for node_id, cameras in self._cameras.items()}

    def owned_by(self, node_id: NodeId, incarnation: Incarnation) -> dict[CameraId, Owner]:
        """Cameras that this life of a node owns."""
        with self._lock:
            owners = {camera_id: self._owner(camera_id) for camera_id in self._cameras.get(node_id, ())}
            return {c: owner for c, owner in owners.items() if owner is not None and owner.incarnation == incarnation}

    # --- with the lock held

    def _check(self, term: Term, what: str) -> None:
        if not self._leader.leads(term):
            raise Fenced(f"{what}: term {term} is over")

    def _now_ms(self) -> int:
        return self._clock.wall_ns() // NS_PER_MS

    def _owner(self, camera_id: CameraId) -> Owner | None:
        status = self._statuses.get(camera_id)
        return status.owner if status else None

    def _owned(self, camera_id: CameraId) -> bool:
        status = self._statuses.get(camera_id)
        return status is not None and status.phase is TaskPhase.OWNED

    def _put(self, camera_id: CameraId, phase: TaskPhase, owner: Owner | None) -> None:
        self._remove(camera_id)
        self._statuses[camera_id] = TaskStatus(phase=phase, owner=owner, since_ms=self._now_ms())
        if phase is TaskPhase.OWNED and owner is not None:
            self._cameras.setdefault(owner.node_id, set()).add(camera_id)
        else:
            self._pool[camera_id] = None

    def _remove(self, camera_id: CameraId) -> None:
        """Take it out of the pool and from its owner."""
        self._pool.pop(camera_id, None)
        last = self._owner(camera_id)
        if last is not None and self._owned(camera_id):
            cameras = self._cameras[last.node_id]
            cameras.discard(camera_id)
            if not cameras:
                del self._cameras[last.node_id]

    # --- without the lock

    def _tell(self, told: Told, camera_id: CameraId, node_id: NodeId = "", epoch: int = 0) -> None:
        try:
            self._publish(Broadcast(told=told, camera_id=camera_id, node_id=node_id, epoch=epoch))
        except Unavailable as exc:
            log.debug("broadcast of %s: %s", camera_id, exc)
