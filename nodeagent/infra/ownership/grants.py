"""The state of ownership as the registry's leader changes and reads it, on Redis.

Every change is one script, which checks the leader's term first and publishes the hint last: nobody hears of a grant
that was not made, and kill -9 cannot part the two.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import redis

from nodeagent.contract.codec import decode_task_status
from nodeagent.contract.errors import DecodeError, Fenced
from nodeagent.contract.ids import ID_PATTERN, CameraId, NodeId
from nodeagent.contract.ownership import LOAD_HASH, POOL_LIST, STATUS_HASH, Incarnation, Owner, TaskPhase, TaskStatus
from nodeagent.infra.ownership.port import Term, batches, best_remembered
from nodeagent.infra.ownership.running import Scripts
from nodeagent.infra.redis import translated

log = logging.getLogger(__name__)

_ID = re.compile(ID_PATTERN)
#: Cameras that one script restores or offers: Redis serves nobody else meanwhile, which is a few milliseconds.
BATCH = 200


class RedisState:
    """`LiveState` on Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._scripts = Scripts(client)
        self._told_of: set[tuple[str, str]] = set()

    def grant(
        self, term: Term, camera_id: CameraId, node_id: NodeId, incarnation: Incarnation, known: int = 0
    ) -> Owner:
        """Make this node the owner and tell everyone; see the port."""
        word, *rest = self._scripts.run("grant", term, camera_id, node_id, incarnation, known)
        if word != b"granted":
            raise _fenced(word, term, camera_id, known)
        return Owner.parse(rest[0].decode())

    def evict(self, term: Term, camera_id: CameraId, expected: Owner) -> bool:
        """Take a camera from its owner into the pool; see the port."""
        word = self._scripts.run("take back", term, camera_id, expected, 0)
        if word == b"fenced":
            raise _fenced(word, term, camera_id)
        return bool(word == b"done")

    def release(self, camera_id: CameraId, owner: Owner) -> bool:
        """Hand a camera back; see the port."""
        return bool(self._scripts.run("take back", "", camera_id, owner, 0) == b"done")

    def offer(self, term: Term, cameras: Iterable[CameraId]) -> int:
        """Put unknown cameras into the pool; see the port."""
        return sum(self._led("offer", term, *part) for part in batches(list(cameras), BATCH))

    def forget(self, term: Term, camera_id: CameraId) -> None:
        """Drop a camera; see the port."""
        word = self._scripts.run("forget", term, camera_id)
        if word == b"fenced":
            raise _fenced(word, term, camera_id)

    def rebuild(self, term: Term, remembered: Iterable[tuple[CameraId, TaskStatus]]) -> int:
        """Restore what Redis lost; see the port.

        Killed between two parts, it leaves a part restored, and whoever leads next begins anew.
        """
        best = best_remembered(remembered)
        changed = 0
        for part in batches(best, BATCH):
            rows = [text for camera_id in part for text in (camera_id, *_memory(best[camera_id]))]
            changed += self._led("rebuild", term, *rows)
        self._led("tidy", term)
        return changed

    def statuses(self) -> dict[CameraId, TaskStatus]:
        """Status of every camera; what is none is left out, and told of once."""
        with translated("read statuses"):
            rows = self._client.hgetall(STATUS_HASH)
        found = {}
        for camera_id in self._ours(STATUS_HASH, rows):
            try:
                found[camera_id] = decode_task_status(rows[camera_id.encode()])
            except DecodeError as exc:
                self._tell_once(STATUS_HASH, camera_id, str(exc))
        return found

    def pool(self) -> list[CameraId]:
        """Cameras that nobody owns, the one that waits longest first; what is no camera's id is left out."""
        with translated("read the pool"):
            rows = self._client.lrange(POOL_LIST, 0, -1)
        return self._ours(POOL_LIST, rows)

    def loads(self) -> dict[NodeId, int]:
        """How many cameras each node owns."""
        with translated("read loads"):
            rows = self._client.hgetall(LOAD_HASH)
        return {node.decode(): int(count) for node, count in rows.items()}

    def owned_by(self, node_id: NodeId, incarnation: Incarnation) -> dict[CameraId, Owner]:
        """Cameras that this life of a node owns."""
        return owned_by(self._scripts, node_id, incarnation)

    def _led(self, script: str, term: Term, *arguments: object) -> int:
        changed = int(self._scripts.run(script, term, *arguments))
        if changed < 0:
            raise Fenced(f"{script}: term {term} is over")
        return changed

    def _ours(self, where: str, rows: Iterable[bytes]) -> list[CameraId]:
        """Those that are ids of cameras.  Anyone may write into Redis, and ids end up in JSON and in names of files."""
        texts = [row.decode(errors="replace") for row in rows]
        for text in texts:
            if not _ID.fullmatch(text):
                self._tell_once(where, text, "no camera's id")
        return [text for text in texts if _ID.fullmatch(text)]

    def _tell_once(self, where: str, text: str, why: str) -> None:
        if (where, text) not in self._told_of:
            self._told_of.add((where, text))
            log.warning("redis: %s: %r is left out: %s", where, text[:80], why, extra={"event": "redis_alien"})


def owned_by(scripts: Scripts, node_id: NodeId, incarnation: Incarnation) -> dict[CameraId, Owner]:
    """Cameras that this life of a node owns, in one round trip; left out: what somebody else wrote and is none.

    Raises:
        Unavailable: Redis is away.
    """
    rows = scripts.run("owned by", node_id, incarnation)
    texts = [row.decode(errors="replace") for row in rows]
    found = {}
    for camera_id, owner in zip(texts[::2], texts[1::2], strict=True):
        if _ID.fullmatch(camera_id):
            with suppress(DecodeError):
                found[camera_id] = Owner.parse(owner)
    return found


def _memory(status: TaskStatus) -> tuple[str, str]:
    """Phase and owner as the scripts take them; nobody can be served by no one."""
    phase = status.phase if status.owner is not None else TaskPhase.POOLED
    return phase.value, str(status.owner or "")


def _fenced(word: bytes, term: Term, camera_id: CameraId, known: int = 0) -> Fenced:
    if word == b"spent":
        return Fenced(f"{camera_id}: no epoch is left above {known}")
    return Fenced(f"{camera_id}: term {term} is over")
