"""Slow moves from full nodes to emptier ones, after a node joined or costs changed.

Pure.  A move costs a camera a second or two of picture, so there are few: at most one in a hundred cameras a minute,
a camera that moved lately stays, and nothing moves while nodes differ by no more than a margin; once something moves,
it goes on to a smaller margin and then rests.

A camera moves only if its new node is no fuller afterwards than the one that it left.  So each move lowers the fuller
of the two and raises neither above it: with the same costs no state comes twice, and it ends.

A closed node (one that drains, or came back a moment ago) neither gives nor gets, and does not count in the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nodeagent.contract.ids import CameraId, NodeId
from registry.placement_crowd import Crowd
from registry.placement_load import FULL, LIMITED, Scales, fills, loads, needs_of, scores
from registry.placement_offer import Offers
from registry.placement_rules import NO_MEMBERS, Camera
from registry.placement_table import NONE, Cameras, Floats, Indices, Nodes

#: Difference of two nodes' loads, in parts of the mean load, from which on cameras move.  Less is within what measured
#: costs vary by from hour to hour.
START_MARGIN = 0.2
#: Difference at which moving ends.  Far below the start, so that a small change of costs does not start it again.
STOP_MARGIN = 0.1
#: Part of all cameras that may move within a minute, however they moved, when nobody says otherwise.
PART_PER_MINUTE = 0.01
#: The time that this part is counted over, seconds.
MINUTE_S = 60.0
#: Moves of one call at most: a call stays short with a million cameras, and the rest comes with the next.
MOVES_MOST = 100
#: How long a camera stays where it was moved to, seconds.  Long enough to measure what it costs there.
REST_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A camera with an owner.

    Attributes:
        moved_s: when it got this owner, by the clock that is given to `rebalance`.
    """

    camera: Camera
    node_id: NodeId
    moved_s: float = float("-inf")


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """All cameras and who owns them.

    Attributes:
        cameras: N cameras.
        nodes: M nodes; what they use follows from `owner`.
        owner: (N,) row of the node that owns each, `NONE` for nobody or a node that is not in `nodes`.
        moved_s: (N,) when each got its owner.
    """

    cameras: Cameras
    nodes: Nodes
    owner: Indices
    moved_s: Floats

    def __post_init__(self) -> None:
        count = len(self.cameras)
        if self.owner.shape != (count,) or self.moved_s.shape != (count,):
            raise ValueError(f"expected an owner and a time for each of {count} cameras")
        if count and not NONE <= self.owner.min() <= self.owner.max() < len(self.nodes):
            raise ValueError(f"owner: expected rows of {len(self.nodes)} nodes")

    @classmethod
    def of(cls, placed: Iterable[Placed], nodes: Nodes) -> Fleet:
        """The fleet of these cameras.

        Raises:
            ValueError: a camera is there twice.
        """
        ordered = sorted(placed, key=lambda one: one.camera.camera_id)
        rows = nodes.row_of()
        return cls(
            cameras=Cameras.of(one.camera for one in ordered),
            nodes=nodes,
            owner=np.array([rows.get(one.node_id, NONE) for one in ordered], np.intp),
            moved_s=np.array([one.moved_s for one in ordered], np.float64),
        )

    def used(self) -> Floats:
        """(5, M) what the cameras that each node owns need."""
        owned = self.owner != NONE
        owner, need = self.owner[owned], needs_of(self.cameras.cost[owned])
        return np.stack([np.bincount(owner, weights=row, minlength=len(self.nodes)) for row in need])

    def nodes_used(self) -> Nodes:
        """The nodes with what they use by these cameras, as `place` wants them."""
        used = self.used()
        return replace(self.nodes, used=np.ascontiguousarray(used[:LIMITED].T), cameras=used[LIMITED])


