"""Why a camera is where it is, and what else was considered: plain data that a command prints.

Pure.  It asks the same questions with the same figures as placement does, but of every node and to the end, where
placement stops at the first no.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from nodeagent.contract.ids import CameraId, NodeId
from registry.placement_crowd import Crowd
from registry.placement_load import FULL, Scales, fills, loads, needs_of, scores, used_of
from registry.placement_rules import DIMENSIONS, NO_MEMBERS, Camera, Members, Node
from registry.placement_table import Cameras, Floats, Nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One node as it was considered for a camera.

    Attributes:
        rank: 1 for the node that the camera would be placed on now, 2 for the next; 0: refused.
        load: of the node without the camera; 1 is full.
        load_with: of the node with the camera.
        group: cameras of its group where the node is.
        is_avoided: the camera's source could not be reached from there.
        refusals: every reason why it cannot take the camera; none when it can.
    """

    node_id: NodeId
    rank: int
    load: float
    load_with: float
    group: int
    is_avoided: bool
    refusals: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a camera is where it is.

    Attributes:
        node_id: its owner; empty: it has none.
        best: where it would be placed now; empty: nowhere.
        sentence: the answer in words.
        candidates: all nodes, by rank, then the refused ones by id.
    """

    camera_id: CameraId
    node_id: NodeId | str
    best: NodeId | str
    sentence: str
    candidates: tuple[Candidate, ...]

    def of(self, node_id: str) -> Candidate | None:
        """How a node stands, for example for a camera that is to be moved there by hand; None: no such node."""
        return next((one for one in self.candidates if one.node_id == node_id), None)


def explain(camera: Camera, nodes: Iterable[Node], *, owner: str = "", members: Members = NO_MEMBERS) -> Explanation:
    """Tell how each node stands for a camera, as if it had no owner.

    Args:
        camera: the camera.
        nodes: all nodes with what they use, this camera's part included where it is.
        owner: the node that owns it; empty: none.
        members: how many cameras of its group each node owns, itself included.
    """
    table = Nodes.of(nodes)
    candidates = tuple(_ranked(_Question(camera, table, owner, members)))
    best = next((one.node_id for one in candidates if one.rank == 1), "")
    return Explanation(
        camera_id=camera.camera_id,
        node_id=owner,
        best=best,
        sentence=_sentence(owner, best, candidates),
        candidates=candidates,
    )


class _Question:
    """One camera against all nodes; arrays are by row of the node."""

    def __init__(self, camera: Camera, nodes: Nodes, owner: str, members: Members) -> None:
        self.camera, self.nodes = camera, nodes
        table = Cameras.of([camera])
        need, scales = needs_of(table.cost)[:, 0], Scales.of(nodes)
        self.need, self.per = need, scales.per
        self.used = _without(used_of(nodes), nodes.row_of().get(owner), need)
        after = self.used + need[:, None]
        self.load, self.load_with = loads(self.used, self.per), loads(after, self.per)
        self.score = scores(self.used, need, self.per)
        self.fits = fills(after, self.per) <= FULL
        self.crowd = np.zeros(len(nodes))
        if camera.spread is not None:
            crowd = Crowd(table.spreads, nodes, members)
            if owner in nodes.row_of():
                crowd.add(0, nodes.row_of()[owner], -1)
            self.crowd = np.maximum(crowd.among(0, np.arange(len(nodes))), 0.0)

    def refusals(self, row: int) -> Iterator[str]:
        """Every reason of one node."""
        camera, nodes = self.camera, self.nodes
        if nodes.closed[row]:
            yield f"takes no camera: {nodes.closed[row]}"
        for label, value in sorted(camera.needs.items()):
            has = nodes.labels[row].get(label)
            if has != value:
                yield f"needs {label}={value}, node has " + ("no such label" if has is None else f"{label}={has}")
        models = nodes.models[row]
        if camera.model and models is not None and camera.model not in models:
            yield f"model {camera.model} is not there"
        if not self.fits[row]:
            yield from self._shortages(row)
        if camera.spread is not None and camera.spread.hard and self.crowd[row]:
            yield f"has {int(self.crowd[row])} of group {camera.spread.group} already"

    def _shortages(self, row: int) -> Iterator[str]:
        for number, name in enumerate(DIMENSIONS):
            need, used = self.need[number], self.used[number, row]
            if (used + need) * self.per[number, row] > FULL:
                free = max(0.0, self.nodes.capacity[row, number] - used)
                yield f"needs {need:g} {name}, {free:g} of {self.nodes.capacity[row, number]:g} is free"


def _without(used: Floats, row: int | None, need: Floats) -> Floats:
    """What is used without the camera; not below 0, for its cost may have been measured anew since it was counted."""
    if row is not None:
        used[:, row] = np.maximum(used[:, row] - need, 0.0)
    return used


def _ranked(asked: _Question) -> Iterator[Candidate]:
    """All nodes in the order in which placement prefers them, then those that refuse."""
    ids, avoid = asked.nodes.ids, asked.camera.avoid
    refused = [tuple(asked.refusals(row)) for row in range(len(ids))]
    able = [row for row in range(len(ids)) if not refused[row]]
    able.sort(key=lambda row: (ids[row] in avoid, asked.crowd[row], asked.score[row], row))
    unable = [row for row in range(len(ids)) if refused[row]]
    for rank, row in [*enumerate(able, 1), *((0, row) for row in unable)]:
        yield Candidate(
            node_id=ids[row],
            rank=rank,
            load=float(asked.load[row]),
            load_with=float(asked.load_with[row]),
            group=int(asked.crowd[row]),
            is_avoided=ids[row] in avoid,
            refusals=refused[row],
        )


def _sentence(owner: str, best: str, candidates: tuple[Candidate, ...]) -> str:
    able = sum(1 for one in candidates if one.rank)
    of = f"{able} of {len(candidates)} nodes can take it"
    if not owner:
        return f"has no owner: {of}" + (f", {best} is next" if best else "")
    if owner == best:
        return f"on {owner}, which would be chosen again: {of}"
    now = f"{best} would be chosen now" if best else "no node would be chosen now"
    return f"on {owner}, where it stays while the node lives: {of}, {now}"
