"""Strategy `claim`: agents take cameras from the task pool themselves, and return those of the dead, with no registry.

A claim is the registry's grant without its leader: the script takes the camera's key only if nobody holds it, and only
if no live node is lighter (see `scripts.CLAIM`).  The key expires; a claim that was lost is tried again at the next
turn.  The lock of this process keeps two of its threads from claiming at a time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import Any

import redis

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import LEASE_S, Incarnation, Owner, TaskPhase
from nodeagent.infra.clock import Clock
from nodeagent.infra.ownership.absences import Absences
from nodeagent.infra.ownership.grants import RedisState
from nodeagent.infra.ownership.leases import Leases
from nodeagent.infra.ownership.running import Scripts

#: How long a node counts as alive after it said so, ms; as long as a registry believes in a silent one.
ALIVE_MS = int(LEASE_S * 1000)


class Claims:
    """What one life of an agent takes from the pool."""

    def __init__(
        self,
        client: redis.Redis,
        node_id: NodeId,
        incarnation: Incarnation,
        clock: Clock,
        draw: random.Random | None = None,
    ) -> None:
        self._node_id, self._incarnation, self._clock = node_id, incarnation, clock
        self._scripts = Scripts(client)
        self._state = RedisState(client)
        self._leases = Leases(client)
        self._absences = Absences()
        self._draw = draw or random.Random()
        self._application_lock = threading.Lock()

    def alive(self) -> None:
        """Say that this node takes cameras; others wait for it, for ALIVE_MS, when it is the lighter one.

        Raises:
            Unavailable: Redis is away.
        """
        self._scripts.run("alive", self._node_id, ALIVE_MS)

    def leave(self) -> None:
        """Say that this node takes no more; others need not wait for it.

        Raises:
            Unavailable: Redis is away.
        """
        self._scripts.run("alive", self._node_id, 0)

    def take(self, known: Callable[[CameraId], int], limit: int, ahead: int = 0) -> dict[CameraId, Owner]:
        """Take up to `limit` cameras from the pool, as far as no live node is lighter.

        `known` gives the highest epoch that this node has seen of a camera, 0 for none.  `ahead` is how many cameras
        more than the lightest live node this one may have: more than 0 only for cameras that nobody lighter took in a
        good while.

        Raises:
            Unavailable: Redis is away; some may have been taken, `owned_by` tells which.
        """
        taken: dict[CameraId, Owner] = {}
        with self._application_lock:
            waiting = self._state.pool()
            # Each agent in its own order, so that few try for the same camera.
            self._draw.shuffle(waiting)
            for camera_id in waiting:
                if len(taken) >= limit:
                    break
                word, owner = self._claim(camera_id, known(camera_id), ahead)
                if word == b"granted":
                    taken[camera_id] = Owner.parse(owner)
                elif word == b"heavier":
                    break
        return taken

    def restore(self, held: Mapping[CameraId, Owner]) -> int:
        """Say anew that this node owns what it serves, after a renewal found that Redis does not know it any more.

        For as long as no registry rebuilds the state, nor deletes cameras.  Nothing is taken from who owns a camera by
        an epoch that is not lower.  Returns how many cameras were restored.

        Raises:
            Unavailable: Redis is away; some may have been restored.
        """
        rows = [(camera_id, TaskPhase.OWNED.value, str(owner)) for camera_id, owner in held.items()]
        return int(self._scripts.run("rebuild", "", *(text for row in rows for text in row))) if rows else 0

    def reclaim(self) -> list[CameraId]:
        """Return cameras whose key has been gone for long enough to the pool; call it every few seconds.

        Any number of agents may do so at a time: a camera is returned once.

        Raises:
            Unavailable: Redis is away; how long keys have been gone is counted anew.
        """
        try:
            statuses = self._state.statuses()
            owned = {c: s.owner for c, s in statuses.items() if s.phase is TaskPhase.OWNED and s.owner is not None}
            held = self._leases.holders(list(owned))
            gone = {camera_id: owner for camera_id, owner in owned.items() if camera_id not in held}
            due = self._absences.look(gone, self._clock.monotonic_s())
            return [c for c, owner in due.items() if self._scripts.run("take back", "", c, owner, 1) == b"done"]
        except Unavailable:
            self._absences.reset()
            raise

    def _claim(self, camera_id: CameraId, known: int, ahead: int) -> tuple[bytes, str]:
        answer: list[Any] = self._scripts.run("claim", camera_id, self._node_id, self._incarnation, known, ahead)
        return answer[0], answer[1].decode() if len(answer) > 1 else ""
