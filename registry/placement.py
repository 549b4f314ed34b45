"""Which node gets which camera.

Pure.  Only cameras without an owner are placed; what has one stays where it is, however uneven that is.  Cameras of the
demand that fewest nodes meet go first, for the rest has more choice; among them the biggest go first, for small ones
fill the gaps.  Nothing depends on the order of the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from registry.placement_crowd import Crowd
from registry.placement_fill import CODE, WHYS, Filling, Queue, ascending, steps
from registry.placement_load import FULL, LIMITED, Scales, loads, used_of
from registry.placement_offer import Offer, Offers
from registry.placement_rules import DIMENSIONS, NO_MEMBERS, SENTENCES, Decision, Members, Why
from registry.placement_table import NONE, Cameras, Flags, Floats, Indices, Nodes

#: Why a node takes none while it is asked what the others could take of it.
LEAVING: Final = "leaving"


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where N cameras go.

    Attributes:
        cameras: the cameras.
        nodes: the nodes with what they own afterwards.
        node: (N,) row of each camera's node, `NONE` for none.
        why: (N,) reason, as a place in `WHYS`.
        load: (N,) load of the node when it got the camera; NaN for none.
        offers: nodes that were offered, by row of the demand.
    """

    cameras: Cameras
    nodes: Nodes
    node: Indices
    why: Indices
    load: Floats
    offers: dict[int, Offer]

    @property
    def unplaced(self) -> Flags:
        """(N,) bool, cameras that no node takes."""
        unplaced: Flags = self.node == NONE
        return unplaced

    @property
    def is_complete(self) -> bool:
        """Whether every camera has a node."""
        return not self.unplaced.any()

    def loads(self) -> Floats:
        """(M,) load of each node afterwards."""
        return loads(used_of(self.nodes), Scales.of(self.nodes).per)

    def decisions(self) -> Iterator[Decision]:
        """One for each camera, by id."""
        short = _Shortage(self)
        for row, (node, code) in enumerate(zip(self.node.tolist(), self.why.tolist(), strict=True)):
            why = WHYS[code]
            if node == NONE:
                yield Decision(self.cameras.ids[row], None, why, short.sentence(row, why))
                continue
            offered = len(self.offers[int(self.cameras.demand[row])].rows)
            detail = f"{SENTENCES[why]}; load {self.load[row]:.3f} with it, {_count(offered)} asked"
            yield Decision(self.cameras.ids[row], self.nodes.ids[node], why, detail)


def place(orphans: Cameras, nodes: Nodes, *, members: Members = NO_MEMBERS, forced: bool = False) -> Placement:
    """Find a node for each of these cameras, which have none.

    Args:
        orphans: the cameras.
        nodes: all nodes; one that is closed gets none.
        members: how many cameras of the orphans' groups each node owns already.
        forced: what would have no node goes over the capacity of one; labels, model and hard spreads are kept even so.
    """
    scales = Scales.of(nodes)
    avoid = _avoid(orphans, nodes)
    special = orphans.spread != NONE
    special[list(avoid)] = True
    queue = Queue(
        cost=orphans.cost,
        size=scales.sizes(orphans.cost),
        spread=orphans.spread,
        avoid=avoid,
        special=special,
        node=np.full(len(orphans), NONE, np.intp),
        why=np.full(len(orphans), CODE[Why.ROOM], np.intp),
        load=np.full(len(orphans), np.nan),
    )
    crowd = Crowd(orphans.spreads, nodes, members)
    used = used_of(nodes)
    offers = _offers(orphans, nodes)
    turns = list(_turns(orphans, queue.size, offers))
    for demand, cameras in turns:
        _fill(queue, crowd, offers[demand], cameras, used, scales, FULL)
    if forced:
        for demand, cameras in turns:
            left = cameras[queue.node[cameras] == NONE]
            _fill(queue, crowd, offers[demand], left, used, scales, np.inf)
            queue.why[left[queue.node[left] != NONE]] = CODE[Why.FORCED]
    after = replace(nodes, used=np.ascontiguousarray(used[:LIMITED].T), cameras=used[LIMITED])
    return Placement(orphans, after, queue.node, queue.why, queue.load, offers)


