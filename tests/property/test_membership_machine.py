"""Membership against agents, links and clocks that do whatever they like."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.ownership import LEASE_S, AgentReport
from nodeagent.contract.phases import IllegalStep
from nodeagent.contract.states import State
from registry.brake import FREEZE_S, Frozen, Thawed
from registry.member import NEXT, Accepted, Event, Member, NodePhase
from registry.membership import Decision, Evict, Reborn, UnknownNode, Witness
from registry.tasks import DOWN_S, Orphan, StopTask
from tests.support.registry_nodes import TICK_S, WALL_NS, Agent, Site, row

#: Every one that has stopped for good is evicted in this time whatever was before: the last blindness's freeze, what a
#: term's beginning grants, the lease, and a turn.
SETTLED_S = FREEZE_S + 2 * LEASE_S + 2 * TICK_S
WHICH = st.integers(0, 3)
CAMERAS = ("a", "b", "c", "d", "e", "f")


def orphans(decision: Decision) -> tuple[Orphan, ...]:
    match decision:
        case Evict() | Reborn():
            return decision.orphans
        case StopTask():
            return (decision.orphan,)
        case _:
            return ()


class Membership(RuleBasedStateMachine):
    """Four nodes; what must hold after every step and in the end."""

    @initialize()
    def begin(self) -> None:
        self.site = Site(*(Agent(f"n{i}") for i in range(4)))
        self.lives = 4
        #: When the registry last accepted a report of each node, by its monotonic clock.
        self.heard_s: dict[str, float] = {}
        self.owned: dict[str, str] = {}
        self.frozen_s: float | None = None
        self.seen = 0
        self.old: list[AgentReport] = []

    def agent(self, which: int) -> Agent:
        return self.site.agents[which]

    def run(self, seconds: float) -> None:
        """Let time pass turn by turn, and look at every turn."""
        site, end_s = self.site, self.site.now_s + seconds
        while site.now_s < end_s:
            site.run(TICK_S)
            for node in site.members.views(site.now_s):
                agent = next(a for a in site.agents if a.node_id == node.node_id)
                ours = node.life is not None and node.life.incarnation == agent.incarnation
                if agent.alive and ours and site.now_s % 1.0 == 0.0:
                    self.heard_s[node.node_id] = site.now_s
            self.look()

    def look(self) -> None:
        log, self.seen = self.site.log[self.seen :], len(self.site.log)
        for at_s, decision in log:
            if isinstance(decision, Evict):
                assert at_s - self.heard_s.get(decision.node_id, float("-inf")) >= LEASE_S, "reported within the lease"
            for orphan in orphans(decision):
                assert self.owned.pop(orphan.camera_id, None) == orphan.owner.node_id, "returned twice, or not his"
            if isinstance(decision, Frozen):
                assert self.frozen_s is None
                self.frozen_s = at_s
            if isinstance(decision, Thawed):
                assert self.frozen_s is not None
                self.frozen_s = None

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 4.5, 15.0, 35.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(seconds)

    @rule(which=WHICH)
    def an_agent_goes_silent(self, which: int) -> None:
        self.agent(which).alive = False

    @rule(which=WHICH)
    def an_agent_goes_on(self, which: int) -> None:
        self.agent(which).alive = True

    @rule(which=WHICH, host=st.sampled_from(["", "elsewhere"]))
    def an_agent_is_started_anew(self, which: int, host: str) -> None:
        self.lives += 1
        before = self.agent(which)
        self.site.agents[which] = Agent(before.node_id, self.lives, host, self.site.now_s, before.skew_s)

    @rule(which=WHICH, camera=st.sampled_from(CAMERAS), served=st.booleans())
    def a_camera_is_granted(self, which: int, camera: str, served: bool) -> None:
        agent = self.agent(which)
        for other in self.site.agents:
            other.rows.pop(camera, None)
        self.site.grant(camera, agent)
        self.owned[camera] = agent.node_id
        if served:
            agent.serve(camera)

    @rule(which=WHICH, camera=st.sampled_from(CAMERAS), state=st.sampled_from([State.SOURCE_DOWN, State.CAPTURING]))
    def a_source_comes_or_goes(self, which: int, camera: str, state: State) -> None:
        self.agent(which).rows[camera] = row(camera, state)

    @rule(which=WHICH, drains=st.booleans(), own=st.booleans())
    def a_node_is_drained_or_not(self, which: int, drains: bool, own: bool) -> None:
        agent = self.agent(which)
        if own:
            agent.draining = drains
        elif any(node.node_id == agent.node_id for node in self.site.members.views(self.site.now_s)):
            order = self.site.members.drain if drains else self.site.members.undrain
            order(agent.node_id, self.site.now_s)

    @rule(which=WHICH, skew_s=st.sampled_from([0.0, -3600.0, 300.0]))
    def a_clock_is_set(self, which: int, skew_s: float) -> None:
        self.agent(which).skew_s = skew_s

    @rule(which=WHICH)
    def a_report_is_kept_for_later(self, which: int) -> None:
        agent = self.agent(which)
        if agent.seq:
            self.old.append(agent.report(self.site.now_s).model_copy(update={"seq": agent.seq - 1}))
            agent.seq -= 1

    @rule(which=st.integers(0, 50))
    def an_old_report_comes_late(self, which: int) -> None:
        if self.old:
            report = self.old[which % len(self.old)]
            before = self.site.members.view(report.report.node_id, self.site.now_s) if self.heard_s else None
            answer = self.site.send(report)
            if isinstance(answer, Accepted) and answer.fresh:
                self.heard_s[report.report.node_id] = self.site.now_s
            elif before is not None:
                after = self.site.members.view(report.report.node_id, self.site.now_s)
                assert replace(after, conflict="") == replace(before, conflict="")

    @rule(cut=st.booleans())
    def the_registry_is_cut_off_or_not(self, cut: bool) -> None:
        self.site.witness = replace(self.site.witness, cut_off=cut)

    @rule(which=WHICH, gone=st.sampled_from([True, False, None]))
    def redis_tells_of_keys(self, which: int, gone: bool | None) -> None:
        known = {**self.site.witness.gone, f"n{which}": gone}
        self.site.witness = replace(self.site.witness, gone=known)

    @rule(seconds=st.sampled_from([2.0, 3.0, 10.0, 100.0]))
    def the_registry_is_stopped(self, seconds: float) -> None:
        self.site.now_s += seconds
        self.run(TICK_S)

    @rule()
    def somebody_thaws(self) -> None:
        if self.site.members.thaw(self.site.now_s) is not None:
            assert self.frozen_s is not None
            self.frozen_s = None

    @rule()
    def the_registry_leads_anew(self) -> None:
        owners = {camera: self.site.members.tasks.owner(camera) for camera in self.owned}
        self.site.members.begin_term({c: owner for c, owner in owners.items() if owner}, self.site.now_s)
        self.frozen_s = None

    @rule()
    def an_unknown_node_is_asked_for(self) -> None:
        before = self.site.members.views(self.site.now_s)
        for ask in (self.site.members.drain, self.site.members.undrain):
            with pytest.raises(UnknownNode):
                ask("n77", self.site.now_s)
        assert self.site.members.views(self.site.now_s) == before

    @invariant()
    def cameras_are_where_they_were_granted(self) -> None:
        members = self.site.members
        for camera, node_id in self.owned.items():
            owner = members.tasks.owner(camera)
            assert owner is not None
            assert owner.node_id == node_id
        cameras = [camera for node in members.views(self.site.now_s) for camera in node.cameras]
        assert sorted(cameras) == sorted(self.owned)

    @invariant()
    def a_freeze_is_known_to_all(self) -> None:
        assert (self.site.members.frozen is not None) == (self.frozen_s is not None)

    def teardown(self) -> None:
        """Once the registry sees again, every freeze ends, and what has stopped loses its cameras."""
        self.site.witness = Witness()
        self.run(SETTLED_S)
        assert self.frozen_s is None
        silent = {agent.node_id for agent in self.site.agents if not agent.alive}
        assert not {camera: node for camera, node in self.owned.items() if node in silent}
        for node in self.site.members.views(self.site.now_s):
            assert (node.phase is NodePhase.DEAD) == (node.node_id in silent), node


Membership.TestCase.settings = hypothesis_settings(max_examples=40, stateful_step_count=25, deadline=None)
TestMembership = Membership.TestCase


@given(
    serves_s=st.integers(0, 100), second=st.booleans(), skew_s=st.sampled_from([0.0, 600.0]), twitch_s=st.floats(0, 0.4)
)
def test_one_dead_node_of_two_is_evicted_within_its_lease_and_a_turn(
    serves_s: int, second: bool, skew_s: float, twitch_s: float
) -> None:
    agents = [Agent("n0", skew_s=skew_s), Agent("n1")]
    site = Site(*agents)
    site.run(1.0 + serves_s)
    dead = agents[second]
    site.grant("a", dead)
    # Its last report lies between two turns.
    site.now_s += twitch_s
    site.hear(dead)
    site.kill(dead)
    died_s = site.now_s
    site.now_s -= twitch_s
    site.run(60.0, lambda decision: isinstance(decision, Evict))
    assert LEASE_S <= site.now_s - died_s <= LEASE_S + TICK_S
    assert site.members.tasks.owner("a") is None


Step = tuple[int, bool, State]


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.booleans(), st.sampled_from([State.CAPTURING, State.SOURCE_DOWN])), max_size=120
    ),
    skews_s=st.lists(st.sampled_from([0.0, 1.5, 900.0, -900.0]), min_size=3, max_size=3),
    copies=st.lists(st.tuples(st.integers(0, 119), st.integers(0, 119)), max_size=40),
)
def test_skewed_clocks_and_late_or_doubled_reports_change_no_decision(
    steps: list[Step], skews_s: list[float], copies: list[tuple[int, int]]
) -> None:
    def play(skews_s: list[float], copies: list[tuple[int, int]]) -> list[tuple[float, Decision]]:
        agents = [Agent(f"n{i}", skew_s=skew_s) for i, skew_s in enumerate(skews_s)]
        site = Site(*agents)
        for agent in agents:
            site.serve(agent, f"cam-{agent.node_id}")
        sent: list[AgentReport] = []
        for turn, (which, alive, state) in enumerate(steps):
            agents[which].alive = alive
            agents[which].rows[f"cam-n{which}"] = row(f"cam-n{which}", state)
            site.run(1.0)
            for agent in agents:
                if agent.alive:
                    sent.append(agent.report(site.now_s))
                    site.send(sent[-1])
            for due, which_copy in copies:
                if due == turn and sent:
                    site.send(sent[which_copy % len(sent)])
        site.run(DOWN_S)
        return site.log

    assert play(skews_s, copies) == play([0.0, 0.0, 0.0], [])


@given(phase=st.sampled_from(NodePhase), events=st.lists(st.sampled_from(Event), max_size=20))
def test_an_event_that_a_phase_does_not_know_changes_nothing(phase: NodePhase, events: list[Event]) -> None:
    member = Member("n1", heard_s=0.0, phase=phase)
    for event in events:
        before = replace(member)
        try:
            member.enter(event)
        except IllegalStep:
            assert event not in NEXT[before.phase]
            assert member == before
        else:
            assert member.phase is NEXT[before.phase][event]


@given(seqs=st.permutations(range(1, 9)))
def test_of_reports_in_any_order_the_newest_counts(seqs: list[int]) -> None:
    member = Member("n1", heard_s=0.0)
    agent = Agent("n1")
    reports = {seq: agent.report(float(seq)).model_copy(update={"labels": {"seq": str(seq)}}) for seq in range(1, 9)}
    newest = 0
    for seq in seqs:
        answer = member.take(reports[seq], WALL_NS + 8 * NS_PER_S, 1.0)
        assert isinstance(answer, Accepted)
        assert answer.fresh == (seq > newest)
        newest = max(newest, seq)
        assert member.labels == {"seq": str(newest)}
