"""Which nodes are offered to a camera, by what it must have: an open node, labels, a model.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from registry.placement_rules import Why
from registry.placement_table import Demand, Flags, Indices, Nodes


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """The nodes offered to the cameras of one demand.

    Attributes:
        rows: rows of the nodes, ascending.
        none: why there are none; None when there are some.
    """

    rows: Indices
    none: Why | None


class Offers:
    """Finds the nodes for demands; looks at each node once, not once for each demand."""

    def __init__(self, nodes: Nodes) -> None:
        self._takes = nodes.takes
        self._nodes = nodes
        self._having: dict[tuple[str, str], list[int]] = {}
        self._with_model: dict[str, list[int]] = {}
        self._any_model: list[int] = []
        self._is_indexed = False

    def of(self, demand: Demand) -> Offer:
        """The nodes that may take cameras of this demand."""
        fit = self._takes
        for narrowed, why in self._steps(demand):
            fit = fit & narrowed
            if not fit.any():
                return Offer(np.flatnonzero(fit), why)
        return Offer(np.flatnonzero(fit), None)

    def _steps(self, demand: Demand) -> Iterator[tuple[Flags, Why]]:
        yield self._takes, Why.CLOSED
        if demand != Demand():
            self._index()
        for need in demand.needs:
            yield self._flags(self._having.get(need, [])), Why.LABELS
        if demand.model:
            yield self._flags(self._any_model + self._with_model.get(demand.model, [])), Why.MODEL

    def _flags(self, rows: list[int]) -> Flags:
        flags = np.zeros(len(self._nodes), np.bool_)
        flags[rows] = True
        return flags

    def _index(self) -> None:
        if self._is_indexed:
            return
        self._is_indexed = True
        for row, (labels, models) in enumerate(zip(self._nodes.labels, self._nodes.models, strict=True)):
            for label in labels.items():
                self._having.setdefault(label, []).append(row)
            if models is None:
                self._any_model.append(row)
            for model in models or ():
                self._with_model.setdefault(model, []).append(row)
