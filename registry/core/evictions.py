"""Cameras that were taken from their nodes and have to go into the pool, or back to a node that was started anew.

What members returned once they never return again, so it waits here until it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nodeagent.contract.ids import CameraId, NodeId
from registry.core.hands import Hands
from registry.core.site import Site
from registry.membership import Decision, Evict, Reborn
from registry.tasks import Orphan, StopTask


@dataclass(frozen=True, slots=True)
class _Due:
    """An orphan, why it is one, and whom it goes back to at once; none: into the pool with it."""

    orphan: Orphan
    reason: str
    back_to: tuple[NodeId, str] | None = None


class Evictions:
    """What one term has yet to take away."""

    def __init__(self, hands: Hands, site: Site, gives_back: bool) -> None:
        """`gives_back`: whether a node that was started anew gets its cameras back at once."""
        self._hands, self._site, self._gives_back = hands, site, gives_back
        self._due: dict[CameraId, _Due] = {}

    def note(self, decisions: Iterable[Decision], is_open: Callable[[NodeId], bool]) -> None:
        """Take what was decided; `is_open`: whether a node takes cameras."""
        for decision in decisions:
            match decision:
                case Evict(node_id, orphans, reason):
                    self._put(orphans, f"node {node_id} is dead: {reason}")
                case Reborn(node_id, incarnation, orphans, steady):
                    back = steady and self._gives_back and is_open(node_id)
                    reason = f"the agent of {node_id} was started anew"
                    self._put(orphans, reason, (node_id, incarnation) if back else None)
                case StopTask(orphan, _, detail):
                    self._put((orphan,), f"on {orphan.owner.node_id} {detail}")
                case _:
                    continue

    def forget(self, camera_id: CameraId) -> None:
        """A camera was dropped, or given away, in another way."""
        self._due.pop(camera_id, None)

    def act(self, goes_on: Callable[[], bool]) -> bool:
        """Carry out what is due while `goes_on`; whether all of it was as it was thought to be.

        Raises:
            Fenced, Unavailable: as hands do; what is not done is due still.
        """
        is_even = True
        for camera_id, due in list(self._due.items()):
            if not goes_on():
                break
            if due.back_to is not None:
                # A grant goes over any owner.  Who was moved by hand meanwhile stays where somebody wanted it.
                if self._site.owner(camera_id) == due.orphan.owner:
                    self._hands.give(camera_id, *due.back_to, due.reason)
            else:
                is_even = self._hands.take(camera_id, due.orphan.owner, due.reason) and is_even
            # Only now: what failed above is tried again.
            del self._due[camera_id]
        return is_even

    def _put(self, orphans: Iterable[Orphan], reason: str, back_to: tuple[NodeId, str] | None = None) -> None:
        for orphan in orphans:
            self._due[orphan.camera_id] = _Due(orphan, reason, back_to)