def capacity_without(node_id: str, owned: Cameras, nodes: Nodes, members: Members = NO_MEMBERS) -> Placement:
    """Where a node's cameras would go without it; `is_complete` says whether the others have room for all.

    Args:
        node_id: the node that would leave.
        owned: its cameras.
        nodes: all nodes.
        members: how many cameras of their groups each node owns, this node's included.
    """
    others = {group: {i: n for i, n in counts.items() if i != node_id} for group, counts in members.items()}
    return place(owned, nodes.close({node_id: LEAVING}), members=others)


def _avoid(orphans: Cameras, nodes: Nodes) -> dict[int, frozenset[int]]:
    """Rows of the nodes that cameras avoid, by row of the camera."""
    rows = nodes.row_of() if orphans.avoid else {}
    return {at: frozenset(rows[i] for i in ids if i in rows) for at, ids in orphans.avoid.items()}


def _offers(orphans: Cameras, nodes: Nodes) -> dict[int, Offer]:
    """What is offered to each demand that a camera has."""
    finder = Offers(nodes)
    there = np.flatnonzero(np.bincount(orphans.demand, minlength=len(orphans.demands)))
    return {demand: finder.of(orphans.demands[demand]) for demand in there.tolist()}


def _turns(orphans: Cameras, size: Floats, offers: dict[int, Offer]) -> Iterator[tuple[int, Indices]]:
    """Demands, the scarcest first, and their cameras, the biggest first; ties by id."""
    demands = sorted(offers, key=lambda demand: (len(offers[demand].rows), demand))
    order = ascending(-size)
    if len(demands) > 1:
        turn = np.zeros(len(orphans.demands), np.uint16 if len(demands) < 2**16 else np.int64)
        turn[demands] = np.arange(len(demands))
        order = order[np.argsort(turn[orphans.demand[order]], kind="stable")]
    counts = np.bincount(orphans.demand, minlength=len(orphans.demands))
    start = 0
    for demand in demands:
        end = start + int(counts[demand])
        yield demand, order[start:end]
        start = end


def _fill(
    queue: Queue, crowd: Crowd, offer: Offer, cameras: Indices, used: Floats, scales: Scales, full: float
) -> None:
    """Place cameras of one demand, the biggest first; `used`, (5, M), grows."""
    if offer.none is not None:
        queue.why[cameras] = CODE[offer.none]
        return
    theirs = np.take(used, offer.rows, axis=1)
    filling = Filling(queue, crowd, offer.rows, theirs, np.take(scales.per, offer.rows, axis=1), full)
    for step in steps(queue.size[cameras]):
        filling.fill(cameras[step])
    used[:, offer.rows] = theirs


class _Shortage:
    """Says what is missing for cameras that were not placed, by what is free when all is placed."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._free: dict[int, Floats] = {}

    def sentence(self, row: int, why: Why) -> str:
        """The reason for a camera with its figures."""
        if why is not Why.ROOM:
            return SENTENCES[why]
        demand = int(self._placement.cameras.demand[row])
        offer = self._placement.offers[demand]
        if demand not in self._free:
            nodes = self._placement.nodes
            self._free[demand] = np.maximum(nodes.capacity - nodes.used, 0.0)[offer.rows].max(axis=0)
        free, cost = self._free[demand], self._placement.cameras.cost[row]
        short = [
            f"needs {need:g} {name}, at most {most:g} is free"
            for name, need, most in zip(DIMENSIONS, cost.tolist(), free.tolist(), strict=True)
            if need > most
        ]
        missing = "; ".join(short) or "no node has room for all that it needs together"
        return f"{SENTENCES[why]} ({_count(len(offer.rows))}): {missing}"


def _count(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"{nodes} nodes"
