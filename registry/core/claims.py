"""What a node's own word is worth that it serves a camera, with a later epoch than the live state knows.  Pure.

After writes were lost the node that serves a camera may be the only one to know.  But whoever owns a camera is told its
credentials, and a node that was broken into may say what it likes.  So its word counts only where the registry knows
from elsewhere that the camera was last given to this node: from the live state, its own memory, or the database.

Where all of these lost it, when a term begins, nodes are believed: rather that than that every camera of a site starts
anew.  Of a camera that was last another node's, a later epoch is a fact all the same, since the samples of a lower one
are refused: its owner is given it anew, with an epoch above.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nodeagent.contract.ids import CameraId
from nodeagent.contract.ownership import Owner, TaskPhase, TaskStatus
from registry.core.memories import Memory, owned


@dataclass(frozen=True, slots=True)
class Known:
    """What others than the node know of last owners.

    Attributes:
        live: the live state.
        remembered: this registry's memory of it.
        stored: owners by the database.
        lost: cameras that nodes are believed of whom nobody else knows anything of.
    """

    live: Mapping[CameraId, TaskStatus]
    remembered: Mapping[CameraId, TaskStatus]
    stored: Mapping[CameraId, Owner]
    lost: frozenset[CameraId] = frozenset()

    def owners(self, camera_id: CameraId) -> list[Owner]:
        """Whom the camera was last given to, by each of them."""
        found = [status.owner for known in (self.live, self.remembered) if (status := known.get(camera_id))]
        return [owner for owner in (*found, self.stored.get(camera_id)) if owner is not None]


@dataclass(slots=True)
class Judged:
    """What becomes of claims.

    Attributes:
        memories: those that are believed.
        doubted: claims that are not, of cameras that the live state gives to others.
    """

    memories: list[Memory] = field(default_factory=list)
    doubted: list[tuple[CameraId, Owner]] = field(default_factory=list)


def judge(claims: Iterable[tuple[CameraId, Owner]], known: Known) -> Judged:
    """Judge what nodes say that they serve, of which the live state does not know so late an epoch."""
    judged = Judged()
    for camera_id, claim in claims:
        status = known.live.get(camera_id)
        owners = known.owners(camera_id)
        # One that waits in the pool and never had an owner is not lost.
        is_lost = status is None and not owners and camera_id in known.lost
        if is_lost or any(owner.node_id == claim.node_id for owner in owners):
            judged.memories.append(owned(camera_id, claim))
        elif status is not None and status.phase is TaskPhase.OWNED:
            judged.doubted.append((camera_id, claim))
    return judged
