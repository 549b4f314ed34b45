"""What the live state should say and does not: found by comparing it with all that the registry remembers.  Pure.

Redis may be flushed, or fail over to a server that lacks the last writes.  What is lost is known from elsewhere: from
the nodes' reports, from this registry's own memory, from the database.  The highest epoch wins; of two memories of one
epoch the nearer one does, and nearest is the node that serves the camera.

The easy mistake: to restore an owner whose epoch somebody has passed.  Its samples would be refused, so such a
camera is nobody's and gets a new owner.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from nodeagent.contract.ids import CameraId
from nodeagent.contract.ownership import Owner, TaskPhase, TaskStatus

Memory = tuple[CameraId, TaskStatus]


@dataclass(frozen=True, slots=True)
class Compared:
    """What to do about the live state.

    Attributes:
        lost: what it does not know, or has too old.
        unwanted: cameras in it that no node is to serve.
        unknown: cameras that a node is to serve, of which neither it nor anybody else knows anything.
    """

    lost: dict[CameraId, TaskStatus]
    unwanted: list[CameraId]
    unknown: list[CameraId]

    @property
    def is_even(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.lost or self.unwanted or self.unknown)


def owned(camera_id: CameraId, owner: Owner) -> Memory:
    """The memory that somebody owns a camera."""
    return camera_id, TaskStatus(phase=TaskPhase.OWNED, owner=owner, since_ms=0)


def best(memories: Iterable[Memory]) -> dict[CameraId, TaskStatus]:
    """For each camera the memory of the highest epoch; of the same epoch the one that comes first."""
    found: dict[CameraId, TaskStatus] = {}
    for camera_id, status in memories:
        if is_news(found.get(camera_id), status):
            found[camera_id] = status
    return found


def compare(
    statuses: Mapping[CameraId, TaskStatus],
    memories: Iterable[Memory],
    wanted: Collection[CameraId] | None,
    highest: Callable[[CameraId], int],
) -> Compared:
    """Compare the live state with what is remembered.

    Args:
        statuses: the live state.
        memories: what others say, the nearest first.
        wanted: cameras that a node is to serve; none: not known, nothing is unwanted or unknown then.
        highest: the highest epoch of a camera that anybody has told of.
    """
    lost = {}
    remembered = best(memories)
    for camera_id, status in remembered.items():
        if wanted is not None and camera_id not in wanted:
            continue
        if is_news(statuses.get(camera_id), status):
            lost[camera_id] = _served(status, highest(camera_id))
    if wanted is None:
        return Compared(lost, [], [])
    return Compared(
        lost=lost,
        unwanted=sorted(camera_id for camera_id in statuses if camera_id not in wanted),
        unknown=sorted(camera_id for camera_id in wanted if camera_id not in statuses and camera_id not in lost),
    )


def _served(status: TaskStatus, highest: int) -> TaskStatus:
    if status.phase is TaskPhase.OWNED and epoch_of(status) < highest:
        return status.model_copy(update={"phase": TaskPhase.POOLED})
    return status


def is_news(known: TaskStatus | None, status: TaskStatus) -> bool:
    """Whether a memory tells more than the live state knows of a camera."""
    return known is None or epoch_of(status) > epoch_of(known)


def epoch_of(status: TaskStatus | None) -> int:
    """The highest epoch that a status speaks of; 0: none."""
    return status.owner.epoch if status is not None and status.owner is not None else 0
