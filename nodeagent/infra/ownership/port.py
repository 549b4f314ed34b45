"""Ports of live ownership state: what a registry and an agent may ask of it, whatever holds it.

Promises of every adapter, kept by one contract suite:
- An epoch of a camera only grows: a grant's is above every one that the state, its clock or the caller knows.
- A camera is owned or in the pool, once; a node's load is the number of cameras that it owns.
- What a leader does is checked against its term in the same step: a stale leader changes nothing and gets Fenced.
- Everything may be done twice, so that a lost answer is mended by asking again.
- All calls may come from any thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from nodeagent.contract.ids import CameraId, Epoch, Frozen, NodeId
from nodeagent.contract.ownership import Incarnation, Owner, TaskStatus

#: How long a leader's lock lives without being renewed, ms: four renewals a second apart, and no longer than the lease
#: of a node, so that losing leader and node at once costs one silence, not two.
LEADER_MS = 4_000


class Term(Frozen):
    """One term of a leading registry.

    Attributes:
        registry_id: who leads; of one life of one process, so that two of them are never taken for one.
        token: grows with each term, through the loss of all that Redis holds as well.
    """

    registry_id: NodeId
    token: Epoch

    def __str__(self) -> str:
        return f"{self.registry_id}/{self.token}"


class Standing(StrEnum):
    """What Redis says of a camera that an agent serves."""

    #: It is the agent's; its key was renewed, or set anew when it had run out.
    HELD = "held"
    #: Somebody else owns it by an epoch that is not lower: stop.
    TAKEN = "taken"
    #: It was taken back and waits in the pool: a new owner comes, or the same one again.
    POOLED = "pooled"
    #: Redis knows nothing of it, or only an older owner: it lost writes.  Go on; the leader mends it.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Renewal:
    """What became of one camera in a renewal; `owner` is who holds it as far as Redis knows."""

    standing: Standing
    owner: Owner | None


class Leader(Protocol):
    """Which of the registries leads."""

    def acquire(self, registry_id: NodeId, known: int = 0, ttl_ms: int = LEADER_MS) -> Term | None:
        """Begin a term, or go on with the own one; None while somebody else leads.

        `known` is the highest token that the caller has seen, 0 for none: the new one is above it.

        Raises:
            Unavailable: the state is away.
        """
        ...

    def renew(self, term: Term, ttl_ms: int = LEADER_MS) -> bool:
        """Go on leading.  False: the term is over, and whoever thought that it leads must stop.

        A lock that only ran out is taken up again as long as nobody led in between.

        Raises:
            Unavailable: the state is away.
        """
        ...

    def resign(self, term: Term) -> None:
        """End the term, so that another one need not wait; harmless when it is over.

        Raises:
            Unavailable: the state is away.
        """
        ...


class LiveState(Protocol):
    """Who owns which camera."""

    def grant(
        self, term: Term, camera_id: CameraId, node_id: NodeId, incarnation: Incarnation, known: int = 0
    ) -> Owner:
        """Make this node the owner, over whoever owns the camera, and tell everyone.

        `known` is the highest epoch that the caller has seen of this camera (database, reports, clips), 0 for none.  An
        owner of this incarnation with an epoch that nobody has passed keeps it.

        Raises:
            Fenced: the term is over, or no epoch is left above `known`; nothing was changed.
            Unavailable: the state is away; it may or may not have been granted.
        """
        ...

    def evict(self, term: Term, camera_id: CameraId, expected: Owner) -> bool:
        """Take a camera from its owner into the pool and tell everyone.

        Returns whether it waits in the pool with `expected` as its last owner; False: somebody else owns it.

        Raises:
            Fenced: the term is over; nothing was changed.
            Unavailable: the state is away; it may or may not have been done.
        """
        ...

    def release(self, camera_id: CameraId, owner: Owner) -> bool:
        """Hand a camera back by its owner's own wish; otherwise like `evict`.

        Raises:
            Unavailable: the state is away; it may or may not have been done.
        """
        ...

    def offer(self, term: Term, cameras: Iterable[CameraId]) -> int:
        """Put cameras that the state does not know yet into the pool; returns how many were.

        Raises:
            Fenced: the term is over.
            Unavailable: the state is away; some may have been put.
        """
        ...

    def forget(self, term: Term, camera_id: CameraId) -> None:
        """Drop a camera that exists no more, and tell its owner to stop; harmless when it is not known.

        Raises:
            Fenced: the term is over; nothing was changed.
            Unavailable: the state is away; it may or may not have been done.
        """
        ...

    def rebuild(self, term: Term, remembered: Iterable[tuple[CameraId, TaskStatus]]) -> int:
        """Restore what the state lost from what nodes report and the database knows; returns how many cameras changed.

        A camera may be remembered by several: the highest epoch counts, and of two that say the same epoch the one that
        says `owned`, because it serves the camera.  What the state itself knows wins unless its epoch is lower.

        Raises:
            Fenced: the term is over.
            Unavailable: the state is away; a part may have been restored, and doing it again restores the rest.
        """
        ...

    def statuses(self) -> dict[CameraId, TaskStatus]:
        """Status of every camera that is known.

        Raises:
            Unavailable: the state is away.
        """
        ...

    def pool(self) -> list[CameraId]:
        """Cameras that nobody owns, the one that waits longest first.

        Raises:
            Unavailable: the state is away.
        """
        ...

    def loads(self) -> dict[NodeId, int]:
        """How many cameras each node owns; nodes without any are left out.

        Raises:
            Unavailable: the state is away.
        """
        ...

    def owned_by(self, node_id: NodeId, incarnation: Incarnation) -> dict[CameraId, Owner]:
        """Cameras that this life of a node owns.

        Raises:
            Unavailable: the state is away.
        """
        ...


def best_remembered(remembered: Iterable[tuple[CameraId, TaskStatus]]) -> dict[CameraId, TaskStatus]:
    """For each camera the memory that counts, see `LiveState.rebuild`."""
    best: dict[CameraId, TaskStatus] = {}
    for camera_id, status in remembered:
        known = best.get(camera_id)
        if known is None or rank(status) > rank(known):
            best[camera_id] = status
    return best


def rank(status: TaskStatus) -> tuple[int, bool]:
    """What memories of one camera are ordered by: the epoch, then whether somebody serves it."""
    return (status.owner.epoch if status.owner else 0, status.owner is not None and status.phase == "owned")


def batches(items: Collection[CameraId], size: int) -> Iterable[list[CameraId]]:
    """The items in lists of at most `size`."""
    whole = list(items)
    return (whole[start : start + size] for start in range(0, len(whole), size))
