"""Cameras and nodes as columns, checked once, when made.

Pure.  Rows ascend by id: an order of the input cannot change an answer, and ties are broken by row number.  A table is
made from `Camera`s and `Node`s, or at once from arrays where there are a million.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nodeagent.contract.ownership import Resources
from registry.placement_rules import DIMENSIONS, ESTIMATE, Camera, Node, Spread

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]

#: Row of "none" in columns of row numbers.
NONE = -1


@dataclass(frozen=True, slots=True, order=True)
class Demand:
    """What a camera's node must have: labels with their values, ascending, and a model (empty: any)."""

    needs: tuple[tuple[str, str], ...] = ()
    model: str = ""


def vector(resources: Resources) -> tuple[float, ...]:
    """The resources in the order of `DIMENSIONS`."""
    return (resources.decode_cores, resources.infer_per_s, resources.ring_bytes, resources.write_bytes_s)


@dataclass(frozen=True, slots=True, eq=False)
class Cameras:
    """N cameras.

    Attributes:
        ids: ascending, each once.
        cost: (N, 4) float64, what each needs, in the order and units of `DIMENSIONS`.
        demands: the different demands, ascending.
        demand: (N,) row of each camera in `demands`.
        spreads: the different spreads.
        spread: (N,) row of each camera in `spreads`, `NONE` for none.
        avoid: nodes to avoid, by row of the camera; only of cameras that avoid any.
    """

    ids: Sequence[str]
    cost: Floats
    demands: tuple[Demand, ...]
    demand: Indices
    spreads: tuple[Spread, ...]
    spread: Indices
    avoid: Mapping[int, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.ids)
        _check_ids(self.ids)
        _check_amounts("cost", self.cost, count)
        for name, column, most in (("demand", self.demand, self.demands), ("spread", self.spread, self.spreads)):
            if column.shape != (count,) or (count and not NONE <= column.min() <= column.max() < len(most)):
                raise ValueError(f"{name}: expected ({count},) rows of {len(most)}")
        if count and self.demand.min() == NONE:
            raise ValueError("demand: every camera has one")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, cameras: Iterable[Camera], estimate: Resources = ESTIMATE) -> Cameras:
        """The table of these cameras; `estimate` is what one needs that was never measured.

        Raises:
            ValueError: a camera is there twice.
        """
        rows = sorted(cameras, key=lambda camera: camera.camera_id)
        wanted = [Demand(tuple(sorted(camera.needs.items())), camera.model) for camera in rows]
        demands = tuple(sorted(set(wanted)))
        demand_row = {demand: row for row, demand in enumerate(demands)}
        found = {camera.spread for camera in rows if camera.spread is not None}
        spreads = tuple(sorted(found, key=lambda spread: (spread.group, spread.over, spread.hard)))
        spread_row: dict[Spread | None, int] = {None: NONE, **{spread: row for row, spread in enumerate(spreads)}}
        return cls(
            ids=[camera.camera_id for camera in rows],
            cost=_amounts([vector(estimate if camera.cost is None else camera.cost) for camera in rows]),
            demands=demands,
            demand=np.array([demand_row[demand] for demand in wanted], np.intp),
            spreads=spreads,
            spread=np.array([spread_row[camera.spread] for camera in rows], np.intp),
            avoid={row: camera.avoid for row, camera in enumerate(rows) if camera.avoid},
        )

    @classmethod
    def alike(cls, ids: Sequence[str], cost: Floats) -> Cameras:
        """Cameras with these ids, ascending, and costs, (N, 4), that any node may take."""
        count = len(ids)
        return cls(ids, cost, (Demand(),), np.zeros(count, np.intp), (), np.full(count, NONE, np.intp))

    def take(self, rows: Indices) -> Cameras:
        """The cameras of these rows, which ascend."""
        avoid = {at: self.avoid[row] for at, row in enumerate(rows.tolist()) if row in self.avoid} if self.avoid else {}
        ids = [self.ids[row] for row in rows.tolist()]
        return Cameras(ids, self.cost[rows], self.demands, self.demand[rows], self.spreads, self.spread[rows], avoid)


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """M nodes.

    Attributes:
        ids: ascending, each once.
        capacity: (M, 4) float64 in the order and units of `DIMENSIONS`; a row of NaN where it is not known.
        used: (M, 4) float64, what the cameras that each owns need together.
        cameras: (M,) float64, how many cameras each owns.
        closed: why a node takes no camera, empty where it does.
        labels: of each.
        models: of each; None where it did not tell.
    """

    ids: Sequence[str]
    capacity: Floats
    used: Floats
    cameras: Floats
    closed: Sequence[str]
    labels: Sequence[Mapping[str, str]]
    models: Sequence[frozenset[str] | None]

    def __post_init__(self) -> None:
        count = len(self.ids)
        _check_ids(self.ids)
        known = self.known
        _check_amounts("capacity", np.where(known[:, None], self.capacity, 0.0), count)
        _check_amounts("used", self.used, count)
        sizes = {len(self.cameras), len(self.closed), len(self.labels), len(self.models)}
        if sizes != {count}:
            raise ValueError(f"expected {count} rows in every column, got {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Nodes:
        """The table of these nodes.

        Raises:
            ValueError: a node is there twice.
        """
        rows = sorted(nodes, key=lambda node: node.node_id)
        unknown = (np.nan,) * len(DIMENSIONS)
        return cls(
            ids=[node.node_id for node in rows],
            capacity=_amounts([unknown if node.capacity is None else vector(node.capacity) for node in rows]),
            used=_amounts([vector(node.used) for node in rows]),
            cameras=np.array([node.cameras for node in rows], np.float64),
            closed=[node.closed for node in rows],
            labels=[node.labels for node in rows],
            models=[node.models for node in rows],
        )

    @property
    def known(self) -> Flags:
        """(M,) bool, whose capacity is known."""
        known: Flags = np.logical_not(np.isnan(self.capacity).any(axis=1))
        return known

    @property
    def takes(self) -> Flags:
        """(M,) bool, which take cameras."""
        return np.array([not reason for reason in self.closed], np.bool_)

    def row_of(self) -> dict[str, int]:
        """Row of each node by its id."""
        return {node_id: row for row, node_id in enumerate(self.ids)}

    def close(self, reasons: Mapping[str, str]) -> Nodes:
        """The same, but the nodes with these ids take no camera, for these reasons."""
        closed = [reasons.get(node_id, was) for node_id, was in zip(self.ids, self.closed, strict=True)]
        return replace(self, closed=closed)


def _amounts(rows: Sequence[tuple[float, ...]]) -> Floats:
    return np.array(rows, np.float64).reshape(len(rows), len(DIMENSIONS))


def _check_ids(ids: Sequence[str]) -> None:
    for one, other in pairwise(ids):
        if one >= other:
            raise ValueError(f"ids ascend and are there once: {one!r} stands before {other!r}")


def _check_amounts(name: str, amounts: Floats, count: int) -> None:
    if amounts.dtype != np.float64 or amounts.shape != (count, len(DIMENSIONS)):
        raise ValueError(f"{name}: expected ({count}, {len(DIMENSIONS)}) float64, got {amounts.shape} {amounts.dtype}")
    if amounts.size and not (amounts.min() >= 0 and amounts.max() < np.inf):
        raise ValueError(f"{name}: expected finite numbers from 0 on")
