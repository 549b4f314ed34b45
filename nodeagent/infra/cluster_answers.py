"""What the registry's API answers of its nodes and of all of them together, as far as it is shown.  Pure.

Phases are plain words here: a newer registry may know one more.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import Frozen
from nodeagent.contract.ownership import Resources, Unfinished

#: Phases of a node, as the registry names them.
LIVE: Final = "live"
JOINING: Final = "joining"
SUSPECT: Final = "suspect"
DEAD: Final = "dead"
DRAINING: Final = "draining"
#: States of a drain that end it, as the registry names them: with nothing left, and without knowing.
DONE: Final = "done"
UNTOLD: Final = "untold"
LOST: Final = "lost"
#: Phase of a camera that nobody owns.
POOLED: Final = "pooled"


class DrainSeen(Frozen):
    """How far a node is with handing its cameras over.

    Attributes:
        ordered_by: who ordered it; empty: nobody, it leaves by its own word.
        state: how far it is; empty: an older registry does not tell.
        left, moved: cameras that are still its own, and those that another node took since it began.
        starting: how many of those are not captured yet.
        uncaptured: some of those that nobody captures, for longer than a start takes.
        unfinished: what the node has still to do with what it recorded; none: not known.
        done: whether nothing is left.
        trouble: why it does not go on; empty: it does.
    """

    ordered_by: str
    state: str = ""
    left: int
    moved: int
    starting: int = 0
    uncaptured: tuple[str, ...] = ()
    unfinished: Unfinished | None = None
    done: bool
    trouble: str


class NodeSeen(Frozen):
    """One node.

    Attributes:
        host: empty: it has not reported yet.
        silent_s: since its newest report; none: it has not reported yet.
        skew_ns: its clock less the registry's.
        owns, serves: how many cameras it owns, and how many it says that it serves.
        conflict: why another agent under its id is refused; empty: there is none.
    """

    node_id: str
    phase: str
    host: str
    agent_version: str
    silent_s: float | None
    skew_ns: int
    labels: dict[str, str]
    capacity: Resources | None
    owns: int
    serves: int
    drain: DrainSeen | None
    conflict: str


class FreezeSeen(Frozen):
    """Evictions are held; `until_ns`: it ends by itself then, UTC ns."""

    reason: str
    until_ns: int


class Overview(Frozen):
    """All of it in a few numbers.

    Attributes:
        leader: empty: not known.
        freeze: none: evictions are not held.
        nodes, cameras: how many are in each phase.
    """

    registry_id: str
    leader: str
    freeze: FreezeSeen | None
    nodes: dict[str, int]
    cameras: dict[str, int]


def node_seen(row: dict[str, Any]) -> NodeSeen:
    """A node from its row of an answer.

    Raises:
        Unavailable: the answer is none that this version reads.
    """
    try:
        return NodeSeen.model_validate(row)
    except ValidationError:
        raise Unavailable("the registry's word on a node cannot be read") from None


def overview(document: dict[str, Any]) -> Overview:
    """The overview from an answer.

    Raises:
        Unavailable: the answer is none that this version reads.
    """
    try:
        return Overview.model_validate(document)
    except ValidationError:
        raise Unavailable("the registry's overview cannot be read") from None
