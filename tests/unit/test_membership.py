"""Which nodes are lost, which agent is a node's, when evictions are held, and which tasks have to stop."""

from __future__ import annotations

import pytest

from nodeagent.contract.ownership import LEASE_S, REPORT_S, Owner
from nodeagent.contract.phases import IllegalStep, step
from nodeagent.contract.report import Phase
from nodeagent.contract.states import State
from registry.brake import FREEZE_S, USUAL, WITNESS_S, Brake, Frozen, Sight, Thawed, fell_together
from registry.member import NEXT, QUARANTINE_S, RESTART_S, Accepted, Conflict, Event, NodePhase
from registry.membership import Evict, PhaseChanged, Reborn, UnknownNode, Witness
from registry.tasks import DOWN_S, GOOD_S, PATIENCE_MAX_S, SHOW_S, START_S, StopTask, Tasks, Why
from tests.support.registry_nodes import TICK_S, Agent, Site, of_kind, row

#: From a node's last report to its eviction at the latest, seconds.
EVICTED_BY_S = LEASE_S + TICK_S


def site_of(count: int) -> tuple[Site, list[Agent]]:
    agents = [Agent(f"n{i}") for i in range(count)]
    site = Site(*agents)
    for agent in agents:
        site.serve(agent, f"cam-{agent.node_id}")
    site.run(40.0)
    return site, agents


def phase(site: Site, agent: Agent) -> NodePhase:
    return site.members.view(agent.node_id, site.now_s).phase


@pytest.mark.parametrize("before", NodePhase)
@pytest.mark.parametrize("event", Event)
def test_what_is_not_in_the_table_raises(before: NodePhase, event: Event) -> None:
    if event in NEXT[before]:
        assert step(NEXT, before, event) in NodePhase
    else:
        with pytest.raises(IllegalStep, match=f"{event.value} while {before.value}"):
            step(NEXT, before, event)


def test_only_a_suspect_is_lost_and_every_phase_can_be_reached_and_left() -> None:
    assert {before for before in NodePhase if Event.LOST in NEXT[before]} == {NodePhase.SUSPECT}
    assert {after for row_ in NEXT.values() for after in row_.values()} == set(NodePhase)
    assert all(set(NEXT[before].values()) - {before} for before in NodePhase)


# Silence.


def test_one_dead_node_of_two_loses_its_cameras_and_is_tried_when_it_comes_back() -> None:
    site, (dead, other) = site_of(2)
    site.kill(dead)
    died_s = site.now_s
    decisions = site.run(60.0, lambda decision: isinstance(decision, Evict))
    assert site.now_s - died_s <= EVICTED_BY_S
    (evict,) = of_kind(Evict, decisions)
    assert (evict.node_id, [orphan.camera_id for orphan in evict.orphans]) == ("n0", ["cam-n0"])
    assert evict.orphans[0].owner.incarnation == dead.incarnation
    changes = [(change.old, change.new) for change in of_kind(PhaseChanged, decisions)]
    assert changes == [(NodePhase.LIVE, NodePhase.SUSPECT), (NodePhase.SUSPECT, NodePhase.DEAD)]
    assert phase(site, other) is NodePhase.LIVE
    assert of_kind(Evict, site.run(60.0)) == []

    dead.alive = True
    site.run(1.0)
    assert phase(site, dead) is NodePhase.JOINING
    site.run(QUARANTINE_S - 2.0)
    assert phase(site, dead) is NodePhase.JOINING
    site.run(3.0)
    assert phase(site, dead) is NodePhase.LIVE


def test_a_node_that_misses_two_reports_is_suspect_and_back_with_the_next() -> None:
    site, (agent, _) = site_of(2)
    site.kill(agent)
    site.run(2.5)
    assert phase(site, agent) is NodePhase.SUSPECT
    agent.alive = True
    site.run(1.0)
    assert phase(site, agent) is NodePhase.LIVE
    assert of_kind(Evict, site.log_only()) == []


