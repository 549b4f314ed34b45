"""Turns what a registry answers into what `nodeagent cluster` and `registry nodes` show.  Pure.

Problems come first, each with its cause and what to do.  A node that joins or drains is none: somebody wanted it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.ownership import SKEW_NS, Unfinished
from nodeagent.infra.cluster_answers import (
    DEAD,
    LIVE,
    LOST,
    POOLED,
    SUSPECT,
    UNTOLD,
    DrainSeen,
    NodeSeen,
    Overview,
)

#: What each count of `Unfinished` counts: one, and several.
_LEFTOVERS: Final = {
    "cameras": ("unfinished recording", "unfinished recordings"),
    "clips": ("clip to look at", "clips to look at"),
    "detections": ("clip to judge", "clips to judge"),
    "alarms": ("alarm", "alarms"),
}


@dataclass(frozen=True, slots=True)
class ClusterProblem:
    """Something that somebody should look at.

    Attributes:
        name: the node, `registry` or `cameras`.
        state: one word.
        cause: one sentence.
        hint: what to do.
    """

    name: str
    state: str
    cause: str
    hint: str


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One node.

    Attributes:
        of_mean: cameras that it owns over the mean of the nodes that live; none: it does not take part, or there is no
            camera.
        remarks: what else is to be known, each a few words.
    """

    node: NodeSeen
    of_mean: float | None
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What is shown: problems of the whole first, then of nodes in the order of the data."""

    problems: tuple[ClusterProblem, ...]
    lines: tuple[NodeLine, ...]


def cluster_view(overview: Overview, nodes: Sequence[NodeSeen]) -> ClusterView:
    """What to show of all nodes."""
    problems = [*_problems_of_all(overview), *(found for node in nodes for found in node_problems(node))]
    return ClusterView(problems=tuple(problems), lines=node_lines(nodes))


def node_lines(nodes: Sequence[NodeSeen]) -> tuple[NodeLine, ...]:
    """A line for each node."""
    live = [node.owns for node in nodes if node.phase == LIVE]
    mean = sum(live) / len(live) if live else 0.0
    return tuple(
        NodeLine(node, node.owns / mean if mean and node.phase == LIVE else None, tuple(_remarks(node)))
        for node in nodes
    )


def node_problems(node: NodeSeen) -> Iterator[ClusterProblem]:
    """What is wrong with a node."""
    silent = f"silent for {node.silent_s:.1f} s" if node.silent_s is not None else "has not reported to this registry"
    if node.phase == DEAD:
        hint = f"its cameras go elsewhere; start it again, or `registry forget {node.node_id}` if it is gone for good"
        yield ClusterProblem(node.node_id, node.phase, silent, hint)
    if node.phase == SUSPECT:
        yield ClusterProblem(node.node_id, node.phase, silent, "look at its host and at the network between")
    if node.conflict:
        yield ClusterProblem(node.node_id, "conflict", node.conflict, "give one of both another [node] node_id")
    if is_off(node):
        yield ClusterProblem(node.node_id, "clock", _clock(node), "correct the time of its host, or the registry's")
    if node.drain is not None and node.drain.trouble:
        hint = f"make room, `registry undrain {node.node_id}`, or drain it with --forced"
        yield ClusterProblem(node.node_id, "drain", node.drain.trouble, hint)


def is_off(node: NodeSeen) -> bool:
    """Whether its clock and the registry's differ by more than is harmless."""
    return abs(node.skew_ns) > SKEW_NS


def drain_words(node: NodeSeen) -> str:
    """How far a node is with draining, in words; empty: it does not drain."""
    drain = node.drain
    if drain is None:
        return ""
    by = f" by order of {drain.ordered_by}" if drain.ordered_by else ""
    absent = f"; nobody captures {', '.join(drain.uncaptured)}" if drain.uncaptured else ""
    return f"drains{by}: {_drained_so_far(node, drain)}{absent}"


def _drained_so_far(node: NodeSeen, drain: DrainSeen) -> str:
    if drain.left:
        return f"{drain.left} camera{'s' if drain.left != 1 else ''} left, {drain.moved} moved"
    if drain.starting:
        return f"no camera left, others start {drain.starting} of {drain.moved}"
    if drain.state == LOST:
        return "no camera left, but it died: what waited on it waits there until it is started again"
    if drain.state == UNTOLD:
        return f"no camera left; what waits on it is not told by its agent {node.agent_version}"
    if drain.done:
        return "no camera left, nothing waits on it" if drain.state else "no camera left"
    return f"no camera left, {_waiting(drain.unfinished or Unfinished())}"


def _waiting(unfinished: Unfinished) -> str:
    counts = unfinished.model_dump()
    known = [f"{count} {_LEFTOVERS[name][count != 1]}" for name, count in counts.items() if count]
    unknown = [_LEFTOVERS[name][1] for name, count in counts.items() if count is None]
    # The agent has not looked yet, or its broker is away.
    return f"waits for {', '.join([*known, *(f'the number of {what}' for what in unknown)])}"


def _problems_of_all(overview: Overview) -> Iterator[ClusterProblem]:
    if not overview.leader:
        cause = f"registry {overview.registry_id} knows of none that leads, so no camera gets a node"
        yield ClusterProblem("registry", "no leader", cause, "look at the registries' logs and at their Redis")
    if overview.freeze is not None:
        hint = "it ends by itself; `registry thaw` ends it now, when the silent nodes are really gone"
        yield ClusterProblem("registry", "frozen", f"evictions are held: {overview.freeze.reason}", hint)
    waiting = overview.cameras.get(POOLED, 0)
    if waiting:
        cause = f"{waiting} camera{'s wait' if waiting != 1 else ' waits'} for a node"
        hint = "`registry assignments --phase pooled` names them, `registry explain CAMERA` says why"
        yield ClusterProblem("cameras", "pooled", cause, hint)


def _remarks(node: NodeSeen) -> Iterator[str]:
    if node.serves != node.owns and node.phase != DEAD:
        yield f"serves {node.serves} of {node.owns}"
    if node.drain is not None:
        yield drain_words(node)
        if node.drain.trouble:
            yield node.drain.trouble
    if is_off(node):
        yield _clock(node)
    if node.conflict:
        yield node.conflict


def _clock(node: NodeSeen) -> str:
    way = "ahead of" if node.skew_ns > 0 else "behind"
    return f"its clock is {abs(node.skew_ns) / NS_PER_S:.1f} s {way} the registry's"
