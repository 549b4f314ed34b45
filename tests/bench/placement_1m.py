"""A million cameras onto ten thousand nodes, and the loss of a hundred of these: how long, how even, who moves.

Costs are lognormal in four resources that hang together loosely, as measured ones do; nodes have two sizes.  The tables
are made before: a leader keeps them from one round to the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from registry.placement import Placement, place
from registry.placement_rules import Camera
from registry.placement_table import NONE, Cameras, Demand, Floats, Indices, Nodes
from registry.rebalance import Fleet, rebalance
from tests.bench.harness import Result, result

T = TypeVar("T")

CAMERAS, NODES = 1_000_000, 10_000
CAMERAS_QUICK, NODES_QUICK = 100_000, 1_000
LOST_PART = 100
ROUNDS = 5
#: An ordinary camera's mean need: cores, samples a second, bytes of ring, bytes a second.
ORDINARY = np.array([0.15, 5.0, 64e6, 5e5])
#: Part of a node that its cameras need on average.
FILLED = 0.6
SITES = 50
#: Enough `Camera`s to see what one costs.
OBJECTS = 100_000


@dataclass(frozen=True, slots=True)
class Took:
    """Best wall and CPU seconds of some rounds."""

    wall_s: float
    cpu_s: float


def costs(count: int, seed: int = 1) -> Floats:
    """(count, 4) what cameras need: a common factor for the camera's size, and one of each resource."""
    rng = np.random.default_rng(seed)
    size = rng.lognormal(0.0, 0.6, (count, 1))
    need: Floats = ORDINARY * size * rng.lognormal(0.0, 0.3, (count, 4))
    return need


def nodes_for(cost: Floats, count: int, labels: int = 1) -> Nodes:
    """Nodes that these cameras fill to `FILLED`; every second has twice what the others have."""
    factor = np.where(np.arange(count) % 2, 2.0, 1.0)
    share = cost.sum(axis=0) / FILLED / factor.sum()
    return Nodes(
        ids=[f"node-{row:05d}" for row in range(count)],
        capacity=factor[:, None] * share,
        used=np.zeros((count, 4)),
        cameras=np.zeros(count),
        closed=[""] * count,
        labels=[{"site": f"s{row * labels // count}"} for row in range(count)],
        models=[None] * count,
    )


def names(count: int) -> list[str]:
    """Ids of cameras."""
    return [f"cam-{row:07d}" for row in range(count)]


def at_sites(count: int, cost: Floats) -> Cameras:
    """Cameras each of which needs one of `SITES` sites."""
    demands = tuple(sorted(Demand((("site", f"s{site}"),)) for site in range(SITES)))
    demand: Indices = np.arange(count, dtype=np.intp) % SITES
    return Cameras(names(count), cost, demands, demand, (), np.full(count, NONE, np.intp))


def best(run: Callable[[], T], rounds: int) -> tuple[T, Took]:
    """The last answer, and the best time of the rounds."""
    took = []
    answer = run()
    for _ in range(rounds):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        answer = run()
        took.append((time.perf_counter() - wall_s, time.process_time() - cpu_s))
    return answer, Took(min(wall for wall, _ in took), min(cpu for _, cpu in took))


def lose(placed: Placement, lost: Indices) -> tuple[Indices, Placement]:
    """The owners after these nodes fell silent, as a leader finds them: mark, find the orphans, place them."""
    dead = {placed.nodes.ids[row]: "dead" for row in lost.tolist()}
    nodes = placed.nodes.close(dead)
    orphans = np.flatnonzero(~nodes.takes[placed.node])
    found = place(placed.cameras.take(orphans), nodes)
    owner = placed.node.copy()
    owner[orphans] = found.node
    return owner, found


def _evenness(placed: Placement) -> float:
    load = placed.loads()[placed.nodes.takes]
    return float(load.max() / load.mean())


