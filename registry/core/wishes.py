"""What placement is asked, from what the registry knows: nodes as they stand, cameras as they are wanted.  Pure.

A camera's labels of these names ask something of its node; all others are words of people:
- `site`, `network`, `gpu`: the node must have the same label with the same value.
- `spread`: name of a group whose cameras are kept apart; `spread_over`: a label of nodes, such as `rack`, over whose
  values they are (over nodes, when left out); `spread_hard` = `true`: rather no owner than one beside another.

The easy mistake: to give cameras to a node that has only just come back.  It gets some when there is no other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import Resources
from registry.member import NodePhase
from registry.membership import NodeView
from registry.placement import place
from registry.placement_rules import DIMENSIONS, ESTIMATE, Camera, Decision, Node, Spread, Why
from registry.placement_table import Cameras, Nodes
from registry.store.camera_record import CameraRow

#: Labels of a camera that its node must have too.
NEEDED = ("site", "network", "gpu")
#: Labels of a camera that keep it apart from others.
SPREAD, SPREAD_OVER, SPREAD_HARD = "spread", "spread_over", "spread_hard"

#: How many times its capacity a node may be given, for cameras that would not be recorded otherwise, in the order of
#: `Resources`.  Inference that falls behind catches up later from the clips, and decoding gets slower; rings and disks
#: that are full end recordings that run.
SQUEEZE = Resources(decode_cores=1.5, infer_per_s=1000.0, ring_bytes=1.0, write_bytes_s=1.0)

#: Why a node in this phase takes no camera; a live one does.
CLOSED: Mapping[NodePhase, str] = {
    NodePhase.JOINING: "came back only just",
    NodePhase.SUSPECT: "missed reports",
    NodePhase.DEAD: "is dead",
    NodePhase.DRAINING: "is draining",
}


@dataclass(frozen=True, slots=True)
class Costs:
    """What cameras need.

    Attributes:
        measured: what each was measured to need where it was served last.
        typical: what a camera is taken to need that was never measured.
    """

    measured: Mapping[CameraId, Resources]
    typical: Resources = ESTIMATE

    def of(self, camera_id: CameraId) -> Resources:
        """What one camera needs."""
        return self.measured.get(camera_id, self.typical)


def needs_of(labels: Mapping[str, str]) -> dict[str, str]:
    """What a camera with these labels asks of its node's."""
    return {name: labels[name] for name in NEEDED if name in labels}


def wish(row: CameraRow, cost: Resources, avoid: Collection[NodeId] = ()) -> Camera:
    """A camera as placement sees it."""
    labels = row.labels
    group = labels.get(SPREAD, "")
    spread = Spread(group, labels.get(SPREAD_OVER, ""), labels.get(SPREAD_HARD) == "true") if group else None
    return Camera(
        camera_id=row.camera_id,
        cost=cost,
        needs=needs_of(labels),
        model=row.spec.model or "",
        spread=spread,
        avoid=frozenset(avoid),
    )


def nodes_of(views: Iterable[NodeView], costs: Costs, *, joining: bool = False, squeezed: bool = False) -> list[Node]:
    """The nodes as placement sees them.

    Args:
        views: all nodes.
        costs: what cameras need.
        joining: whether a node that came back only just is asked too.
        squeezed: whether nodes may be given more than they have room for (`SQUEEZE`).
    """
    found = []
    for view in views:
        opened = joining and view.phase is NodePhase.JOINING
        found.append(
            Node(
                node_id=view.node_id,
                capacity=_squeezed(view.capacity) if squeezed and view.capacity is not None else view.capacity,
                labels=view.labels,
                cameras=len(view.cameras),
                used=_sum(costs.of(camera_id) for camera_id in view.cameras),
                closed="" if opened else CLOSED.get(view.phase, ""),
                models=view.models,
            )
        )
    return found


