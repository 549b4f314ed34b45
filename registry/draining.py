"""How far a node is with draining.  Pure.

First other nodes take its cameras and capture them, then it finishes what it recorded itself.  The easy mistake: to
take silence for emptiness.  What waits on a node is known from a report that it made after its last camera had left; a
node that died, or whose agent is too old to tell, is never called done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from nodeagent.contract.ids import CameraId
from nodeagent.contract.ownership import Unfinished
from registry.member import REPORTING, NodePhase
from registry.tasks import START_S

#: Cameras that nobody captures and that are named: so many explain the rest.
NAMED_MOST = 20


class DrainState(StrEnum):
    """How far it is, in the order in which it goes; the last three are ends."""

    #: It has cameras still.
    MOVING = "moving"
    #: Others own them all, and do not capture all of them yet.
    STARTING = "starting"
    #: They do; what this node recorded is not all announced, looked at and judged, or that is not known yet.
    FINISHING = "finishing"
    #: Nothing is left.
    DONE = "done"
    #: Its agent reports, but does not tell what waits: it is of an older release.
    UNTOLD = "untold"
    #: It died: what waited on it waits there until it is started again.
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Gone:
    """The cameras that left a node.

    Attributes:
        starting: how many others own and do not capture yet, as far as they may need the time.
        uncaptured: the first of those that nobody captures, for longer than a start takes.
    """

    starting: int = 0
    uncaptured: tuple[CameraId, ...] = field(default=())


def sort_gone(left_s: Mapping[CameraId, float], captured: frozenset[CameraId], now_s: float) -> Gone:
    """Sort them by what has become of them; `left_s`: when each left, monotonic."""
    absent = sorted(left_s.keys() - captured)
    late = [camera_id for camera_id in absent if now_s - left_s[camera_id] >= START_S]
    return Gone(len(absent) - len(late), tuple(late[:NAMED_MOST]))


def state_of(phase: NodePhase, left: int, gone: Gone, unfinished: Unfinished | None, *, reported: bool) -> DrainState:
    """How far a node is.

    Args:
        phase: the node's.
        left: how many cameras it has still.
        gone: what became of those that left.
        unfinished: of its newest report.
        reported: whether this registry has that report.
    """
    if left:
        return DrainState.MOVING
    if gone.starting:
        return DrainState.STARTING
    if phase is NodePhase.DEAD:
        return DrainState.LOST
    if not reported or phase not in REPORTING:
        return DrainState.FINISHING
    if unfinished is None:
        return DrainState.UNTOLD
    return DrainState.DONE if unfinished.is_over else DrainState.FINISHING