def _figures(quick: bool) -> Iterator[Result]:
    count, hosts = (CAMERAS_QUICK, NODES_QUICK) if quick else (CAMERAS, NODES)
    rounds = 2 if quick else ROUNDS
    cost = costs(count)
    sizes = f"{count} cameras, {hosts} nodes of two sizes, 4 resources, {FILLED:.0%} full"
    cameras, nodes = Cameras.alike(names(count), cost), nodes_for(cost, hosts)
    placed, took = best(lambda: place(cameras, nodes), rounds)
    detail = f"weighted, {sizes}; wall time, best of {rounds}, {took.cpu_s:.3f} s of CPU"
    yield result("placement_s", round(took.wall_s, 4), "s", "<= 1", detail)
    yield result("placement_unplaced", int(placed.unplaced.sum()), "cameras", "== 0", sizes)
    yield result(
        "placement_max_mean", round(_evenness(placed), 5), "ratio", "<= 1.02", "load of the fullest / mean node"
    )
    yield from _loss(placed, hosts, rounds)
    sites = at_sites(count, cost)
    spread, took = best(lambda: place(sites, nodes_for(cost, hosts, SITES)), 1)
    detail = (
        f"the same, each camera needs one of {SITES} sites; {spread.unplaced.sum()} unplaced; with the nodes' table"
    )
    yield result("placement_sites_s", round(took.wall_s, 4), "s", "", detail)
    yield from _rest(placed, quick)


def _loss(placed: Placement, hosts: int, rounds: int) -> Iterator[Result]:
    lost = np.sort(np.random.default_rng(2).choice(hosts, hosts // LOST_PART, replace=False))
    (owner, found), took = best(lambda: lose(placed, lost), rounds * 3)
    was_lost = np.isin(placed.node, lost)
    detail = f"{len(lost)} nodes lost, {was_lost.sum()} orphans found and placed; wall, {took.cpu_s * 1e3:.1f} ms CPU"
    yield result("loss_ms", round(took.wall_s * 1e3, 2), "ms", "<= 100", detail)
    moved = int(np.count_nonzero((owner != placed.node) & ~was_lost))
    yield result("loss_moved_others", moved, "cameras", "== 0", "cameras of nodes that live and have another owner now")
    left = int(np.count_nonzero(np.isin(owner, lost) | (owner == NONE)))
    yield result("loss_orphans_left", left, "cameras", "== 0", "cameras without a living owner afterwards")
    yield result("loss_max_mean", round(_evenness(found), 5), "ratio", "", "fullest / mean of the nodes that live")


def _rest(placed: Placement, quick: bool) -> Iterator[Result]:
    """What is around: making tables of objects, sentences, and a round of rebalancing after a node joined."""
    some = OBJECTS // 10 if quick else OBJECTS
    objects = [Camera(camera_id=name) for name in names(some)]
    _, took = best(lambda: Cameras.of(objects), 1)
    yield result("table_us_per_camera", round(took.cpu_s * 1e6 / some, 2), "us", "", f"`Cameras.of` {some} `Camera`s")
    few = placed.cameras.take(np.arange(some // 10))
    decided, took = best(lambda: list(place(few, placed.nodes).decisions()), 1)
    yield result("decision_us", round(took.cpu_s * 1e6 / len(decided), 2), "us", "", f"{len(decided)} with sentences")
    # One node empties, as if it had just joined.
    owner = np.where(placed.node == 0, 1, placed.node)
    fleet = Fleet(placed.cameras, placed.nodes, owner, np.full(len(owner), -np.inf))
    plan, took = best(lambda: rebalance(replace(fleet), 0.0), 1)
    detail = f"one empty node among {len(placed.nodes)}: {len(plan.moves)} moves chosen"
    yield result("rebalance_ms", round(took.wall_s * 1e3, 1), "ms", "", detail)


def run(quick: bool) -> Iterable[Result]:
    """The figures."""
    return _figures(quick)