def test_a_new_term_gives_every_node_time_to_report() -> None:
    site, agents = site_of(2)
    copy = agents[0].report(site.now_s)
    site.send(copy)
    site.kill(*agents)
    site.run(10.0)
    site.members.drain("n0", site.now_s)
    assert {phase(site, agent) for agent in agents} == {NodePhase.DEAD}
    began_s = site.now_s
    site.members.begin_term({"a": owner_of("n8"), "b": owner_of("n9")}, site.now_s)
    assert site.send(copy) == Accepted(fresh=False)
    assert site.members.view("n0", site.now_s).ordered
    evicted = of_kind(Evict, site.run(60.0, lambda decision: isinstance(decision, Evict)))
    assert 2 * LEASE_S < site.now_s - began_s <= EVICTED_BY_S + LEASE_S
    assert {evict.node_id: [orphan.camera_id for orphan in evict.orphans] for evict in evicted} == {
        "n0": [], "n1": [], "n8": ["a"], "n9": ["b"],
    }  # fmt: skip


def owner_of(node_id: str) -> Owner:
    return Owner(node_id=node_id, incarnation="f" * 16, epoch=99)


def test_a_registry_that_begins_where_it_hears_nobody_freezes() -> None:
    site = Site()
    site.members.begin_term({camera: owner_of(f"n{camera}") for camera in "abc"}, 0.0)
    decisions = site.run(20.0)
    assert of_kind(Evict, decisions) == []
    assert len(of_kind(Frozen, decisions)) == 1
    assert len(of_kind(Evict, site.run(FREEZE_S))) == 3


def test_who_dies_early_in_a_term_is_not_held_by_those_that_have_their_grace_still() -> None:
    site, agent = Site(), Agent("n0")
    site.members.begin_term({camera: owner_of(f"n{camera}") for camera in "abc"}, 0.0)
    site.run(1.0)
    site.hear(agent)
    evicted = of_kind(Evict, site.run(EVICTED_BY_S))
    assert [evict.node_id for evict in evicted] == ["n0"]


def test_the_time_until_a_registry_leads_is_no_pause() -> None:
    site = Site(leads=False)
    site.now_s = 100.0
    site.members.begin_term({}, site.now_s)
    assert site.run(10.0) == []


def test_a_node_that_was_never_heard_gets_no_cameras_meanwhile() -> None:
    site = Site()
    site.members.expect("n1", 0.0)
    assert site.members.view("n1", 0.0).phase is NodePhase.SUSPECT
    assert site.members.view("n1", 0.0).silent_s is None


def test_who_follows_decides_nothing_and_still_tells_a_restart_from_a_twin() -> None:
    agent = Agent("n1")
    site = Site(agent, leads=False)
    site.run(10.0)
    site.kill(agent)
    assert site.run(20.0) == []
    assert isinstance(site.hear(Agent("n1", life=2, started_s=site.now_s)), Accepted)


def test_what_was_granted_to_a_dead_node_comes_back_at_once() -> None:
    site, (dead, _) = site_of(2)
    site.kill(dead)
    site.run(10.0)
    site.grant("late", dead)
    (evict,) = of_kind(Evict, site.run(TICK_S))
    assert [orphan.camera_id for orphan in evict.orphans] == ["late"]


def test_a_dead_node_can_be_forgotten_and_no_other() -> None:
    site, (dead, other) = site_of(2)
    site.kill(dead)
    site.run(10.0)
    site.members.forget("n0")
    with pytest.raises(UnknownNode):
        site.members.view("n0", site.now_s)
    with pytest.raises(IllegalStep):
        site.members.forget("n1")
    assert phase(site, other) is NodePhase.LIVE


# Two agents with one id.


