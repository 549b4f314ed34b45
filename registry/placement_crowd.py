"""How many cameras of a group are in each place: on a node, or on all nodes with one value of a label.

Pure.  Nodes that lack the label are one place together: nothing says that they are apart.
"""

from __future__ import annotations

import numpy as np

from registry.placement_rules import Members, Spread
from registry.placement_table import Floats, Indices, Nodes


class Crowd:
    """Counts the members of groups while cameras are placed."""

    def __init__(self, spreads: tuple[Spread, ...], nodes: Nodes, members: Members) -> None:
        """Args:
        spreads: those that will be asked for; `members` of other groups are not looked at.
        """
        self._spreads = spreads
        self._nodes = nodes
        self._places: dict[str, Indices] = {spread.over: self._places_of(spread.over) for spread in spreads}
        self._overs: dict[str, tuple[str, ...]] = {}
        for spread in spreads:
            self._overs[spread.group] = tuple(sorted({*self._overs.get(spread.group, ()), spread.over}))
        self._counts: dict[tuple[str, str], dict[int, int]] = {(s.group, s.over): {} for s in spreads}
        rows = nodes.row_of() if spreads else {}
        for group in self._overs:
            for node_id, count in members.get(group, {}).items():
                if node_id in rows and count:
                    self._count(group, rows[node_id], count)

    def add(self, spread: int, node: int, by: int = 1) -> None:
        """Count so many more cameras of a spread on a node; both are rows."""
        self._count(self._spreads[spread].group, node, by)

    def at(self, spread: int, node: int) -> int:
        """How many of the spread's group are where this node is."""
        of = self._spreads[spread]
        return self._counts[of.group, of.over].get(int(self._places[of.over][node]), 0)

    def among(self, spread: int, nodes: Indices) -> Floats:
        """(n,) how many of the spread's group are where each of these nodes is."""
        of = self._spreads[spread]
        places = self._places[of.over]
        counts = np.zeros(len(self._nodes) + 1)
        for place, count in self._counts[of.group, of.over].items():
            counts[place] = count
        found: Floats = counts[places[nodes]]
        return found

    def is_hard(self, spread: int) -> bool:
        """Whether the spread would rather leave a camera without an owner."""
        return self._spreads[spread].hard

    def same_place(self, spread: int, one: int, other: int) -> bool:
        """Whether two nodes are one place to this spread."""
        places = self._places[self._spreads[spread].over]
        return bool(places[one] == places[other])

    def _count(self, group: str, node: int, by: int) -> None:
        for over in self._overs[group]:
            counts, place = self._counts[group, over], int(self._places[over][node])
            counts[place] = counts.get(place, 0) + by

    def _places_of(self, over: str) -> Indices:
        if not over:
            return np.arange(len(self._nodes))
        numbers: dict[str | None, int] = {}
        return np.array([numbers.setdefault(labels.get(over), len(numbers)) for labels in self._nodes.labels], np.intp)
