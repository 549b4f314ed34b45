"""Where cameras go and in which words: one case for each reason, room without a node, explanations, bad tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nodeagent.contract.ownership import Resources
from registry.explain import explain
from registry.placement import capacity_without, place
from registry.placement_rules import ESTIMATE, Camera, Decision, Members, Node, Spread, Why, estimate
from registry.placement_table import Cameras, Nodes

FOUR = Resources(decode_cores=4, infer_per_s=100, ring_bytes=1e9, write_bytes_s=1e7)


def node(node_id: str, cores: float = 0.0, **more: object) -> Node:
    """A node of four cores of which so many are used."""
    return replace(Node(node_id=node_id, capacity=FOUR, used=Resources(decode_cores=cores)), **more)


def camera(camera_id: str = "cam", cores: float = 1.0, **more: object) -> Camera:
    return replace(Camera(camera_id=camera_id, cost=Resources(decode_cores=cores)), **more)


def decide(
    cameras: list[Camera], nodes: list[Node], members: Members | None = None, *, forced: bool = False
) -> list[Decision]:
    return list(place(Cameras.of(cameras), Nodes.of(nodes), members=members or {}, forced=forced).decisions())


HALL, YARD = {"site": "hall"}, {"site": "yard"}
BESIDE = Spread("door")
NEVER = Spread("door", hard=True)
RACKS = Spread("door", over="rack")

CASES: dict[str, tuple[Camera, list[Node], Members, str | None, Why]] = {
    "least loaded": (camera(), [node("a", 1), node("b", 0.5)], {}, "b", Why.LEAST_LOADED),
    "ties by id": (camera(), [node("b"), node("a")], {}, "a", Why.LEAST_LOADED),
    "ties by number of cameras": (
        camera(cores=0), [node("a", cameras=2), node("b", cameras=1)], {}, "b", Why.LEAST_LOADED,
    ),
    "not onto a small empty node": (
        camera(), [node("a", capacity=FOUR.model_copy(update={"decode_cores": 1})), node("b", 1)], {}, "b",
        Why.LEAST_LOADED,
    ),
    "the fullest resource counts": (
        camera(), [node("a", used=Resources(infer_per_s=80)), node("b", 2)], {}, "b", Why.LEAST_LOADED,
    ),
    "labels": (camera(needs=YARD), [node("a", labels=HALL), node("b", 3, labels=YARD)], {}, "b", Why.LEAST_LOADED),
    "model": (
        camera(model="helmet"), [node("a", models=frozenset({"yolo"})), node("b", 3, models=frozenset({"helmet"}))], {},
        "b", Why.LEAST_LOADED,
    ),
    "models not told": (camera(model="helmet"), [node("a", models=None)], {}, "a", Why.LEAST_LOADED),
    "unknown capacity by count": (
        camera(cores=50), [node("a", capacity=None, cameras=3), node("b", capacity=None, cameras=2)], {}, "b",
        Why.LEAST_LOADED,
    ),
    "a closed node gets none": (camera(), [node("a", closed="draining"), node("b", 3)], {}, "b", Why.LEAST_LOADED),
    "away from its group": (camera(spread=BESIDE), [node("a"), node("b", 2)], {"door": {"a": 1}}, "b", Why.SPREAD),
    "beside its group when only there is room": (
        camera(spread=BESIDE), [node("a"), node("b", 4)], {"door": {"a": 1}}, "a", Why.LEAST_LOADED,
    ),
    "in another rack": (
        camera(spread=RACKS),
        [node("a", labels={"rack": "1"}), node("b", labels={"rack": "1"}), node("c", 2, labels={"rack": "2"})],
        {"door": {"a": 1}}, "c", Why.SPREAD,
    ),
    "where its source was not tried": (
        camera(avoid=frozenset({"a"})), [node("a"), node("b", 2)], {}, "b", Why.ELSEWHERE,
    ),
    "back where its source was tried": (
        camera(avoid=frozenset({"a", "gone"})), [node("a")], {}, "a", Why.LEAST_LOADED,
    ),
    "no node": (camera(), [], {}, None, Why.CLOSED),
    "all closed": (camera(), [node("a", closed="draining")], {}, None, Why.CLOSED),
    "no label": (camera(needs=YARD), [node("a", labels=HALL), node("b")], {}, None, Why.LABELS),
    "no model": (camera(model="helmet"), [node("a", models=frozenset())], {}, None, Why.MODEL),
    "no room": (camera(cores=1.5), [node("a", 3), node("b", 3)], {}, None, Why.ROOM),
    "a resource that the nodes lack": (
        camera(cost=Resources(write_bytes_s=1)), [node("a", capacity=Resources(decode_cores=9))], {}, None, Why.ROOM,
    ),
    "never beside its group": (camera(spread=NEVER), [node("a"), node("b", 4)], {"door": {"a": 1}}, None, Why.GROUP),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_camera_goes_where_it_should_for_the_right_reason(case: str) -> None:
    wanted, nodes, members, node_id, why = CASES[case]
    (decision,) = decide([wanted], nodes, members)
    assert (decision.node_id, decision.why) == (node_id, why)


def test_figures_stand_in_the_sentence() -> None:
    (placed,) = decide([camera()], [node("a", 1)])
    assert placed.detail == "the least loaded node that may take it; load 0.500 with it, 1 node asked"
    (refused,) = decide([camera(cores=2.5)], [node("a", 2), node("b", 3)])
    assert refused.detail == "fits on no node that may take it (2 nodes): needs 2.5 decode_cores, at most 2 is free"
    torn = [node("a", 3.5), node("b", used=Resources(infer_per_s=99))]
    (refused,) = decide([camera(cost=Resources(decode_cores=1, infer_per_s=5))], torn)
    assert refused.detail.endswith("(2 nodes): no node has room for all that it needs together")


def test_big_cameras_go_first_so_that_all_fit() -> None:
    cameras = [camera("a-small", 2), camera("b-small", 2), camera("c-big", 4)]
    assert [one.node_id for one in decide(cameras, [node("x"), node("y")])] == ["y", "y", "x"]


def test_cameras_with_the_least_choice_go_first() -> None:
    cameras = [camera("big", 3), camera("tied", 2, needs=YARD)]
    decisions = decide(cameras, [node("a", labels=YARD), node("b")])
    assert [one.node_id for one in decisions] == ["b", "a"]


def test_a_camera_that_was_never_measured_takes_the_estimate() -> None:
    placed = place(Cameras.of([Camera(camera_id="cam")]), Nodes.of([node("a")]))
    assert placed.nodes.used[0].tolist() == list(ESTIMATE.model_dump().values())
    assert placed.nodes.cameras.tolist() == [1]
    mean = estimate([Resources(decode_cores=1, ring_bytes=4), Resources(decode_cores=2)])
    assert mean == Resources(decode_cores=1.5, ring_bytes=2)
    assert Cameras.of([Camera(camera_id="cam")], mean).cost.tolist() == [[1.5, 0, 2, 0]]
    assert estimate([]) == ESTIMATE


def test_force_puts_what_fits_nowhere_on_the_least_loaded_node_and_breaks_no_other_rule() -> None:
    cameras = [camera("fits", 1), camera("too-big", 5), camera("yard", 1, needs=YARD), camera("apart", 1, spread=NEVER)]
    full = [node("a", 3), node("b", 3.5)]
    members = {"door": {"a": 1, "b": 1}}
    decisions = {one.camera_id: one for one in decide(cameras, full, members, forced=True)}
    assert (decisions["fits"].node_id, decisions["fits"].why) == ("a", Why.LEAST_LOADED)
    assert (decisions["too-big"].node_id, decisions["too-big"].why) == ("b", Why.FORCED)
    assert decisions["yard"].why is Why.LABELS
    assert (decisions["apart"].node_id, decisions["apart"].why) == (None, Why.GROUP)


def test_force_goes_over_a_capacity_before_it_goes_beside_a_mate() -> None:
    (decision,) = decide([camera(spread=NEVER)], [node("roomy"), node("full", 4)], {"door": {"roomy": 1}}, forced=True)
    assert (decision.node_id, decision.why) == ("full", Why.FORCED)


@pytest.mark.parametrize(("used", "fits"), [(0.0, True), (3.0, True), (3.5, False)])
def test_room_without_a_node(used: float, fits: bool) -> None:
    owned = [camera("one", 1, spread=NEVER), camera("two", 1)]
    nodes = [node("leaves", 2), node("b", used), node("c", 3)]
    without = capacity_without("leaves", Cameras.of(owned), Nodes.of(nodes), {"door": {"leaves": 1}})
    assert without.is_complete is fits
    assert "leaves" not in {one.node_id for one in without.decisions()}
    alone = capacity_without("leaves", Cameras.of(owned), Nodes.of(nodes[:1]))
    assert {one.why for one in alone.decisions()} == {Why.CLOSED}


def test_an_explanation_has_every_node_with_every_reason() -> None:
    wanted = camera(cores=2, needs=YARD, model="helmet", spread=NEVER)
    nodes = [
        node("best", 1, labels=YARD),
        node("home", 3, labels=YARD, cameras=1),
        node("none", 3, labels=HALL, models=frozenset(), closed="draining"),
        node("mate", labels=YARD),
    ]
    told = explain(wanted, nodes, owner="home", members={"door": {"home": 1, "mate": 1}})
    assert (told.node_id, told.best) == ("home", "best")
    assert (
        told.sentence
        == "on home, where it stays while the node lives: 2 of 4 nodes can take it, best would be chosen now"
    )
    assert [(one.node_id, one.rank) for one in told.candidates] == [("best", 1), ("home", 2), ("mate", 0), ("none", 0)]
    home, none, mate = told.of("home"), told.of("none"), told.of("mate")
    assert home is not None and none is not None and mate is not None
    assert (home.load, home.load_with, home.refusals) == (0.25, 0.75, ())
    assert none.refusals == (
        "takes no camera: draining",
        "needs site=yard, node has site=hall",
        "model helmet is not there",
        "needs 2 decode_cores, 1 of 4 is free",
    )
    assert mate.refusals == ("has 1 of group door already",)
    assert told.of("unheard-of") is None


@pytest.mark.parametrize(
    ("owner", "nodes", "sentence"),
    [
        ("", [node("a")], "has no owner: 1 of 1 nodes can take it, a is next"),
        ("", [], "has no owner: 0 of 0 nodes can take it"),
        ("a", [node("a", 1)], "on a, which would be chosen again: 1 of 1 nodes can take it"),
        (
            "a", [node("a", closed="draining")],
            "on a, where it stays while the node lives: 0 of 1 nodes can take it, no node would be chosen now",
        ),
    ],
)  # fmt: skip
def test_an_explanation_in_one_sentence(owner: str, nodes: list[Node], sentence: str) -> None:
    assert explain(camera(), nodes, owner=owner).sentence == sentence


def test_tables_refuse_what_would_give_a_wrong_answer() -> None:
    with pytest.raises(ValueError, match="once: 'cam'"):
        Cameras.of([camera(), camera()])
    with pytest.raises(ValueError, match="once: 'a'"):
        Nodes.of([node("a"), node("a")])
    table = Cameras.of([camera("a"), camera("b")])
    for bad in (
        {"cost": table.cost[:1]},
        {"cost": -1 - table.cost},
        {"cost": table.cost * np.nan},
        {"cost": table.cost.astype(np.float32)},
        {"demand": np.array([0, 1])},
        {"demand": np.array([0, -1])},
        {"spread": np.array([0, 0])},
        {"ids": ["b", "a"]},
    ):
        with pytest.raises(ValueError, match=r"expected|ascend|every camera"):
            replace(table, **bad)
    with pytest.raises(ValueError, match="expected finite"):
        Nodes.of([node("a", capacity=Resources.model_construct(decode_cores=float("inf")))])