@pytest.mark.parametrize(
    ("host", "started_s", "silent_s", "leaves", "accepted"),
    [
        ("h", 50.0, RESTART_S - 0.5, False, False),
        ("h", 50.0, RESTART_S, False, True),
        ("h", -50.0, LEASE_S - 0.5, False, False),
        ("h", -50.0, LEASE_S, False, True),
        ("other", 50.0, LEASE_S - 0.5, False, False),
        ("other", 50.0, LEASE_S, False, True),
        ("other", 50.0, 0.0, True, True),
    ],
)
def test_another_life_is_followed_when_the_one_before_was_silent_for_long_enough(
    host: str, started_s: float, silent_s: float, leaves: bool, accepted: bool
) -> None:
    old = Agent("n1", host="h", draining=leaves)
    site = Site(old)
    site.run(10.0)
    site.kill(old)
    site.run(silent_s)
    answer = site.hear(Agent("n1", life=2, host=host, started_s=started_s))
    assert isinstance(answer, Accepted if accepted else Conflict)
    # It may be a restart: nobody needs to look.
    assert not answer.log
    assert not site.members.view("n1", site.now_s).conflict


def test_an_agent_that_was_killed_and_started_at_once_is_back_within_its_lease() -> None:
    site, (killed, _) = site_of(2)
    site.kill(killed)
    again = Agent("n0", life=2, started_s=site.now_s)
    site.agents.append(again)
    died_s = site.now_s
    decisions = site.run(60.0, lambda decision: isinstance(decision, Reborn))
    assert site.now_s - died_s <= RESTART_S + REPORT_S < LEASE_S
    (reborn,) = of_kind(Reborn, decisions)
    assert (reborn.node_id, reborn.incarnation, reborn.steady) == ("n0", again.incarnation, True)
    assert [orphan.camera_id for orphan in reborn.orphans] == ["cam-n0"]
    site.serve(again, "cam-n0")
    assert [decision for decision in site.run(60.0) if not isinstance(decision, PhaseChanged)] == []
    assert phase(site, again) is NodePhase.LIVE


def test_a_registry_that_has_only_just_begun_does_not_take_a_life_for_a_short_one() -> None:
    agent = Agent("n0", started_s=-1000.0)
    site = Site(agent)
    site.run(5.0)
    site.serve(agent, "a")
    site.kill(agent)
    site.agents.append(Agent("n0", life=2, started_s=5.0))
    (reborn,) = of_kind(Reborn, site.run(5.0))
    assert reborn.steady


def test_an_agent_that_is_started_again_and_again_is_not_steady() -> None:
    site, (agent, _) = site_of(2)
    for life in (2, 3):
        site.kill(agent)
        agent = Agent("n0", life=life, started_s=site.now_s)
        site.agents.append(agent)
        site.run(5.0)
        site.serve(agent, "cam-n0")
        site.run(5.0)
    assert [reborn.steady for reborn in of_kind(Reborn, site.log_only())] == [True, False]
    assert phase(site, agent) is NodePhase.JOINING


def test_of_two_agents_with_one_id_the_first_stays_and_one_line_tells_of_it() -> None:
    site, (first, _) = site_of(2)
    told = len(site.log)
    twin = Agent("n0", life=2, host="elsewhere", started_s=site.now_s)
    answers = []
    for _ in range(120):
        site.run(0.5)
        answers.append(site.hear(twin))
    conflicts = of_kind(Conflict, answers)
    assert len(conflicts) == len(answers)
    (line,) = [conflict.log for conflict in conflicts if conflict.log]
    assert "elsewhere" in line
    assert first.incarnation in line
    assert site.members.view("n0", site.now_s).conflict == line
    assert site.log[told:] == []
    site.run(LEASE_S + 1.0)
    assert site.members.view("n0", site.now_s).conflict == ""


def test_twins_on_one_host_change_once_when_the_first_is_late_and_then_stay() -> None:
    first, twin = Agent("n0", life=1), Agent("n0", life=2, started_s=5.0)
    site = Site(first)
    site.serve(first, "a")
    site.run(40.0)
    site.kill(first)
    site.run(RESTART_S)
    assert isinstance(site.hear(twin), Accepted)
    site.agents.append(twin)
    first.alive = True
    site.run(1.0)
    for _ in range(60):
        site.run(1.0)
        assert isinstance(site.hear(first), Conflict)
    assert len(of_kind(Reborn, site.log_only())) == 1


