"""What moves after a node joined, and what keeps it from moving."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nodeagent.contract.ownership import Resources
from registry.placement_rules import Camera, Node, Spread
from registry.placement_table import Nodes
from registry.rebalance import (
    MINUTE_S,
    MOVES_MOST,
    REST_S,
    Fleet,
    Placed,
    Plan,
    allowance,
    rebalance,
)

NOW_S = 10_000.0
CORES = Resources(decode_cores=10, infer_per_s=1, ring_bytes=1, write_bytes_s=1)


def node(node_id: str, **more: object) -> Node:
    return replace(Node(node_id=node_id, capacity=CORES), **more)


def owned(node_id: str, *cores: float, moved_s: float = 0.0, **more: object) -> list[Placed]:
    """Cameras `<node>0`, `<node>1`, ... of a node, that need so many cores."""
    return [
        Placed(
            camera=replace(Camera(camera_id=f"{node_id}{n}", cost=Resources(decode_cores=need)), **more),
            node_id=node_id,
            moved_s=moved_s,
        )
        for n, need in enumerate(cores)
    ]


def plan(placed: list[Placed], nodes: list[Node], now_s: float = NOW_S, *, going: bool = False) -> Plan:
    return rebalance(Fleet.of(placed, Nodes.of(nodes)), now_s, going)


def ways(found: Plan) -> list[tuple[str, str, str]]:
    return [(move.camera_id, move.leaves, move.goes_to) for move in found.moves]


def test_a_node_that_joined_gets_the_camera_that_relieves_the_fullest_most() -> None:
    found = plan(owned("a", 1, 2, 1.5) + owned("b", 1, 1), [node("a"), node("b"), node("new")])
    assert ways(found) == [("a1", "a", "new")]
    assert found.going
    assert found.moves[0].gap == pytest.approx(0.45 / (0.65 / 3))


@pytest.mark.parametrize(
    ("why", "placed", "new"),
    [
        ("even enough", owned("a", 1.0, 1.0) + owned("b", 0.9, 0.95), node("b")),
        ("one big camera", owned("a", 5), node("new")),
        ("no better afterwards", owned("a", 2, 2) + owned("b", 1, 1), node("b")),
        ("moved lately", owned("a", 1, 1, moved_s=NOW_S - REST_S + 1), node("new")),
        ("closed", owned("a", 1, 1), node("new", closed="draining")),
        ("its label is not there", owned("a", 1, 1, needs={"site": "yard"}), node("new")),
        ("its model is not there", owned("a", 1, 1, model="helmet"), node("new", models=frozenset())),
        ("tried there", owned("a", 1, 1, avoid=frozenset({"new"})), node("new")),
        ("lacks memory", owned("a", 1, 1), node("new", capacity=Resources(infer_per_s=1))),
        ("nothing is owned", [], node("new")),
    ],
)
def test_what_keeps_cameras_where_they_are(why: str, placed: list[Placed], new: Node) -> None:
    assert plan(placed, [node("a"), new]) == Plan((), False), why


@pytest.mark.parametrize(
    ("hard", "mates", "moves"), [(False, 0, 1), (False, 1, 1), (False, 2, 0), (True, 0, 1), (True, 1, 0)]
)
def test_a_group_is_not_brought_together(hard: bool, mates: int, moves: int) -> None:
    door = Spread("door", hard=hard)
    placed = owned("a", 1, 1.5, spread=door) + owned("b", *[0.1] * mates, spread=door)
    assert len(plan(placed, [node("a"), node("b")]).moves) == moves


def test_moves_of_one_plan_know_of_each_other() -> None:
    """All three might leave one by one, but the third would find more of its group than it leaves."""
    placed = owned("a", 0.5, 0.5, 0.5, spread=Spread("door")) + owned("c", 6, needs={"site": "yard"})
    placed = [replace(one, node_id="a") for one in placed] + owned("gone", *[0.0] * 300)
    found = plan(placed, [node("a", labels={"site": "yard"}), node("b")])
    assert ways(found) == [("a0", "a", "b"), ("a1", "a", "b")]


def test_an_idle_node_that_may_not_take_them_moves_no_cameras_between_others() -> None:
    yard = {"site": "yard"}
    placed = owned("a", *[0.01] * 110, needs=yard) + owned("b", *[0.01] * 100, needs=yard)
    assert plan(placed, [node("a", labels=yard), node("b", labels=yard), node("idle")]) == Plan((), False)


def test_nodes_of_one_rack_may_swap_a_group_of_racks() -> None:
    nodes = [node(name, labels={"rack": "1"}) for name in "ab"]
    placed = owned("a", 1, 1, spread=Spread("door", "rack", hard=True))
    assert ways(plan(placed, nodes)) == [("a0", "a", "b")]


def test_moving_goes_on_to_a_smaller_margin_than_it_starts_at() -> None:
    """18 % apart: too little to begin with, enough to go on."""
    placed = owned("a", *[0.09] * 12) + owned("b", *[0.09] * 10)
    nodes = [node("a"), node("b")]
    assert not plan(placed, nodes).moves
    assert ways(plan(placed, nodes, going=True)) == [("a0", "a", "b")]
    even = owned("a", *[0.09] * 11) + owned("b", *[0.09] * 11)
    assert plan(even, nodes, going=True) == Plan((), False)


def test_a_hundredth_of_the_cameras_moves_in_a_minute_however_they_moved() -> None:
    placed = owned("a", *[0.01] * 500)
    nodes = Nodes.of([node("a"), node("new")])
    first = rebalance(Fleet.of(placed, nodes), NOW_S)
    assert len({move.camera_id for move in first.moves}) == 5
    assert len(rebalance(Fleet.of(placed, nodes), NOW_S, part_per_minute=0.02).moves) == 10
    lately = owned("a", *[0.01] * 2, moved_s=NOW_S - 1) + placed[2:]
    assert len(rebalance(Fleet.of(lately, nodes), NOW_S).moves) == 3
    many = Fleet.of(owned("a", *[0.01] * 20, moved_s=NOW_S - 1) + placed[20:], nodes)
    assert rebalance(many, NOW_S, True) == Plan((), True)
    assert len(rebalance(many, NOW_S + MINUTE_S).moves) == 5


def test_one_camera_of_few_may_move_and_of_very_many_not_all_at_once() -> None:
    nodes = Nodes.of([node("a"), node("new")])
    assert allowance(Fleet.of(owned("a", 1, 1), nodes), NOW_S) == 1
    assert allowance(Fleet.of(owned("a", *[1.0] * 10), nodes), NOW_S, 0.5) == 5
    assert allowance(Fleet.of(owned("a", *[1.0] * 20_000), nodes), NOW_S) == MOVES_MOST


def test_the_next_fullest_gives_when_no_camera_can_leave_the_fullest() -> None:
    placed = owned("a", 3, 3, needs={"site": "yard"}) + owned("b", 1, 1)
    nodes = [node("a", labels={"site": "yard"}), node("b"), node("new")]
    assert ways(plan(placed, nodes)) == [("b0", "b", "new")]


def test_a_node_over_its_capacity_is_relieved_only_where_there_is_room() -> None:
    placed = owned("a", 6, 6, 6, 6) + owned("b", 5)
    assert not plan(placed, [node("a"), node("b")]).moves
    assert ways(plan(placed, [node("a"), node("b"), node("new")])) == [("a0", "a", "new")]


def test_what_nodes_use_follows_from_the_owners() -> None:
    fleet = Fleet.of(owned("a", 1, 2) + owned("gone", 4), Nodes.of([node("a"), node("b")]))
    assert fleet.nodes_used().used[:, 0].tolist() == [3, 0]
    assert fleet.nodes_used().cameras.tolist() == [2, 0]
    with pytest.raises(ValueError, match="rows of 2 nodes"):
        replace(fleet, owner=fleet.owner + 5)
    with pytest.raises(ValueError, match="each of 3"):
        replace(fleet, moved_s=np.zeros(2))