@dataclass(frozen=True, slots=True)
class Move:
    """A camera that is to go from one node to another.

    Attributes:
        gap: by how much the one it leaves is fuller than the other before, in parts of the mean load.
    """

    camera_id: CameraId
    leaves: NodeId
    goes_to: NodeId
    gap: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to move now.

    Attributes:
        going: to be given to the next call: whether moving has begun and is not at its end.
    """

    moves: tuple[Move, ...]
    going: bool


def allowance(fleet: Fleet, now_s: float, part_per_minute: float = PART_PER_MINUTE) -> int:
    """How many cameras may move now, so that in no minute more than this part of them, or one, moved."""
    lately = int(np.count_nonzero(fleet.moved_s > now_s - MINUTE_S))
    a_minute = max(1, int(part_per_minute * len(fleet.cameras)))
    return max(0, min(MOVES_MOST, a_minute - lately))


def rebalance(fleet: Fleet, now_s: float, going: bool = False, part_per_minute: float = PART_PER_MINUTE) -> Plan:
    """The next moves; none while the nodes are even enough, or too much moved lately.

    Args:
        fleet: all cameras and nodes.
        now_s: any clock that never goes back, the one of `moved_s`.
        going: from the plan of the call before; False for the first.
        part_per_minute: of all cameras at most this part moves within a minute, but one may always.
    """
    allowed = allowance(fleet, now_s, part_per_minute)
    if not allowed:
        return Plan((), going)
    balance = _Balance(fleet, now_s)
    moves: list[Move] = []
    while len(moves) < allowed:
        move = balance.next(STOP_MARGIN if going else START_MARGIN)
        if move is None:
            return Plan(tuple(moves), False)
        moves.append(move)
        going = True
    return Plan(tuple(moves), going)


@dataclass(frozen=True, slots=True)
class _Found:
    """A possible move: rows of camera and node, and the load of the node that it leaves, afterwards."""

    left: float
    camera: int
    node: int


class _Balance:
    """The loads while moves are chosen."""

    def __init__(self, fleet: Fleet, now_s: float) -> None:
        self._fleet = fleet
        self._cameras = fleet.cameras
        self._owner = fleet.owner.copy()
        self._per = Scales.of(fleet.nodes).per
        self._used = fleet.used()
        self._need = needs_of(fleet.cameras.cost)
        self._takes = fleet.nodes.takes
        self._offers = Offers(fleet.nodes)
        self._offered: dict[int, Indices] = {}
        self._rested = fleet.moved_s <= now_s - REST_S
        #: Nodes that no camera can leave in this call: others only get fuller meanwhile.
        self._stuck: set[int] = set()
        self._counted: Crowd | None = None

    def next(self, margin: float) -> Move | None:
        """The next move, of a camera of the fullest node that one can leave; carried out in the loads."""
        load = loads(self._used, self._per)
        if not self._takes.any() or not (mean := float(load[self._takes].mean())):
            return None
        least = load[self._takes].min()
        for giver in np.argsort(-load, kind="stable").tolist():
            if load[giver] - least <= margin * mean:
                return None
            if not self._takes[giver] or giver in self._stuck:
                continue
            found = min(self._from(giver, load, margin * mean), key=lambda one: (one.left, one.camera), default=None)
            if found is not None:
                gap = float(load[giver] - load[found.node]) / mean
                ids = self._fleet.nodes.ids
                move = Move(self._cameras.ids[found.camera], ids[giver], ids[found.node], gap)
                self._carry_out(found, giver)
                return move
            self._stuck.add(giver)
        return None

    def _from(self, giver: int, load: Floats, gap: float) -> Iterator[_Found]:
        """The best move of each demand from a node to the best of those that are emptier by more than `gap`."""
        owned = np.flatnonzero((self._owner == giver) & self._rested)
        for demand in np.unique(self._cameras.demand[owned]).tolist():
            takers = self._to(demand)
            takers = takers[load[giver] - load[takers] > gap]
            if len(takers):
                rows = owned[self._cameras.demand[owned] == demand]
                score = scores(self._used[:, takers], self._need[:, rows].mean(axis=1), self._per[:, takers])
                yield from self._best(rows, giver, int(takers[np.argmin(score)]), float(load[giver]))

    def _best(self, rows: Indices, giver: int, taker: int, before: float) -> Iterator[_Found]:
        """The camera of these whose move leaves the giver least full, if there is one that may move."""
        need = self._need[:, rows]
        left = loads(self._used[:, [giver]] - need, self._per[:, [giver]])
        got = self._used[:, [taker]] + need
        after = loads(got, self._per[:, [taker]])
        may = (fills(got, self._per[:, [taker]]) <= FULL) & (after <= left) & (left < before)
        for at in np.flatnonzero(may)[np.argsort(left[may], kind="stable")].tolist():
            if self._may_go(int(rows[at]), giver, taker):
                yield _Found(float(left[at]), int(rows[at]), taker)
                return

    def _to(self, demand: int) -> Indices:
        if demand not in self._offered:
            self._offered[demand] = self._offers.of(self._cameras.demands[demand]).rows
        return self._offered[demand]

    def _may_go(self, camera: int, giver: int, taker: int) -> bool:
        """Whether the taker was not tried before without success, and the camera is no closer to its group there."""
        if self._fleet.nodes.ids[taker] in self._cameras.avoid.get(camera, ()):
            return False
        spread = int(self._cameras.spread[camera])
        if spread == NONE:
            return True
        crowd = self._crowd()
        if crowd.same_place(spread, giver, taker):
            return True
        there = crowd.at(spread, taker)
        return there == 0 if crowd.is_hard(spread) else there < crowd.at(spread, giver)

    def _crowd(self) -> Crowd:
        """The counts of all groups, made when first asked for: often no camera that could move has one."""
        if self._counted is None:
            self._counted = Crowd(self._cameras.spreads, self._fleet.nodes, NO_MEMBERS)
            for camera in np.flatnonzero((self._cameras.spread != NONE) & (self._owner != NONE)).tolist():
                self._counted.add(int(self._cameras.spread[camera]), int(self._owner[camera]))
        return self._counted

    def _carry_out(self, found: _Found, giver: int) -> None:
        need = self._need[:, found.camera]
        self._used[:, giver] -= need
        self._used[:, found.node] += need
        spread = int(self._cameras.spread[found.camera])
        if spread != NONE:
            self._crowd().add(spread, giver, -1)
            self._crowd().add(spread, found.node)
        self._owner[found.camera] = found.node
        self._rested[found.camera] = False