def test_two_lives_that_both_leave_do_not_take_turns() -> None:
    first, second = Agent("n0", draining=True), Agent("n0", life=2, started_s=5.0, draining=True)
    site = Site(first)
    site.run(10.0)
    for _ in range(10):
        site.run(1.0)
        assert isinstance(site.hear(second), Conflict)


def test_a_late_copy_of_a_report_raises_nobody_from_the_dead() -> None:
    site, (dead, other) = site_of(2)
    copy = dead.report(site.now_s)
    site.send(copy)
    site.kill(dead)
    site.run(10.0)
    assert site.send(copy) == Accepted(fresh=False)
    again = Agent("n0", life=2, started_s=site.now_s)
    assert isinstance(site.hear(again), Accepted)
    assert phase(site, again) is NodePhase.JOINING
    site.run(10.0)
    assert site.send(copy) == Accepted(fresh=False)
    assert phase(site, dead) is NodePhase.DEAD
    assert phase(site, other) is NodePhase.LIVE


@pytest.mark.parametrize(("skew_s", "word"), [(300.0, "ahead of"), (-300.0, "behind")])
def test_a_clock_that_is_off_by_minutes_is_told_and_moves_nothing(skew_s: float, word: str) -> None:
    site, (agent, _) = site_of(2)
    told = len(site.log)
    agent.skew_s = skew_s
    answers = []
    for _ in range(60):
        site.run(0.5)
        answers.append(site.hear(agent))
    accepted = of_kind(Accepted, answers)
    assert all(f"300.0 s {word}" in warning for answer in accepted for (warning,) in [answer.warnings])
    assert site.log[told:] == []
    agent.skew_s = 0.9
    assert site.hear(agent) == Accepted()


def test_a_skewed_clock_is_logged_once_each_time_it_goes_wrong() -> None:
    site, agent = Site(), Agent("n1")
    logged = []
    for skew_s in (0.0, 300.0, 301.0, 0.9, 1.1, 0.0, 300.0):
        agent.skew_s = skew_s
        site.now_s += 1.0
        answer = site.hear(agent)
        assert isinstance(answer, Accepted)
        logged.append(len(answer.log))
    assert logged == [0, 1, 0, 0, 0, 0, 1]


def test_a_report_that_was_long_under_way_says_nothing_of_the_clock() -> None:
    site, agent = Site(), Agent("n1")
    site.hear(agent)
    site.run(3 * REPORT_S)
    agent.skew_s = -1.5
    assert site.hear(agent) == Accepted()
    # The next one came in time: it is the clock.
    site.now_s += REPORT_S
    answer = site.hear(agent)
    assert isinstance(answer, Accepted)
    assert "1.5 s behind" in answer.log[0]


# The brake.


@pytest.mark.parametrize(
    ("waiting", "gone", "present", "together"),
    [
        ([0.0, 2.0, 4.0], [], 3, True),
        ([0.0, 2.0, 4.1], [], 3, False),
        ([0.0, 2.0, 4.1, 6.0], [], 5, True),
        ([2.0, 3.0], [1.0], 2, True),
        ([2.0, 3.0], [1.0], 5, False),
        ([9.0, 9.0], [1.0], 2, False),
        ([9.0], [1.0, 2.0, 3.0], 1, False),
    ],
)
def test_together_is_within_one_lease(waiting: list[float], gone: list[float], present: int, together: bool) -> None:
    assert fell_together(waiting, gone, present) is together


def test_who_was_silent_when_a_freeze_ended_is_not_held_by_the_next() -> None:
    brake = Brake()
    stopped = Sight(passed_s=30.0, cut_off=False, due=False, waiting=(), gone=(), present=2, back_since_s=0.0)
    assert isinstance(brake.turn(stopped, 100.0, 10.0), Frozen)
    assert brake.holds(1.0)
    assert isinstance(brake.thaw("by order", 10.0), Thawed)
    assert not brake.holds(1.0)
    assert isinstance(brake.turn(stopped, 140.0, 11.0), Frozen)
    assert not brake.holds(10.0 - USUAL.suspect_s)
    assert brake.holds(10.0)


