"""What is made of the registry's answers on nodes: problems first, and nothing that somebody wanted among them."""

from __future__ import annotations

from typing import Any

import pytest

from nodeagent.contract.errors import Unavailable
from nodeagent.infra.cluster_answers import FreezeSeen, NodeSeen, Overview, node_seen, overview
from nodeagent.infra.cluster_view import cluster_view, node_lines

S = 1_000_000_000
DRAIN = {"ordered_by": "anna", "left": 3, "moved": 2, "done": False, "trouble": ""}


def node(node_id: str = "n1", **values: Any) -> NodeSeen:
    given = {
        "node_id": node_id, "phase": "live", "host": "rack", "agent_version": "1", "silent_s": 0.4, "skew_ns": 0,
        "labels": {}, "capacity": None, "owns": 2, "serves": 2, "drain": None, "conflict": "",
    }  # fmt: skip
    return node_seen(given | values)


def whole(**values: Any) -> Overview:
    given = {"registry_id": "reg1", "leader": "reg1", "freeze": None, "nodes": {"live": 1}, "cameras": {"owned": 2}}
    return overview(given | values)


@pytest.mark.parametrize(
    ("values", "state", "cause"),
    [
        ({"phase": "dead", "silent_s": 12.34}, "dead", "silent for 12.3 s"),
        ({"phase": "dead", "silent_s": None}, "dead", "has not reported to this registry"),
        ({"phase": "suspect", "silent_s": 2.5}, "suspect", "silent for 2.5 s"),
        ({"conflict": "another life reports"}, "conflict", "another life reports"),
        ({"skew_ns": -3 * S}, "clock", "its clock is 3.0 s behind the registry's"),
        ({"skew_ns": S + 1}, "clock", "its clock is 1.0 s ahead of the registry's"),
        ({"phase": "draining", "drain": DRAIN | {"trouble": "n2 is full"}}, "drain", "n2 is full"),
    ],
)
def test_what_is_wrong_with_a_node_is_named_with_its_cause(values: dict[str, Any], state: str, cause: str) -> None:
    (problem,) = cluster_view(whole(), [node(), node("n2", **values)]).problems
    assert (problem.name, problem.state, problem.cause) == ("n2", state, cause)
    assert problem.hint


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"phase": "joining"},
        {"phase": "draining", "drain": DRAIN},
        {"skew_ns": S},
        {"owns": 3},
        {"phase": "word of a newer registry"},
    ],
)
def test_what_somebody_wanted_is_no_problem(values: dict[str, Any]) -> None:
    assert cluster_view(whole(), [node(**values)]).problems == ()


def test_problems_of_the_whole_come_before_those_of_nodes() -> None:
    held = FreezeSeen(reason="3 of 4 nodes fell silent", until_ns=1)
    view = cluster_view(
        whole(leader="", freeze=held.model_dump(), cameras={"owned": 0, "pooled": 1}), [node(phase="dead")]
    )
    assert [problem.state for problem in view.problems] == ["no leader", "frozen", "pooled", "dead"]
    assert "3 of 4 nodes fell silent" in view.problems[1].cause
    assert view.problems[2].cause == "1 camera waits for a node"


def test_load_is_told_against_the_mean_of_nodes_that_live() -> None:
    lines = node_lines([node("n1", owns=3, serves=3), node("n2", owns=1, serves=1), node("n3", phase="dead", owns=9)])
    assert [line.of_mean for line in lines] == [1.5, 0.5, None]
    assert [line.of_mean for line in node_lines([node(owns=0, serves=0)])] == [None]


def test_remarks_say_what_is_under_way() -> None:
    (line,) = node_lines([node(owns=3, serves=1, phase="draining", drain=DRAIN, skew_ns=2 * S, conflict="twins")])
    assert line.remarks == (
        "serves 1 of 3",
        "drains by order of anna: 3 cameras left, 2 moved",
        "its clock is 2.0 s ahead of the registry's",
        "twins",
    )


NOTHING = {"cameras": 0, "clips": 0, "detections": 0, "alarms": 0}


@pytest.mark.parametrize(
    ("drain", "words"),
    [
        ({"state": "moving"}, "3 cameras left, 2 moved"),
        ({"state": "starting", "left": 0, "starting": 1}, "no camera left, others start 1 of 2"),
        (
            {"state": "finishing", "left": 0, "unfinished": NOTHING | {"cameras": 1, "alarms": 2}},
            "no camera left, waits for 1 unfinished recording, 2 alarms",
        ),
        (
            {"state": "finishing", "left": 0, "unfinished": NOTHING | {"clips": None, "detections": 3}},
            "no camera left, waits for 3 clips to judge, the number of clips to look at",
        ),
        ({"state": "done", "left": 0, "done": True, "unfinished": NOTHING}, "no camera left, nothing waits on it"),
        (
            {"state": "done", "left": 0, "done": True, "unfinished": NOTHING, "uncaptured": ["c1", "c2"]},
            "no camera left, nothing waits on it; nobody captures c1, c2",
        ),
        ({"state": "untold", "left": 0}, "no camera left; what waits on it is not told by its agent 1.0"),
        (
            {"state": "lost", "left": 0},
            "no camera left, but it died: what waited on it waits there until it is started again",
        ),
        # Of a registry that tells no state.
        ({"left": 0, "done": True}, "no camera left"),
    ],
)
def test_a_drain_says_how_far_it_is_and_what_is_not_known(drain: dict[str, Any], words: str) -> None:
    (line,) = node_lines([node(agent_version="1.0", drain=DRAIN | drain)])
    assert line.remarks == (f"drains by order of anna: {words}",)


@pytest.mark.parametrize("document", [{}, {"node_id": 1}, {"leader": None}])
def test_an_answer_of_another_kind_is_no_answer(document: dict[str, Any]) -> None:
    for read in (node_seen, overview):
        with pytest.raises(Unavailable):
            read(document)