def members_of(views: Iterable[NodeView], groups: Mapping[CameraId, str]) -> dict[str, dict[NodeId, int]]:
    """How many cameras of each group every node owns; `groups` are those of cameras that have one."""
    counts: dict[str, dict[NodeId, int]] = {}
    for view in views if groups else ():
        for camera_id in view.cameras:
            if camera_id in groups:
                there = counts.setdefault(groups[camera_id], {})
                there[view.node_id] = there.get(view.node_id, 0) + 1
    return counts


@dataclass(frozen=True, slots=True)
class Question:
    """Cameras that need a node, and what is known of nodes.

    Attributes:
        cameras: as placement sees them.
        views: all nodes.
        costs: what cameras need.
        groups: the group of each camera that has one, owned or not.
        forced: what fits nowhere goes to the least loaded node.
        orphans: those of them that were recorded until now: what has room nowhere is squeezed in.
    """

    cameras: Sequence[Camera]
    views: Sequence[NodeView]
    costs: Costs
    groups: Mapping[CameraId, str]
    forced: bool = False
    orphans: frozenset[CameraId] = frozenset()


def decide(question: Question) -> list[Decision]:
    """Where these cameras go, by id.

    On live nodes; what fits on none of them, on nodes that came back only just; and of what fits nowhere, orphans where
    they can be squeezed in, for a picture that nobody records is gone.
    """
    found = _Found(question)
    found.place(question.cameras, nodes_of(question.views, question.costs))
    if any(view.phase is NodePhase.JOINING for view in question.views):
        found.place(found.left(), nodes_of(question.views, question.costs, joining=True))
    orphans = [
        camera
        for camera in found.left()
        if camera.camera_id in question.orphans and found.decisions[camera.camera_id].why is Why.ROOM
    ]
    found.place(orphans, nodes_of(question.views, question.costs, joining=True, squeezed=True))
    return [found.decisions[camera_id] for camera_id in sorted(found.decisions)]


class _Found:
    """Decisions while cameras are placed in several rounds: each counts what the rounds before it placed."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self.decisions: dict[CameraId, Decision] = {}

    def left(self) -> list[Camera]:
        """Cameras that have no node yet."""
        found = self.decisions
        return [camera for camera in self._question.cameras if found[camera.camera_id].node_id is None]

    def place(self, cameras: Sequence[Camera], nodes: Iterable[Node]) -> None:
        """Place these cameras on these nodes."""
        if not cameras:
            return
        taken: dict[NodeId, list[Camera]] = {}
        members = members_of(self._question.views, self._question.groups)
        for camera in self._question.cameras:
            decision = self.decisions.get(camera.camera_id)
            if decision is None or decision.node_id is None:
                continue
            taken.setdefault(decision.node_id, []).append(camera)
            if camera.spread is not None:
                there = members.setdefault(camera.spread.group, {})
                there[decision.node_id] = there.get(decision.node_id, 0) + 1
        table = Nodes.of(_with(node, taken.get(node.node_id, ())) for node in nodes)
        placement = place(Cameras.of(cameras), table, members=members, forced=self._question.forced)
        self.decisions |= {decision.camera_id: decision for decision in placement.decisions()}


def _squeezed(capacity: Resources) -> Resources:
    return Resources(**{name: getattr(capacity, name) * getattr(SQUEEZE, name) for name in DIMENSIONS})


def _with(node: Node, cameras: Sequence[Camera]) -> Node:
    """The node with these cameras as well."""
    if not cameras:
        return node
    used = _sum((node.used, *(camera.cost or ESTIMATE for camera in cameras)))
    return replace(node, cameras=node.cameras + len(cameras), used=used)


def _sum(parts: Iterable[Resources]) -> Resources:
    cores = infer = ring = write = 0.0
    for part in parts:
        cores += part.decode_cores
        infer += part.infer_per_s
        ring += part.ring_bytes
        write += part.write_bytes_s
    return Resources(decode_cores=cores, infer_per_s=infer, ring_bytes=ring, write_bytes_s=write)
