"""Rebalancing, run until it rests: few moves, each of them an improvement, no camera to and fro, and an end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nodeagent.contract.ownership import Resources
from registry.placement_load import FULL, Scales, fills, loads
from registry.placement_rules import Camera, Node, Spread
from registry.placement_table import NONE, Nodes
from registry.rebalance import (
    MINUTE_S,
    PART_PER_MINUTE,
    REST_S,
    START_MARGIN,
    STOP_MARGIN,
    Fleet,
    Move,
    Placed,
    rebalance,
)

#: Seconds between two calls; several come within a minute.
ROUND_S = 25.0
#: Calls without a move after which every camera has rested and nothing will come any more.
IDLE_MOST = int(REST_S / ROUND_S) + 2
ROUNDS_MOST = 8000


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """A few nodes and cameras that lie anywhere, as after nodes joined."""
    count = draw(st.integers(1, 5))
    capacity = st.none() if draw(st.booleans()) else st.sampled_from([4.0, 8.0]).map(cores)
    nodes = [
        Node(
            node_id=f"n{number}",
            capacity=draw(capacity),
            labels=draw(st.dictionaries(st.just("site"), st.sampled_from(["a", "b"]))),
            closed=draw(st.sampled_from(["", "", "", "draining"])),
        )
        for number in range(count)
    ]
    camera = st.builds(
        Camera,
        camera_id=st.integers(0, 99).map(lambda number: f"c{number}"),
        cost=st.floats(0.05, 1.5).map(lambda need: Resources(decode_cores=need)),
        needs=st.just({}) | st.just({"site": "a"}),
        spread=st.none() | st.builds(Spread, st.just("door"), st.sampled_from(["", "site"]), st.booleans()),
        avoid=st.just(frozenset()) | st.just(frozenset({"n0"})),
    )
    cameras = draw(st.lists(camera, unique_by=lambda one: one.camera_id, max_size=12))
    owner = st.integers(0, count).map(lambda number: f"n{number}")
    return Fleet.of([Placed(camera=one, node_id=draw(owner)) for one in cameras], Nodes.of(nodes))


def cores(count: float) -> Resources:
    return Resources(decode_cores=count)


def load_of(fleet: Fleet) -> np.ndarray:
    return loads(fleet.used(), Scales.of(fleet.nodes).per)


def with_move(fleet: Fleet, move: Move, now_s: float) -> Fleet:
    row, to = list(fleet.cameras.ids).index(move.camera_id), fleet.nodes.row_of()[move.goes_to]
    assert fleet.nodes.ids[fleet.owner[row]] == move.leaves != move.goes_to
    owner, moved_s = fleet.owner.copy(), fleet.moved_s.copy()
    assert now_s - moved_s[row] >= REST_S
    owner[row], moved_s[row] = to, now_s
    return replace(fleet, owner=owner, moved_s=moved_s)


def check(before: Fleet, after: Fleet, move: Move) -> None:
    """A move is allowed and makes the fuller of its two nodes less full."""
    rows = before.nodes.row_of()
    pair = [rows[move.leaves], rows[move.goes_to]]
    was, now = load_of(before)[pair], load_of(after)[pair]
    assert now.max() < was.max()
    assert now[1] <= now[0] + 1e-12
    row, to = list(before.cameras.ids).index(move.camera_id), rows[move.goes_to]
    assert not before.nodes.closed[to]
    assert dict(before.cameras.demands[before.cameras.demand[row]].needs).items() <= before.nodes.labels[to].items()
    assert move.goes_to not in before.cameras.avoid.get(row, ())
    assert fills(after.used()[:, [to]], Scales.of(before.nodes).per[:, [to]])[0] <= FULL
    check_group(before, after, row, pair)


def check_group(before: Fleet, after: Fleet, row: int, pair: list[int]) -> None:
    """A move brings a camera together with no more of its group than before, with none if its spread is hard."""
    spreads = before.cameras.spreads
    if before.cameras.spread[row] == NONE:
        return
    spread = spreads[before.cameras.spread[row]]
    mates = {i for i, at in enumerate(before.cameras.spread) if at != NONE and spreads[at].group == spread.group}

    def place_of(node: int) -> object:
        return before.nodes.labels[node].get(spread.over) if spread.over else node

    def beside(fleet: Fleet) -> int:
        owned = [int(fleet.owner[mate]) for mate in mates - {row} if fleet.owner[mate] != NONE]
        return sum(1 for node in owned if place_of(node) == place_of(int(fleet.owner[row])))

    is_elsewhere = place_of(pair[0]) != place_of(pair[1])
    assert beside(after) <= (0 if spread.hard and is_elsewhere else beside(before))


def settle(fleet: Fleet, now_s: float = 100.0) -> tuple[Fleet, float, list[str]]:
    """Carry out what is proposed until nothing is for longer than any camera rests; what moved, in order."""
    moved, when, going, idle = [], [], False, 0
    for _ in range(ROUNDS_MOST):
        plan = rebalance(fleet, now_s, going)
        going = plan.going
        for move in plan.moves:
            after = with_move(fleet, move, now_s)
            check(fleet, after, move)
            fleet = after
            moved.append(move.camera_id)
            when.append(now_s)
        assert sum(1 for at in when if at > now_s - MINUTE_S) <= max(1, PART_PER_MINUTE * len(fleet.cameras))
        idle = 0 if plan.moves else idle + 1
        if idle > IDLE_MOST:
            return fleet, now_s, moved
        now_s += ROUND_S
    raise AssertionError(f"never rests: {moved[-20:]}")


@settings(max_examples=40)
@given(fleets())
def test_it_rests_in_the_end_and_stays_so(fleet: Fleet) -> None:
    settled, now_s, moved = settle(fleet)
    assert not rebalance(settled, now_s + 1e6).moves
    # Only cameras that lie apart from the rest would move more than once or twice.
    assert len(moved) <= 3 * len(fleet.cameras)


@settings(max_examples=40)
@given(fleets(), st.integers(0, 2**32))
def test_costs_that_vary_a_little_move_nothing(fleet: Fleet, seed: int) -> None:
    settled, now_s, _ = settle(fleet)
    takes = settled.nodes.takes
    assume(takes.any())
    load = load_of(settled)
    assume(load[takes].max() - load[takes].min() <= STOP_MARGIN * load[takes].mean())
    wobble = np.random.default_rng(seed).uniform(0.97, 1.03, (len(settled.cameras), 1))
    assert (1 + STOP_MARGIN) * 1.03 / 0.97 < 1 + START_MARGIN
    changed = replace(settled, cameras=replace(settled.cameras, cost=settled.cameras.cost * wobble))
    assert not rebalance(changed, now_s + 1e6).moves


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(0, 30))
def test_equal_cameras_on_equal_nodes_end_as_even_as_they_can(nodes: int, cameras: int) -> None:
    table = Nodes.of([Node(node_id=f"n{number}") for number in range(nodes)])
    fleet = Fleet.of([Placed(camera=Camera(camera_id=f"c{n}"), node_id="n0") for n in range(cameras)], table)
    settled, _, moved = settle(fleet)
    counts = np.bincount(settled.owner, minlength=nodes)
    assert counts.max() - counts.min() <= max(1, STOP_MARGIN * cameras / nodes)
    assert len(set(moved)) == len(moved)
