"""Greedy filling: each camera goes to the node with the least score, big cameras first, exactly as one after the other.

Pure.  Cameras come in steps of like size.  Within a step nodes are scored by the step's mean need, so one order of the
nodes serves all of its cameras, and whole runs are placed at once: camera k of the run goes to the k-th node by score,
as long as that node's score is below that of every node that the run has filled already.  That is what a loop with a
heap would do, because scores only grow; where it would do something else the run ends.  A camera that its node cannot
take (no room, group, avoided) ends the run too and is looked at alone, against all nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from registry.placement_crowd import Crowd
from registry.placement_load import LIMITED, fills, loads, needs_of, scores
from registry.placement_rules import Why
from registry.placement_table import NONE, Flags, Floats, Indices

#: Reasons by number, as the column of reasons holds them.
WHYS = tuple(Why)
#: Number of each reason.
CODE = {why: code for code, why in enumerate(WHYS)}
#: Steps of size per doubling.  More: nearer to each camera's own score; fewer: longer runs.
STEPS_PER_DOUBLING = 4
#: Fewest nodes that a run looks for; below this, numpy's own time rules.
WINDOW_LEAST = 64
#: How many nodes a run looks for, in lengths of the one before: a little more, for runs are about as long.
WINDOW_GROWTH = 1.25
#: How much a camera that is said to fit nowhere must be over, in loads: more than rounding makes of a camera that fits.
SLACK = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Queue:
    """The cameras to be placed, and what is written down of each; columns are by row of the camera.

    Attributes:
        cost: (N, 4) what each needs.
        size: (N,) its part of an ordinary node.
        spread: (N,) row of its spread, `NONE` for none.
        avoid: rows of nodes to avoid, by row of the camera.
        special: (N,) bool, cameras for which not only load matters.
        node: (N,) row of the node that it was placed on, `NONE`: on none (yet).
        why: (N,) reason, as a place in `WHYS`.
        load: (N,) load of its node with it.
    """

    cost: Floats
    size: Floats
    spread: Indices
    avoid: dict[int, frozenset[int]]
    special: Flags
    node: Indices
    why: Indices
    load: Floats


def steps(size: Floats) -> Iterator[slice]:
    """Runs of like size; `size`, (n,), descends."""
    if not len(size):
        return
    part, doubling = np.frexp(size)
    step = doubling.astype(np.int64) * STEPS_PER_DOUBLING + np.floor((part - 0.5) * 2 * STEPS_PER_DOUBLING)
    ends = [*(np.flatnonzero(np.diff(step)) + 1).tolist(), len(size)]
    start = 0
    for end in ends:
        yield slice(start, end)
        start = end


def ascending(values: Floats) -> Indices:
    """Places of the values, ascending, ties by place: a stable sort, which takes longer, only where there are ties."""
    order = np.argsort(values)
    ordered = values[order]
    return np.argsort(values, kind="stable") if (ordered[1:] == ordered[:-1]).any() else order


class Filling:
    """Fills the nodes of one offer with the cameras of one step."""

    def __init__(self, queue: Queue, crowd: Crowd, nodes: Indices, used: Floats, per: Floats, full: float) -> None:
        """Args:
        nodes: (m,) rows of the nodes offered, ascending.
        used: (5, m) what is used of them; grows.
        per: (5, m) 1 / capacity.
        full: load that no limited resource may exceed; infinite to force.
        """
        self._queue, self._crowd, self._nodes = queue, crowd, nodes
        self._used, self._per, self._full = used, per, full
        self._window = len(nodes)
        self._is_plain = True
        self._rows: Indices = np.empty(0, np.intp)
        self._need: Floats = np.empty((LIMITED + 1, 0))
        self._mean: Floats = np.empty(LIMITED + 1)
        self._score: Floats = np.empty(0)

    def fill(self, rows: Indices) -> None:
        """Place these cameras, of like size, in this order."""
        self._rows, self._need = rows, needs_of(np.take(self._queue.cost, rows, axis=0))
        self._mean = self._need.mean(axis=1)
        self._is_plain = not self._queue.special[rows].any()
        self._score = scores(self._used, self._mean, self._per)
        while len(self._rows):
            if self._run():
                self._alone()

    def _run(self) -> bool:
        """Place a run of cameras at once; return whether the next one has to be looked at alone."""
        head = self._least(min(self._window, len(self._rows)))
        # `take`, not `[:, head]`: that would leave the rows scattered, and all that follows ten times slower.
        need, per = self._need[:, : len(head)], np.take(self._per, head, axis=1)
        after = np.take(self._used, head, axis=1) + need
        score = scores(after, self._mean, per)
        is_next = np.ones(len(head), np.bool_)
        is_next[1:] = self._score[head[1:]] < np.minimum.accumulate(score)[:-1]
        in_order = _leading(is_next)
        filled = fills(after, per)
        fit = _leading(filled[:in_order] <= self._full)
        size = fit if self._is_plain else self._count_specials(head, fit)
        chosen = head[:size]
        self._used[:, chosen], self._score[chosen] = after[:, :size], score[:size]
        self._note(chosen, Why.LEAST_LOADED, np.maximum(filled, after[LIMITED] * per[LIMITED])[:size])
        self._window = max(WINDOW_LEAST, int(WINDOW_GROWTH * size))
        return size < in_order

    def _least(self, count: int) -> Indices:
        """Places of so many nodes with the least scores, least first, ties by place."""
        if count >= len(self._score):
            return ascending(self._score)
        bound = np.partition(self._score, count - 1)[count - 1]
        head = np.flatnonzero(self._score <= bound)
        return head[ascending(self._score[head])][:count]

    def _count_specials(self, head: Indices, size: int) -> int:
        """Length of the run before a camera that meets its group or avoids its node; counts the groups of the run."""
        for at in np.flatnonzero(self._queue.special[self._rows[:size]]).tolist():
            row, node = int(self._rows[at]), int(self._nodes[head[at]])
            spread = int(self._queue.spread[row])
            if node in self._queue.avoid.get(row, ()) or (spread != NONE and self._crowd.at(spread, node)):
                return int(at)
            if spread != NONE:
                self._crowd.add(spread, node)
        return size

    def _alone(self) -> None:
        """Place the next camera by all that matters to it."""
        row, need = int(self._rows[0]), self._need[:, 0]
        after = self._used + need[:, None]
        fit = fills(after, self._per) <= self._full
        if not fit.any():
            self._turn_away()
            return
        spread = int(self._queue.spread[row])
        crowd = np.zeros(len(fit)) if spread == NONE else self._crowd.among(spread, self._nodes)
        may = fit & (crowd == 0) if spread != NONE and self._crowd.is_hard(spread) else fit
        if not may.any():
            self._drop(np.arange(len(self._rows)) == 0, Why.GROUP)
            return
        shunned = np.isin(self._nodes, sorted(self._queue.avoid.get(row, ())))
        at = _first(np.flatnonzero(may), shunned, crowd, self._score)
        least = _first(np.flatnonzero(fit), self._score)
        self._used[:, at] = after[:, at]
        self._score[at] = scores(after[:, at : at + 1], self._mean, self._per[:, at : at + 1])[0]
        if spread != NONE:
            self._crowd.add(spread, int(self._nodes[at]))
        why = Why.LEAST_LOADED if at == least else Why.ELSEWHERE if shunned[least] else Why.SPREAD
        self._note(np.array([at]), why, loads(after[:, at : at + 1], self._per[:, at : at + 1]))

    def _turn_away(self) -> None:
        """Give up the next camera, which fits nowhere, and all that need more of something than any node has free."""
        has = self._per[:LIMITED] > 0
        room = np.divide(self._full + SLACK, self._per[:LIMITED], out=np.full(has.shape, np.inf), where=has)
        free = (room - self._used[:LIMITED]).max(axis=1)
        lost = (self._need[:LIMITED] > free[:, None]).any(axis=0)
        lost[0] = True
        self._drop(lost, Why.ROOM)

    def _drop(self, lost: Flags, why: Why) -> None:
        self._queue.why[self._rows[lost]] = CODE[why]
        self._rows, self._need = self._rows[~lost], self._need[:, ~lost]

    def _note(self, places: Indices, why: Why, load: Floats) -> None:
        """Write down where the first cameras of the queue went, and take them off it."""
        rows, self._rows = self._rows[: len(places)], self._rows[len(places) :]
        self._need = self._need[:, len(places) :]
        self._queue.node[rows] = self._nodes[places]
        self._queue.why[rows] = CODE[why]
        self._queue.load[rows] = load


def _leading(flags: Flags) -> int:
    """How many are true before the first that is not."""
    return len(flags) if flags.all() else int(np.argmin(flags))


def _first(places: Indices, *keys: Floats | Flags) -> int:
    """The place with the least first key, among these the least second, and so on; ties by place."""
    for key in keys:
        found = key[places]
        places = places[found == found.min()]
    return int(places[0])
