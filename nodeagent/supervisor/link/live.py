"""What the link does in Redis in one turn: renews keys, reads what is ours, and takes cameras where nodes claim them.

Redis away changes nothing: the turn then ends without a word, and everything runs on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import redis

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import CameraId
from nodeagent.contract.ownership import LEASE_S, Owner
from nodeagent.infra.clock import Clock
from nodeagent.infra.ownership.leases import Leases
from nodeagent.infra.ownership.pool import Claims
from nodeagent.infra.ownership.port import Renewal, Standing
from nodeagent.infra.wanted import Grant
from nodeagent.supervisor.link.reconcile import Offer, Word, owners

log = logging.getLogger(__name__)

#: Cameras that are taken from the pool in one turn: captures that start together slow each other down.
TAKEN_AT_ONCE: Final = 20
#: A node that comes takes none for so long, seconds: others that start at the same time are known to be alive by then,
#: and share the pool with it.  The first one would take all.
OTHERS_COME_S: Final = LEASE_S


class Live:
    """Redis, as this life of the node uses it; for one thread.

    Attributes:
        trouble: why it is away; empty when it answers.
    """

    def __init__(self, client: redis.Redis, node_id: str, incarnation: str, clock: Clock, *, claims: bool) -> None:
        """`claims`: whether this node takes cameras from the pool."""
        self._node_id, self._incarnation = node_id, incarnation
        self._clock = clock
        self._takes_from_s: float | None = None
        self._leases = Leases(client)
        self._claims = Claims(client, node_id, incarnation, clock) if claims else None
        #: Cameras that were given back to the pool, and with which epoch they were ours.
        self._given: dict[CameraId, int] = {}
        self.trouble = ""

    def turn(
        self,
        held: Mapping[CameraId, Grant],
        offers: Mapping[CameraId, Offer],
        *,
        leaving: bool,
        alone: bool,
        ignorant: bool,
    ) -> Word | None:
        """Renew and read; None when Redis is away.

        Args:
            held: what is served.
            offers: what the registry lists.
            leaving: this node is about to stop.
            alone: no registry has answered for a while, so none will rebuild what Redis lost.
            ignorant: nobody has told yet how any camera is configured; the pool is left to nodes that know.
        """
        try:
            if self._claims is not None and not ignorant:
                self._claim(self._claims, held, leaving=leaving)
            keys = owners(self._node_id, self._incarnation, held, offers)
            renewals = self._leases.renew(keys)
            if self._claims is not None and alone and not leaving:
                self._restore(self._claims, {name: keys[name] for name in held if _is_lost(renewals[name])})
            # After the renewals: what was granted in between is in it.
            word = Word(renewals, self._leases.owned_by(self._node_id, self._incarnation))
        except Unavailable as exc:
            self._say(str(exc))
            return None
        self._say("")
        return word

    def release(self, held: Mapping[CameraId, Grant]) -> None:
        """Give what we hold back to the pool, each camera once; harmless for what is not ours any more.

        A node that comes back serves what it held until it reads another owner.
        """
        try:
            for camera_id, owner in owners(self._node_id, self._incarnation, held, {}).items():
                if self._given.get(camera_id) != owner.epoch:
                    self._leases.release(camera_id, owner)
                    self._given[camera_id] = owner.epoch
        except Unavailable as exc:
            self._say(str(exc))

    def _claim(self, claims: Claims, held: Mapping[CameraId, Grant], *, leaving: bool) -> None:
        """Take part in the sharing of the pool.

        Raises:
            Unavailable: Redis is away.
        """
        if leaving:
            # Nobody else moves our cameras: they go to the pool, and are served here until others have them.
            claims.leave()
            self.release(held)
            return
        claims.alive()
        claims.reclaim()
        now_s = self._clock.monotonic_s()
        if self._takes_from_s is None:
            self._takes_from_s = now_s + OTHERS_COME_S
        if now_s < self._takes_from_s:
            return
        for camera_id, owner in claims.take(lambda camera: _epoch(held, camera), TAKEN_AT_ONCE).items():
            log.info("camera %s: claimed, epoch %d", camera_id, owner.epoch, extra={"event": "claimed"})

    def _restore(self, claims: Claims, lost: Mapping[CameraId, Owner]) -> None:
        """Say anew what is ours, of what Redis does not know any more.

        Raises:
            Unavailable: Redis is away.
        """
        if lost and (restored := claims.restore(lost)):
            log.warning("%d cameras were lost by Redis and are ours again", restored, extra={"event": "restored"})

    def _say(self, trouble: str) -> None:
        if bool(trouble) != bool(self.trouble):
            log.log(
                logging.WARNING if trouble else logging.INFO, "%s", trouble or "redis answers", extra={"event": "redis"}
            )
        self.trouble = trouble


def _is_lost(renewal: Renewal) -> bool:
    return renewal.standing is Standing.UNKNOWN


def _epoch(held: Mapping[CameraId, Grant], camera_id: CameraId) -> int:
    grant = held.get(camera_id)
    return grant.epoch if grant is not None else 0
