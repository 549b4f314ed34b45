"""Ownership as an agent keeps it: it renews the keys of its cameras and reads what became of them.

A renewal of any number of cameras is one round trip for each BATCH.  No answer says nothing about ownership: whoever
serves a camera goes on until it *reads* that somebody else owns it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import redis

from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import LOCK_PREFIX, Incarnation, Owner
from nodeagent.infra.ownership.grants import owned_by
from nodeagent.infra.ownership.port import Renewal, Standing, batches
from nodeagent.infra.ownership.running import Scripts
from nodeagent.infra.redis import translated

#: Cameras renewed by one script: more than a node serves, and Redis is busy with them for a few milliseconds only.
BATCH = 500


class Leases:
    """The keys of one agent's cameras."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._scripts = Scripts(client)

    def renew(self, held: Mapping[CameraId, Owner]) -> dict[CameraId, Renewal]:
        """Renew the keys of these cameras, and say of each who owns it.

        A key that is another's is left alone.  One that has run out is set anew as long as the status still names this
        owner with this epoch.

        Raises:
            Unavailable: Redis is away; some may have been renewed.
        """
        found: dict[CameraId, Renewal] = {}
        for part in batches(held, BATCH):
            pairs = [text for camera_id in part for text in (camera_id, str(held[camera_id]))]
            answer = [row.decode(errors="replace") for row in self._scripts.run("renew", *pairs)]
            for camera_id, standing, owner in zip(part, answer[::2], answer[1::2], strict=True):
                found[camera_id] = _renewal(standing, owner)
        return found

    def release(self, camera_id: CameraId, owner: Owner) -> bool:
        """Hand a camera back to the pool; False: it is somebody else's, and nothing was changed.

        Raises:
            Unavailable: Redis is away; it may or may not have been done.
        """
        return bool(self._scripts.run("take back", "", camera_id, owner, 0) == b"done")

    def owned_by(self, node_id: NodeId, incarnation: Incarnation) -> dict[CameraId, Owner]:
        """Cameras that this life of a node owns, by their status: what the agent has to serve.

        Raises:
            Unavailable: Redis is away.
        """
        return owned_by(self._scripts, node_id, incarnation)

    def holders(self, cameras: list[CameraId]) -> dict[CameraId, Owner]:
        """Who holds the keys of these cameras; left out: nobody, or whoever wrote there what is no owner.

        Raises:
            Unavailable: Redis is away.
        """
        if not cameras:
            return {}
        with translated("read keys"):
            texts = self._client.mget([LOCK_PREFIX + camera_id for camera_id in cameras])
        found = {}
        for camera_id, text in zip(cameras, texts, strict=True):
            if text is not None:
                with contextlib.suppress(DecodeError):
                    found[camera_id] = Owner.parse(text.decode(errors="replace"))
        return found


def _renewal(standing: str, owner: str) -> Renewal:
    """What became of one key.  Where somebody wrote what is no owner nothing is known, and that ends nothing."""
    try:
        return Renewal(Standing(standing), Owner.parse(owner) if owner else None)
    except DecodeError:
        return Renewal(Standing.UNKNOWN, None)
