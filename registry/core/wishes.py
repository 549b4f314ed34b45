"""What placement is asked, from what the registry knows: nodes as they stand, cameras as they are wanted.  Pure.

A camera's labels of these names ask something of its node; all others are words of people:
- `site`, `network`, `gpu`: the node must have the same label with the same value.
- `spread`: name of a group whose cameras are kept apart; `spread_over`: a label of nodes, such as `rack`, over whose
  values they are (over nodes, when left out); `spread_hard` = `true`: rather no owner than one beside another.

The easy mistake: to give cameras to a node that has only just come back.  It gets some when there is no other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import Resources
from registry.member import NodePhase
from registry.membership import NodeView
from registry.placement import place
from registry.placement_rules import ESTIMATE, Camera, Decision, Members, Node, Spread
from registry.placement_table import Cameras, Nodes
from registry.store.camera_record import CameraRow

#: Labels of a camera that its node must have too.
NEEDED = ("site", "network", "gpu")
#: Labels of a camera that keep it apart from others.
SPREAD, SPREAD_OVER, SPREAD_HARD = "spread", "spread_over", "spread_hard"

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


def wish(row: CameraRow, cost: Resources, avoid: Collection[NodeId] = ()) -> Camera:
    """A camera as placement sees it."""
    labels = row.labels
    group = labels.get(SPREAD, "")
    spread = Spread(group, labels.get(SPREAD_OVER, ""), labels.get(SPREAD_HARD) == "true") if group else None
    return Camera(
        camera_id=row.camera_id,
        cost=cost,
        needs={name: labels[name] for name in NEEDED if name in labels},
        spread=spread,
        avoid=frozenset(avoid),
    )


def nodes_of(views: Iterable[NodeView], costs: Costs, *, joining: bool = False) -> list[Node]:
    """The nodes as placement sees them.

    Args:
        views: all nodes.
        costs: what cameras need.
        joining: whether a node that came back only just is asked too.
    """
    found = []
    for view in views:
        opened = joining and view.phase is NodePhase.JOINING
        found.append(
            Node(
                node_id=view.node_id,
                capacity=view.capacity,
                labels=view.labels,
                cameras=len(view.cameras),
                used=_sum(costs.of(camera_id) for camera_id in view.cameras),
                closed="" if opened else CLOSED.get(view.phase, ""),
            )
        )
    return found


def members_of(views: Iterable[NodeView], groups: Mapping[CameraId, str]) -> Members:
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
    """

    cameras: Sequence[Camera]
    views: Sequence[NodeView]
    costs: Costs
    groups: Mapping[CameraId, str]
    forced: bool = False


def decide(question: Question) -> list[Decision]:
    """Where these cameras go, by id: on live nodes, and what fits on none of them on nodes that came back only just."""
    members = members_of(question.views, question.groups)
    cameras = Cameras.of(question.cameras)
    nodes = Nodes.of(nodes_of(question.views, question.costs))
    first = place(cameras, nodes, members=members, forced=question.forced)
    if first.is_complete or all(view.phase is not NodePhase.JOINING for view in question.views):
        return list(first.decisions())
    placed = {decision.camera_id: decision for decision in first.decisions() if decision.node_id is not None}
    # Asked anew with the first ones in place.
    taken: dict[NodeId, list[Camera]] = {}
    by_id = {camera.camera_id: camera for camera in question.cameras}
    for decision in placed.values():
        taken.setdefault(decision.node_id or "", []).append(by_id[decision.camera_id])
    views = nodes_of(question.views, question.costs, joining=True)
    open_nodes = Nodes.of(_with(node, taken.get(node.node_id, ())) for node in views)
    rest = Cameras.of(camera for camera in question.cameras if camera.camera_id not in placed)
    second = place(rest, open_nodes, members=members, forced=question.forced)
    return sorted([*placed.values(), *second.decisions()], key=lambda decision: decision.camera_id)


def _with(node: Node, cameras: Sequence[Camera]) -> Node:
    """The node with these cameras as well."""
    if not cameras:
        return node
    used = _sum((node.used, *(camera.cost or ESTIMATE for camera in cameras)))
    return Node(
        node_id=node.node_id,
        capacity=node.capacity,
        labels=node.labels,
        cameras=node.cameras + len(cameras),
        used=used,
        closed=node.closed,
    )


def _sum(parts: Iterable[Resources]) -> Resources:
    cores = infer = ring = write = 0.0
    for part in parts:
        cores += part.decode_cores
        infer += part.infer_per_s
        ring += part.ring_bytes
        write += part.write_bytes_s
    return Resources(decode_cores=cores, infer_per_s=infer, ring_bytes=ring, write_bytes_s=write)