def test_suspects_of_a_freeze_that_was_ended_begin_no_other() -> None:
    site, agents = site_of(4)
    site.now_s += 30.0
    site.kill(*agents[:3])
    site.run(3.0)
    assert site.members.thaw(site.now_s) is not None
    decisions = site.run(10.0)
    assert of_kind(Frozen, decisions) == []
    assert len(of_kind(Evict, decisions)) == 3


def test_who_was_evicted_after_a_freeze_counts_no_more() -> None:
    site, agents = site_of(6)
    site.kill(*agents[:4])
    site.run(3.0)
    site.kill(agents[4])
    site.run(1.5)
    assert site.members.thaw(site.now_s) is not None
    assert len(of_kind(Evict, site.run(TICK_S))) == 4
    decisions = site.run(10.0)
    assert of_kind(Frozen, decisions) == []
    assert [evict.node_id for evict in of_kind(Evict, decisions)] == ["n4"]


@pytest.mark.parametrize(
    ("nodes", "dead", "frozen"),
    [
        (1, 1, False), (2, 1, False), (2, 2, False), (3, 1, False), (3, 2, False), (3, 3, True), (4, 2, False),
        (4, 3, True), (5, 2, False), (5, 3, True), (6, 3, False), (10, 5, False), (10, 6, True),
    ],
)  # fmt: skip
def test_evictions_freeze_when_three_and_more_than_half_fall_silent(nodes: int, dead: int, frozen: bool) -> None:
    site, agents = site_of(nodes)
    died_s = site.now_s
    site.kill(*agents[:dead])
    decisions = site.run(10.0)
    assert bool(of_kind(Frozen, decisions)) is frozen
    assert len(of_kind(Evict, decisions)) == (0 if frozen else dead)
    decisions = site.run(FREEZE_S)
    assert site.members.frozen is None
    assert len(of_kind(Thawed, decisions)) == frozen
    evicted_s = [at_s for at_s, decision in site.log if isinstance(decision, Evict)]
    assert len(evicted_s) == dead
    assert max(evicted_s) <= died_s + EVICTED_BY_S + (FREEZE_S if frozen else 0.0)


def test_nodes_that_fall_one_after_the_other_within_a_lease_freeze_too() -> None:
    site, agents = site_of(4)
    for agent in agents[:3]:
        site.kill(agent)
        site.run(1.0)
    assert of_kind(Frozen, site.run(10.0))


def test_nodes_that_died_long_ago_neither_freeze_nor_prevent_it() -> None:
    site, agents = site_of(9)
    for agent in agents[:4]:
        site.kill(agent)
        site.run(10.0)
    assert of_kind(Frozen, site.log_only()) == []
    site.kill(*agents[4:7])
    assert of_kind(Frozen, site.run(10.0))


def test_an_order_thaws_and_what_is_silent_then_freezes_nothing_again() -> None:
    site, agents = site_of(4)
    site.kill(*agents[:3])
    site.run(10.0)
    assert site.members.thaw(site.now_s) == Thawed("by order")
    assert site.members.thaw(site.now_s) is None
    decisions = site.run(TICK_S)
    assert len(of_kind(Evict, decisions)) == 3
    assert of_kind(Frozen, site.run(100.0)) == []


def test_a_freeze_ends_early_when_all_are_back() -> None:
    site, agents = site_of(4)
    site.kill(*agents)
    site.run(20.0)
    assert site.members.frozen is not None
    for agent in agents:
        agent.alive = True
    decisions = site.run(2.0)
    assert len(of_kind(Thawed, decisions)) == 1
    assert of_kind(Evict, site.run(100.0)) == []


