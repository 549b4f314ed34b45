"""What placement is asked: which nodes are open, what cameras need, and who comes back too early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from nodeagent.contract.ownership import Resources
from registry.core.wishes import CLOSED, Costs, Question, decide, members_of, nodes_of, wish
from registry.explain import explain
from registry.member import NodePhase
from registry.membership import NodeView
from registry.placement_rules import Camera, Decision, Spread, Why
from registry.store.camera_record import CameraRow
from tests.support.registry_store import draft

ONE = Resources(decode_cores=1.0)


def view(
    node_id: str, phase: NodePhase = NodePhase.LIVE, cores: float | None = None, cameras: tuple[str, ...] = ()
) -> NodeView:
    return NodeView(
        node_id=node_id,
        phase=phase,
        life=None,
        silent_s=0.0,
        skew_ns=0,
        labels={},
        capacity=None if cores is None else Resources(decode_cores=cores),
        models=None,
        costs={},
        holds=(),
        cameras=cameras,
        ordered=False,
        leaving=False,
        conflict="",
    )


def row(**labels: str) -> CameraRow:
    return CameraRow(
        spec=draft("gate-1").spec,
        version=1,
        change_no=1,
        enabled=True,
        group="",
        labels=labels,
        deleted=False,
        created_by="anna",
        created_ns=1,
        changed_by="anna",
        changed_ns=1,
    )


def question(cameras: int, views: list[NodeView], groups: Mapping[str, str] | None = None) -> Question:
    wanted = [Camera(camera_id=f"c{number}", cost=ONE) for number in range(cameras)]
    return Question(wanted, views, Costs({}, ONE), groups or {})


@pytest.mark.parametrize("phase", [phase for phase in NodePhase if phase is not NodePhase.LIVE])
def test_only_live_nodes_are_asked_and_joining_ones_when_there_is_no_other(phase: NodePhase) -> None:
    (closed,) = nodes_of([view("n1", phase)], Costs({}))
    assert closed.closed == CLOSED[phase]
    placed = {one.node_id for one in decide(question(3, [view("n1", phase), view("n2")]))}
    assert placed == {"n2"}
    alone = {one.node_id for one in decide(question(3, [view("n1", phase)]))}
    assert alone == ({"n1"} if phase is NodePhase.JOINING else {None})


def test_what_fits_on_no_live_node_goes_to_those_that_came_back_but_not_over_what_they_have() -> None:
    views = [view("back", NodePhase.JOINING, cores=3.0), view("live", cores=2.0, cameras=("old",))]
    decisions = decide(question(6, views))
    assert [one.camera_id for one in decisions] == [f"c{number}" for number in range(6)]
    where = [one.node_id for one in decisions]
    # One has room beside the old camera, three where it came back, and two have none.
    assert (where.count("live"), where.count("back"), where.count(None)) == (1, 3, 2)


def test_only_what_was_recorded_is_squeezed_in_and_only_where_that_ends_no_recording() -> None:
    full = view("n1", cores=1.0, cameras=("old",))
    asked = question(2, [full])
    assert [one.node_id for one in decide(asked)] == [None, None]
    # Half a core over what it has: one more does fit, two do not.
    half = [Camera(camera_id=f"c{number}", cost=Resources(decode_cores=0.5)) for number in range(2)]
    asked = Question(half, [full], Costs({}, ONE), {}, orphans=frozenset({"c1"}))
    assert [one.node_id for one in decide(asked)] == [None, "n1"]
    asked = Question(half, [full], Costs({}, ONE), {}, orphans=frozenset({"c0", "c1"}))
    assert sorted(str(one.node_id) for one in decide(asked)) == ["None", "n1"]
    # Inference may be short of everything, a disk of nothing.
    for cost, node_id in ((Resources(infer_per_s=50.0), "n1"), (Resources(write_bytes_s=50.0), None)):
        node = replace(view("n1"), capacity=Resources(infer_per_s=1.0, write_bytes_s=1.0))
        one = Camera(camera_id="c0", cost=cost)
        (decision,) = decide(Question([one], [node], Costs({}, ONE), {}, orphans=frozenset({"c0"})))
        assert decision.node_id == node_id


def test_a_hard_spread_is_kept_over_all_rounds() -> None:
    pair = [Camera(camera_id=f"c{number}", cost=ONE, spread=Spread("door", hard=True)) for number in range(3)]
    views = [view("live"), view("back", NodePhase.JOINING)]
    groups = {"c0": "door", "c1": "door", "c2": "door"}
    where = sorted(str(one.node_id) for one in decide(Question(pair, views, Costs({}, ONE), groups)))
    assert where == ["None", "back", "live"]


def test_what_a_node_uses_is_what_its_cameras_were_measured_to_need_or_do_typically() -> None:
    costs = Costs({"a": Resources(decode_cores=3.0, write_bytes_s=7.0)}, typical=ONE)
    (node,) = nodes_of([view("n1", cameras=("a", "b", "c"))], costs)
    assert (node.used, node.cameras) == (Resources(decode_cores=5.0, write_bytes_s=7.0), 3)


def test_labels_that_mean_something_to_placement() -> None:
    camera = wish(row(site="north", colour="red", spread="door", spread_over="rack", spread_hard="true"), ONE, ("n2",))
    assert camera.needs == {"site": "north"}
    assert camera.spread == Spread("door", "rack", hard=True)
    assert camera.avoid == {"n2"}
    assert wish(row(spread="door"), ONE).spread == Spread("door")
    assert wish(row(spread_over="rack"), ONE).spread is None


def test_a_camera_goes_to_no_node_that_is_known_to_lack_its_model() -> None:
    spec = draft("gate-1").spec.model_copy(update={"model": "helmets"})
    camera = wish(replace(row(), spec=spec), ONE)
    assert camera.model == "helmets"
    lacks = replace(view("lacks"), models=frozenset({"people"}))
    silent = view("silent", cameras=("a", "b", "c"))
    has = replace(view("has", cameras=("d",)), models=frozenset({"helmets", "people"}))

    def best(*views: NodeView) -> Decision:
        (decision,) = decide(Question([camera], list(views), Costs({}, ONE), {}))
        return decision

    assert best(lacks, silent, has).node_id == "has"
    assert best(lacks, silent).node_id == "silent", "an agent that does not tell is taken to have it"
    assert (best(lacks).node_id, best(lacks).why) == (None, Why.MODEL)
    found = explain(camera, nodes_of([lacks, silent, has], Costs({})))
    assert {one.node_id: one.refusals for one in found.candidates} == {
        "has": (),
        "silent": (),
        "lacks": ("model helmets is not there",),
    }
    # One that names no model goes anywhere: the first of a node serves it, if there is one.
    (anywhere,) = decide(Question([wish(row(), ONE)], [replace(lacks, models=frozenset())], Costs({}, ONE), {}))
    assert anywhere.node_id == "lacks"


def test_groups_are_counted_where_their_cameras_are() -> None:
    views = [view("n1", cameras=("a", "b", "x")), view("n2", cameras=("c",))]
    assert members_of(views, {"a": "door", "b": "door", "c": "gate"}) == {"door": {"n1": 2}, "gate": {"n2": 1}}
    # A third one of the group goes where none is, although that node has more to do.
    spread = Camera(camera_id="d", cost=ONE, spread=Spread("door"))
    views = [view("n1", cameras=("a",)), view("n2", cameras=("v", "w", "x"))]
    (one,) = decide(Question([spread], views, Costs({}, ONE), {"a": "door"}))
    assert one.node_id == "n2"
