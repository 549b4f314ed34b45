"""What `status` decides to show of a report."""

from __future__ import annotations

import io
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from nodeagent.cli.status_draw import draw
from nodeagent.cli.status_view import PHASE_HINT, problem_of, status_view
from nodeagent.contract.report import ChildRow, Kind, NodeReport, Phase
from nodeagent.contract.states import MEANING, State

S = 1_000_000_000
START_NS = 1_795_494_669 * S
NOW_NS = START_NS + 100 * S


def row(name: str, state: State = State.RUNNING, phase: Phase = Phase.RUNNING, **more: object) -> ChildRow:
    given: dict[str, object] = {
        "name": name,
        "kind": Kind(name.partition(":")[0]),
        "pid": 10,
        "phase": phase,
        "state": state,
        "state_since_ns": START_NS,
        "detail": "",
        "beat_age_s": 0.1,
        "restarts": 0,
        "started_ns": START_NS,
        "counters": {},
    }
    return ChildRow.model_validate(given | more)


def report(*rows: ChildRow) -> NodeReport:
    return NodeReport(node_id="n1", host="h", version="1", agent_pid=1, started_ns=START_NS, rows=rows)


def cameras(number: int, state: State = State.CAPTURING) -> list[ChildRow]:
    return [row(f"capture:c{i:02d}", state) for i in range(number)]


def test_healthy_cameras_are_folded_and_troubled_ones_are_not_among_them() -> None:
    rows = [*cameras(12), row("capture:new", State.CONNECTING), row("capture:bad", State.AUTH_FAILED)]
    view = status_view(report(*rows), NOW_NS)
    assert view.folded == ("12 cameras capturing", "1 camera connecting")
    assert [problem.name for problem in view.problems] == ["capture:bad"]


def test_the_longest_standing_problem_comes_first() -> None:
    young = row("capture:a", State.STALLED, state_since_ns=NOW_NS - S)
    old = row("inference:0", State.BAD_MODEL, Phase.FATAL, detail="no such file", restarts=3)
    problems = status_view(report(young, old), NOW_NS).problems
    assert [problem.name for problem in problems] == ["inference:0", "capture:a"]
    assert (problems[0].cause, problems[0].restarts) == ("no such file", 3)


@pytest.mark.parametrize("state", list(State))
def test_a_state_is_a_problem_just_when_its_meaning_says_so(state: State) -> None:
    found = problem_of(row("judge:0", state))
    assert (found is not None) == MEANING[state].problem
    if found:
        assert (found.state, found.hint) == (state.value, MEANING[state].hint)


@pytest.mark.parametrize("phase", list(Phase))
def test_a_phase_is_a_problem_when_the_child_is_not_coming_up(phase: Phase) -> None:
    found = problem_of(row("judge:0", State.RUNNING, phase))
    assert (found is not None) == (phase in (Phase.BACKOFF, Phase.FATAL))
    if found:
        assert found.hint == PHASE_HINT[phase]


def test_the_state_names_the_cause_of_the_phase() -> None:
    found = problem_of(row("inference:0", State.BAD_MODEL, Phase.FATAL))
    assert found and found.state == "bad_model"


@pytest.mark.parametrize("phase", [Phase.STOPPING, Phase.EXITED])
def test_a_child_that_was_told_to_stop_is_no_problem(phase: Phase) -> None:
    assert problem_of(row("capture:a", State.SOURCE_DOWN, phase)) is None


def test_rates_are_over_the_window_between_two_reports() -> None:
    before = report(row("inference:0", counters={"samples": 100}), row("inference:1", counters={"samples": 50}))
    after = report(row("inference:0", counters={"samples": 150}), row("inference:1", counters={"samples": 60}))
    (line,) = status_view(after, NOW_NS, before, over_s=10.0).stages
    assert line.per_s == pytest.approx(6.0)
    (line,) = status_view(after, NOW_NS).stages
    assert line.per_s == pytest.approx(2.1)