@pytest.mark.parametrize(("gone", "evicted"), [(True, True), (False, False), (None, False)])
def test_in_a_freeze_a_node_that_is_gone_from_redis_too_is_evicted(gone: bool | None, evicted: bool) -> None:
    site, agents = site_of(4)
    site.kill(*agents[:3])
    site.witness = Witness({"n1": gone})
    died_s = site.now_s
    site.run(30.0)
    found = [(at_s, decision.node_id) for at_s, decision in site.log if isinstance(decision, Evict)]
    assert [node_id for _, node_id in found] == (["n1"] if evicted else [])
    assert all(WITNESS_S <= at_s - died_s <= WITNESS_S + TICK_S for at_s, _ in found)


def test_a_live_node_that_is_gone_from_redis_is_left_alone() -> None:
    site, _ = site_of(4)
    told = len(site.log)
    site.witness = Witness({"n1": True})
    site.run(60.0)
    assert site.log[told:] == []


@pytest.mark.parametrize(("stopped_s", "frozen"), [(3.0, False), (30.0, True)])
def test_a_registry_that_was_stopped_evicts_nobody_that_reports_again(stopped_s: float, frozen: bool) -> None:
    site, agents = site_of(2)
    site.now_s += stopped_s
    decisions = site.run(20.0)
    assert bool(of_kind(Frozen, decisions)) is frozen
    assert len(of_kind(Thawed, decisions)) == frozen
    assert of_kind(Evict, decisions) == []
    site.kill(agents[0])
    assert of_kind(Evict, site.run(EVICTED_BY_S))


def test_while_the_registry_is_stopped_for_a_moment_nobody_is_silent() -> None:
    site, agents = site_of(2)
    site.kill(agents[0])
    site.run(1.5)
    site.now_s += 3.0
    assert of_kind(Evict, site.run(1.0)) == []
    assert of_kind(Evict, site.run(2.0))


def test_a_registry_that_is_stopped_in_a_freeze_gives_time_anew() -> None:
    site, agents = site_of(4)
    site.kill(*agents)
    site.run(10.0)
    site.now_s += 2 * FREEZE_S
    site.run(5.0)
    for agent in agents:
        agent.alive = True
    site.run(5.0)
    assert site.members.frozen is None
    assert of_kind(Evict, site.log_only()) == []


def test_who_died_while_the_registry_was_stopped_is_evicted_when_the_freeze_is_over() -> None:
    site, agents = site_of(2)
    site.kill(agents[0])
    site.now_s += 30.0
    began_s = site.now_s
    site.run(FREEZE_S * 2, lambda decision: isinstance(decision, Evict))
    assert FREEZE_S < site.now_s - began_s <= FREEZE_S + 1.0


@pytest.mark.parametrize("cut_s", [3.0, 30.0, 300.0])
def test_nothing_moves_while_the_registry_is_cut_off_and_everybody_gets_time_after(cut_s: float) -> None:
    site, agents = site_of(2)
    site.kill(*agents)
    site.run(2.0)
    site.witness = Witness(cut_off=True)
    assert of_kind(Evict, site.run(cut_s)) == []
    site.witness = Witness()
    agents[1].alive = True
    decisions = site.run(1.5)
    assert of_kind(Evict, decisions) == []
    decisions = site.run(FREEZE_S + LEASE_S)
    assert [evict.node_id for evict in of_kind(Evict, decisions)] == ["n0"]


def test_an_agent_that_is_started_anew_while_the_registry_is_cut_off_is_heard() -> None:
    site, (agent, _) = site_of(2)
    site.witness = Witness(cut_off=True)
    site.kill(agent)
    site.run(RESTART_S)
    assert phase(site, agent) is NodePhase.SUSPECT
    again = Agent("n0", life=2, started_s=site.now_s)
    assert isinstance(site.hear(again), Accepted)
    site.agents.append(again)
    assert of_kind(Reborn, site.run(10.0)) == []
    site.witness = Witness()
    assert len(of_kind(Reborn, site.run(1.0))) == 1


