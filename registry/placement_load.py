"""How full a node is, and how full a camera would make it.

Pure.  A node's load is its fullest resource: used / capacity.  A node of unknown capacity has cameras owned / cameras
that an ordinary node carries instead: a fifth dimension in which each camera needs 1 and which is nobody's limit.  So
arrays here are (5, n): the four of `DIMENSIONS`, then the number of cameras.

A node's score for a camera is the load that it would have with it, so a big camera does not go to a small empty node,
nor to one that lacks just what the camera needs most.  It never falls when a node gets more to do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from registry.placement_rules import CAMERAS_PER_NODE, DIMENSIONS, ESTIMATE
from registry.placement_table import Floats, Nodes, vector

#: Rows of resources that a node runs short of, before the row of the number of cameras.
LIMITED = len(DIMENSIONS)
#: A node is full at a load of 1; sums of many measured costs may be off by this.
FULL = 1.0 + 1e-9
#: Adds to the score per camera owned, so that cameras which are said to need nothing are spread by number.
PER_CAMERA = 1e-9
#: Stands for 1 / capacity of a resource that a node lacks: the smallest need overfills it.
_LACKS = 1e30


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """What loads are measured by.

    Attributes:
        per: (5, M) float64, 1 / capacity of each node; 0 where a dimension says nothing of it.
        ordinary: (4,) float64, mean capacity of the nodes that told theirs; zeros when none did.
    """

    per: Floats
    ordinary: Floats

    @classmethod
    def of(cls, nodes: Nodes) -> Scales:
        """The scales of these nodes."""
        known = nodes.known
        told = nodes.capacity[known]
        ordinary = told.mean(axis=0) if len(told) else np.zeros(LIMITED)
        per = np.zeros((LIMITED + 1, len(nodes)))
        per[:LIMITED, known] = np.divide(1.0, told, out=np.full(told.shape, _LACKS), where=told > 1.0 / _LACKS).T
        share = float(_share(np.array([vector(ESTIMATE)]), ordinary)[0])
        per[LIMITED, ~known] = share or 1.0 / CAMERAS_PER_NODE
        return cls(per, ordinary)

    def sizes(self, cost: Floats) -> Floats:
        """(N,) the part of an ordinary node that each camera takes; `cost` is (N, 4)."""
        return _share(cost, self.ordinary)


def needs_of(cost: Floats) -> Floats:
    """(5, n) what cameras of these costs, (n, 4), need, each counted as 1 in the last row."""
    return np.concatenate((cost.T, np.ones((1, len(cost)))))


def used_of(nodes: Nodes) -> Floats:
    """(5, M) what is used of each node, its number of cameras in the last row."""
    return np.concatenate((nodes.used.T, nodes.cameras[None]))


def fills(used: Floats, per: Floats) -> Floats:
    """(n,) load by the resources that may not be exceeded; at most `FULL` is kept capacity.  Both are (5, n)."""
    filled: Floats = (used[:LIMITED] * per[:LIMITED]).max(axis=0)
    return filled


def loads(used: Floats, per: Floats) -> Floats:
    """(n,) load.  Both are (5, n)."""
    loaded: Floats = (used * per).max(axis=0)
    return loaded


def scores(used: Floats, need: Floats, per: Floats) -> Floats:
    """(n,) load that each node would have with one more camera of this need, (5,); ties go to fewer cameras."""
    score: Floats = loads(used + need[:, None], per) + used[LIMITED] * PER_CAMERA
    return score


def _share(cost: Floats, ordinary: Floats) -> Floats:
    have = ordinary > 0
    share: Floats = (cost[:, have] / ordinary[have]).max(axis=1, initial=0.0)
    return share
