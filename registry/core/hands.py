"""Carries out, in the live state, what was decided, and notes it in memory and with the clerk.

Every deed is one script that checks the term.  Killed between the script and the note, this registry leaves a change
that is in Redis and nowhere else; the next one reads it there, and its audit writes it into the database.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from nodeagent.contract.ids import NS_PER_MS, CameraId, NodeId
from nodeagent.contract.ownership import Owner, TaskStatus
from nodeagent.infra.clock import Clock
from nodeagent.infra.ownership.port import LiveState, Term
from registry.core.clerk import Clerk
from registry.core.site import Site
from registry.store.assignments import End, Grant

log = logging.getLogger(__name__)

#: No epoch of ours comes near this one: they count on from the clock in ms, and a report may say little more.  A
#: database or a Redis that holds a higher one was written into by somebody else.
EPOCH_MOST = 2**62


class Hands:
    """What one term does.  Every deed raises Fenced when the term is over, and Unavailable when the state is away."""

    def __init__(self, term: Term, state: LiveState, site: Site, clerk: Clerk, clock: Clock) -> None:
        self._term, self._state = term, state
        self._site, self._clerk, self._clock = site, clerk, clock
        self._spent: set[CameraId] = set()

    def give(
        self,
        camera_id: CameraId,
        node_id: NodeId,
        incarnation: str,
        reason: str,
        explanation: Mapping[str, Any] | None = None,
    ) -> Owner | None:
        """Make a node the owner of a camera; None: there is no epoch left to give."""
        known = self._site.epochs.highest(camera_id)
        if known >= EPOCH_MOST:
            self._tell_spent(camera_id, known)
            return None
        owner = self._state.grant(self._term, camera_id, node_id, incarnation, known)
        wall_ns = self._clock.wall_ns()
        self._site.granted(camera_id, owner, reason, wall_ns // NS_PER_MS, self._clock.monotonic_s())
        self._clerk.granted(
            Grant(
                camera_id=camera_id,
                owner=owner,
                reason=reason,
                granted_ns=wall_ns,
                explanation=explanation or {},
            )
        )
        log.info(
            "camera %s: to %s with epoch %d (%s)", camera_id, node_id, owner.epoch, reason,
            extra={"event": "camera_granted", "camera": camera_id, "node": node_id, "epoch": owner.epoch},
        )  # fmt: skip
        return owner

    def take(self, camera_id: CameraId, owner: Owner, reason: str) -> bool:
        """Take a camera from its owner into the pool; False: somebody else owns it."""
        if not self._state.evict(self._term, camera_id, owner):
            return False
        wall_ns = self._clock.wall_ns()
        self._site.pooled(camera_id, owner, reason, wall_ns // NS_PER_MS)
        self._clerk.ended(End(camera_id=camera_id, epoch=owner.epoch, reason=reason, ended_ns=wall_ns))
        log.info(
            "camera %s: taken from %s (%s)", camera_id, owner.node_id, reason,
            extra={"event": "camera_pooled", "camera": camera_id, "node": owner.node_id, "epoch": owner.epoch},
        )  # fmt: skip
        return True

    def drop(self, camera_id: CameraId, reason: str) -> None:
        """Nobody is to serve a camera any more."""
        status = self._site.statuses.get(camera_id)
        self._state.forget(self._term, camera_id)
        self._site.forgotten(camera_id)
        if status is not None and status.owner is not None:
            ended_ns = self._clock.wall_ns()
            self._clerk.ended(End(camera_id=camera_id, epoch=status.owner.epoch, reason=reason, ended_ns=ended_ns))
        log.info("camera %s: %s", camera_id, reason, extra={"event": "camera_dropped", "camera": camera_id})

    def offer(self, cameras: Collection[CameraId], reason: str) -> None:
        """Put cameras that the state does not know into the pool."""
        if not cameras:
            return
        self._state.offer(self._term, cameras)
        wall_ms = self._clock.wall_ns() // NS_PER_MS
        for camera_id in cameras:
            self._site.pooled(camera_id, None, reason, wall_ms)

    def restore(self, lost: Mapping[CameraId, TaskStatus]) -> None:
        """Put back what the state lost."""
        changed = self._state.rebuild(self._term, lost.items())
        log.warning(
            "the live state lacked %d cameras or had them too old; %d were restored", len(lost), changed,
            extra={"event": "state_restored", "lost": len(lost), "restored": changed},
        )  # fmt: skip

    def _tell_spent(self, camera_id: CameraId, known: int) -> None:
        if camera_id not in self._spent:
            self._spent.add(camera_id)
            log.error(
                "camera %s: somebody told of epoch %d, which leaves none; give the camera another id", camera_id, known,
                extra={"event": "epochs_spent", "camera": camera_id},
            )  # fmt: skip