def test_nodes_that_said_that_they_leave_freeze_nothing_and_are_not_held() -> None:
    site, agents = site_of(4)
    for agent in agents[:3]:
        agent.draining = True
    site.run(2.0)
    site.kill(*agents[:3])
    decisions = site.run(EVICTED_BY_S)
    assert of_kind(Frozen, decisions) == []
    assert len(of_kind(Evict, decisions)) == 3

    site, agents = site_of(5)
    agents[3].draining = True
    site.run(2.0)
    site.kill(*agents[:4])
    decisions = site.run(EVICTED_BY_S)
    assert len(of_kind(Frozen, decisions)) == 1
    assert [evict.node_id for evict in of_kind(Evict, decisions)] == ["n3"]


# Draining.


def test_a_drain_is_ordered_and_taken_back() -> None:
    site, (agent, other) = site_of(2)
    site.members.drain("n0", site.now_s)
    assert phase(site, agent) is NodePhase.DRAINING
    assert phase(site, other) is NodePhase.LIVE
    site.run(5.0)
    site.members.undrain("n0", site.now_s)
    assert phase(site, agent) is NodePhase.LIVE
    with pytest.raises(UnknownNode, match="n7"):
        site.members.drain("n7", site.now_s)


def test_an_order_to_a_silent_node_holds_and_its_own_word_is_not_taken_back() -> None:
    site, (agent, _) = site_of(2)
    site.kill(agent)
    site.run(10.0)
    site.members.drain("n0", site.now_s)
    assert phase(site, agent) is NodePhase.DEAD
    agent.alive = agent.draining = True
    site.run(1.0)
    site.members.undrain("n0", site.now_s)
    assert phase(site, agent) is NodePhase.DRAINING
    agent.draining = False
    site.run(1.0)
    assert phase(site, agent) is NodePhase.JOINING


# Tasks.


def stops(site: Site, seconds: float) -> list[tuple[float, StopTask]]:
    """Tasks that had to stop, and after how many seconds."""
    began_s, first = site.now_s, len(site.log)
    site.run(seconds)
    return [(at_s - began_s, stop) for at_s, stop in site.log[first:] if isinstance(stop, StopTask)]


@pytest.mark.parametrize(
    ("shown", "limit_s"),
    [
        (None, SHOW_S),
        (row("a", State.STARTING, None, Phase.STARTING), START_S),
        (row("a", State.STARTING, None, Phase.BACKOFF), START_S),
    ],
)
def test_a_camera_that_its_node_does_not_get_going_goes_back(shown: object, limit_s: float) -> None:
    site, (agent, _) = site_of(2)
    if shown is not None:
        agent.rows["a"] = row("a").model_validate(shown)
    site.grant("a", agent)
    ((after_s, stop),) = stops(site, 100.0)
    assert limit_s < after_s <= limit_s + REPORT_S
    assert (stop.why, stop.orphan.camera_id, stop.orphan.avoid) == (Why.TIMED_OUT, "a", ("n0",))


def test_a_child_that_ran_and_is_gone_or_beats_no_more_is_stopped_after_a_lease() -> None:
    for gone in (True, False):
        site, (agent, _) = site_of(2)
        if gone:
            del agent.rows["cam-n0"]
        else:
            agent.rows["cam-n0"] = row("cam-n0", age_s=LEASE_S + 1.0)
        ((after_s, stop),) = stops(site, 60.0)
        assert after_s <= LEASE_S + REPORT_S
        assert stop.why is Why.TIMED_OUT


def test_a_silent_node_is_no_time_out_of_its_tasks() -> None:
    site, agents = site_of(4)
    site.kill(*agents[:3])
    assert stops(site, 30.0) == []


def test_a_camera_that_no_node_can_serve_wanders_less_and_less() -> None:
    site, agents = site_of(2)
    took_s = []
    for i in range(8):
        site.grant("a", agents[i % 2])
        ((after_s, _),) = stops(site, PATIENCE_MAX_S + 10.0)
        took_s.append(after_s)
    expected = [min(PATIENCE_MAX_S, SHOW_S * 2**i) for i in range(8)]
    assert took_s == pytest.approx(expected, abs=REPORT_S + TICK_S)


