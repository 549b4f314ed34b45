"""What placement knows of nodes and cameras, and the words in which it answers.

Pure.  Hard, never broken: a node that is closed takes nothing; a camera's labels and its model must be there; the
capacity of a node is kept unless somebody forces it; a spread that says `hard`.  Soft, kept where there is a choice: a
node that was tried without success is avoided, then cameras of one group are spread, then the least loaded node is
taken.

The easy mistake: to take a node whose capacity is not known for one without any.  It takes part by count alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import Resources

#: Dimensions of `Resources`, in the order of the columns of all arrays of placement.
DIMENSIONS = ("decode_cores", "infer_per_s", "ring_bytes", "write_bytes_s")

#: What a camera is taken to need before any was measured: 1080p at 4 Mbit/s, five samples a second looked at.
ESTIMATE = Resources(decode_cores=0.15, infer_per_s=5.0, ring_bytes=64 * 2**20, write_bytes_s=500_000.0)

#: Cameras that fill a node when no node tells its capacity.  Only scales what is shown: all nodes count alike then.
CAMERAS_PER_NODE = 100.0


def estimate(measured: Iterable[Resources]) -> Resources:
    """What a camera is taken to need that was never measured: the mean of those that were."""
    costs = list(measured)
    if not costs:
        return ESTIMATE
    return Resources(**{name: sum(getattr(one, name) for one in costs) / len(costs) for name in DIMENSIONS})


@dataclass(frozen=True, slots=True)
class Spread:
    """A wish that cameras of a group are not together, so that one failure takes few of them.

    Attributes:
        group: name of the group, for example the entrance that several cameras watch.
        over: label over whose values they are spread, for example `rack`; empty: over nodes.
        hard: rather no owner than one beside another of the group.
    """

    group: str
    over: str = ""
    hard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A camera as placement sees it.

    Attributes:
        cost: what it was measured to need, smoothed; None: never measured, taken for an estimate.
        needs: labels that its node must have, with their values.
        model: that its node must have; empty: any will do.
        spread: see there.
        avoid: nodes where its source could not be reached; taken only when there is no other.
    """

    camera_id: CameraId
    cost: Resources | None = None
    needs: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    spread: Spread | None = None
    avoid: frozenset[NodeId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as placement sees it.

    Attributes:
        capacity: what it has; a resource of 0 is one that it lacks.  None: not known, it takes part by count alone.
        labels: free words, such as `site`, `network`, `gpu`.
        cameras: how many it owns.
        used: what these need together.
        closed: why it takes no camera, for example `draining`, or that it came back a moment ago; empty: it takes some.
        models: that it has; None: not told, any is taken to be there.
    """

    node_id: NodeId
    capacity: Resources | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    cameras: int = 0
    used: Resources = field(default_factory=Resources)
    closed: str = ""
    models: frozenset[str] | None = None


#: How many cameras of a group each node owns already: group -> node -> number.
Members = Mapping[str, Mapping[NodeId, int]]
#: Nobody is grouped with anybody.
NO_MEMBERS: Members = {}


class Why(StrEnum):
    """Why a camera was placed where it was, or nowhere."""

    #: The least loaded of the nodes that may take it.
    LEAST_LOADED = "least_loaded"
    #: Not the least loaded, but one with fewer cameras of its group.
    SPREAD = "spread"
    #: Not the least loaded, but one where its source was not tried yet.
    ELSEWHERE = "elsewhere"
    #: No node with room may have it: it was forced onto the least loaded that may.
    FORCED = "forced"
    #: Nowhere: no node takes cameras.
    CLOSED = "closed"
    #: Nowhere: no node that takes cameras has the labels.
    LABELS = "labels"
    #: Nowhere: no node that takes cameras and has the labels has the model.
    MODEL = "model"
    #: Nowhere: each node that may take it is too full.
    ROOM = "room"
    #: Nowhere: each node with room has a camera of its group, which is a hard spread.
    GROUP = "group"


#: What a person reads; cameras with the last five have no owner.
SENTENCES: Mapping[Why, str] = {
    Why.LEAST_LOADED: "the least loaded node that may take it",
    Why.SPREAD: "the least loaded of the nodes with the fewest cameras of its group",
    Why.ELSEWHERE: "the least loaded of the nodes where its source was not tried yet",
    Why.FORCED: "no node with room may have it, forced onto the least loaded that may",
    Why.CLOSED: "no node takes cameras now",
    Why.LABELS: "no node that takes cameras has the labels that it needs",
    Why.MODEL: "no node that takes cameras and has its labels has its model",
    Why.ROOM: "fits on no node that may take it",
    Why.GROUP: "each node with room has a camera of its group, and the spread is hard",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on one camera.

    Attributes:
        node_id: its owner from now on; None: it has none and stays in the task pool.
        detail: the reason and its figures in one sentence.
    """

    camera_id: CameraId
    node_id: NodeId | None
    why: Why
    detail: str