def test_a_counter_that_began_anew_gives_no_negative_rate() -> None:
    before, after = (report(row("judge:0", counters={"samples": n})) for n in (500, 20))
    (line,) = status_view(after, NOW_NS, before, over_s=10.0).stages
    assert line.per_s == 0.0


def test_lag_is_that_of_the_slowest() -> None:
    rows = [
        row("capture:a", State.CAPTURING, counters={"last_sample_ns": NOW_NS - S}),
        row("capture:b", State.CAPTURING, counters={"last_sample_ns": NOW_NS - 3 * S}),
        row("capture:c", State.SOURCE_DOWN, counters={"last_sample_ns": START_NS}),
        row("inference:0", counters={"last_clip_ns": NOW_NS - 60 * S}),
        row("inference:1", counters={"last_clip_ns": NOW_NS - 4 * S}),
        row("judge:0", counters={"last_clip_ns": NOW_NS - 5 * S}),
        row("judge:1", counters={"last_clip_ns": NOW_NS - 600 * S}),
        row("judge:2", counters={"last_clip_ns": 0}),
        row("alarm:0", counters={"lag_ms": 1500}),
    ]
    lags = {line.kind: line.lag_s for line in status_view(report(*rows), NOW_NS).stages}
    # Inference workers share a queue, so the furthest one tells; a judge that stands still is seen.
    assert lags == {Kind.CAPTURE: 3.0, Kind.INFERENCE: 4.0, Kind.JUDGE: 600.0, Kind.ALARM: 1.5}


def test_nothing_is_behind_while_no_camera_records() -> None:
    rows = [row("capture:a", State.SOURCE_DOWN), row("judge:0", counters={"last_clip_ns": NOW_NS - 600 * S})]
    assert {line.lag_s for line in status_view(report(*rows), NOW_NS).stages} == {None}


def test_dead_letters_are_a_problem_of_their_queue() -> None:
    rows = [
        row("inference:0", counters={"put_aside": 3, "put_aside_ns": NOW_NS - 60 * S}),
        row("inference:1", counters={"put_aside": 3, "put_aside_ns": NOW_NS - 50 * S}),
        row("judge:0", counters={"put_aside": 0, "put_aside_ns": 0}),
    ]
    (problem,) = status_view(report(*rows), NOW_NS).problems
    assert (problem.name, problem.state, problem.since_ns) == ("clips.dead", "put_aside", NOW_NS - 60 * S)
    assert "3 messages" in problem.cause


def test_stages_count_children_and_those_that_are_well() -> None:
    view = status_view(report(*cameras(3), row("capture:x", State.NO_VIDEO), row("redis")), NOW_NS)
    assert [(line.kind, line.well, line.children) for line in view.stages] == [(Kind.REDIS, 1, 1), (Kind.CAPTURE, 3, 4)]


def test_gaps_are_listed_largest_first() -> None:
    rows = [row("capture:a", counters={"gap_ms": 1500}), row("capture:b"), row("capture:c", counters={"gap_ms": 9000})]
    assert status_view(report(*rows), NOW_NS).gaps == (("c", 9.0), ("a", 1.5))


def test_the_page_shows_state_since_cause_and_hint_in_the_sites_time() -> None:
    rows = [*cameras(12), row("capture:gate", State.AUTH_FAILED, detail="401 from [camera]", restarts=2)]
    told = report(*rows, row("capture:x", counters={"gap_ms": 2000}))
    out = io.StringIO()
    zone = ZoneInfo("Asia/Shanghai")
    page = draw(told, status_view(told, NOW_NS), zone, NOW_NS, "since the node's start")
    Console(file=out, width=180, color_system=None).print(page)
    text = out.getvalue()
    for part in ("1 problem", "auth_failed", "2026-11-24 12:31:09", "1 min 40 s", "2 restarts", "401 from [camera]"):
        assert part in text
    for part in ("correct them in the camera's url", "12 cameras capturing", "not recorded: 2.0 s (x 2.0 s)"):
        assert part in text