def test_a_camera_whose_source_is_away_moves_once_and_then_waits() -> None:
    site, (first, second) = site_of(2)
    first.rows["cam-n0"] = row("cam-n0", State.SOURCE_DOWN)
    ((after_s, stop),) = stops(site, 300.0)
    assert DOWN_S <= after_s <= DOWN_S + 2 * REPORT_S
    assert (stop.why, stop.orphan.avoid) == (Why.SOURCE_DOWN, ("n0",))
    del first.rows["cam-n0"]
    second.rows["cam-n0"] = row("cam-n0", State.SOURCE_DOWN)
    site.grant("cam-n0", second)
    assert stops(site, 600.0) == []

    second.rows["cam-n0"] = row("cam-n0", State.CAPTURING)
    site.run(GOOD_S / 2)
    assert site.members.tasks.avoid("cam-n0") == ("n0",)
    site.run(GOOD_S)
    assert site.members.tasks.avoid("cam-n0") == ()
    second.rows["cam-n0"] = row("cam-n0", State.SOURCE_DOWN)
    assert len(stops(site, 300.0)) == 1


def test_a_camera_whose_source_is_away_keeps_its_move_until_there_is_another_node() -> None:
    agent, other = Agent("n0"), Agent("n1", draining=True)
    site = Site(agent, other)
    site.serve(agent, "a")
    agent.rows["a"] = row("a", State.SOURCE_DOWN)
    assert stops(site, 300.0) == []
    other.draining = False
    assert len(stops(site, 5.0)) == 1


def test_a_camera_that_shows_no_life_stays_and_keeps_its_epoch_until_there_is_another_node() -> None:
    agent, other = Agent("n0"), Agent("n1", draining=True)
    site = Site(agent, other)
    site.serve(agent, "a")
    agent.rows["a"] = row("a", age_s=9.0)
    assert stops(site, 300.0) == []
    other.draining = False
    ((after_s, stop),) = stops(site, 5.0)
    assert (after_s < 5.0, stop.why, stop.orphan.avoid) == (True, Why.TIMED_OUT, ("n0",))


def test_no_task_is_stopped_while_evictions_are_frozen() -> None:
    site, agents = site_of(5)
    site.kill(*agents[:3])
    site.run(10.0)
    del agents[3].rows["cam-n3"]
    site.serve(agents[3], "hangs", "mends")
    agents[3].rows |= {camera: row(camera, age_s=9.0) for camera in ("hangs", "mends")}
    assert stops(site, 30.0) == []
    agents[3].serve("mends")
    assert [stop.orphan.camera_id for _, stop in stops(site, FREEZE_S)] == ["cam-n3", "hangs"]


def test_what_was_before_the_grant_is_no_time_out() -> None:
    site, (agent, _) = site_of(2)
    agent.rows["a"] = row("a", age_s=100.0)
    site.grant("a", agent)
    ((after_s, _),) = stops(site, 60.0)
    assert after_s > LEASE_S
    assert site.members.tasks.avoid("a") == ("n0",)
    site.members.removed("a")
    assert site.members.tasks.avoid("a") == ()


def test_old_news_of_a_grant_gives_nobody_a_camera() -> None:
    site, (first, second) = site_of(2)
    old = site.grant("a", first)
    new = site.grant("a", second)
    site.members.granted("a", old, site.now_s)
    assert site.members.tasks.owner("a") == new
    assert site.members.view("n0", site.now_s).cameras == ("cam-n0",)
    site.members.removed("a")
    site.members.granted("a", new, site.now_s)
    assert site.members.tasks.owner("a") is None


def test_a_child_that_showed_life_later_than_now_times_out_all_the_same() -> None:
    tasks, life = Tasks(), "0" * 16
    tasks.granted("cam", Owner(node_id="n1", incarnation=life, epoch=1), 0.0)
    tasks.reported("n1", life, [row("cam", age_s=-1e9)], 1.0)
    tasks.reported("n1", life, [], 1.0 + LEASE_S + 1.0)
    assert [stop.why for stop in tasks.take_stops(["n2"])] == [Why.TIMED_OUT]
