"""Which points lie in which polygons, for all of a camera's polygons in one go.

Pure.  Coordinates are normalised: x to the right, y down.  A polygon given twice is tested once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import shapely

from nodeagent.contract.geometry import Anchor, Point
from nodeagent.judge.association import Flags, Floats

#: Height of each anchor in its box: 0 top, 1 bottom.
_ANCHOR_HEIGHT: Final[dict[Anchor, float]] = {"top_centre": 0.0, "centre": 0.5, "bottom_centre": 1.0}


#: A box that is cut off by the picture's edge has its anchor on the edge, where a zone that reaches there would miss
#: it; points are moved in by this, fraction of the picture (far less than a pixel).
EDGE: Final = 1e-6


def anchor_points(x1: Floats, y1: Floats, x2: Floats, y2: Floats, anchor: Anchor) -> tuple[Floats, Floats]:
    """Coordinates x and y of the deciding point of each box, (n,) each."""
    down = _ANCHOR_HEIGHT[anchor]
    return np.clip(0.5 * (x1 + x2), EDGE, 1.0 - EDGE), np.clip(y1 + down * (y2 - y1), EDGE, 1.0 - EDGE)


class Polygons:
    """A fixed list of polygons, prepared for many point tests."""

    def __init__(self, polygons: Sequence[tuple[Point, ...]]) -> None:
        different = list(dict.fromkeys(polygons))
        self._shapes = [shapely.Polygon(points) for points in different]
        for shape in self._shapes:
            shapely.prepare(shape)
        #: Row of `_shapes` of each polygon.
        self._place = np.array([different.index(points) for points in polygons], np.intp)

    def __len__(self) -> int:
        return len(self._place)

    def contain(self, x: Floats, y: Floats) -> Flags:
        """(n points, n polygons) bool: whether the point lies inside.  Points exactly on an edge lie outside."""
        inside = np.empty((len(self._shapes), len(x)), np.bool_)
        for row, shape in enumerate(self._shapes):
            left, top, right, bottom = shape.bounds
            near = ((x > left) & (x < right) & (y > top) & (y < bottom)).nonzero()[0]
            inside[row] = False
            if near.size:
                inside[row, near] = shapely.contains_xy(shape, x[near], y[near])
        return np.ascontiguousarray(inside[self._place].T)
