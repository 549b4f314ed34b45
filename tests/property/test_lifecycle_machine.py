"""The supervisor's decisions, played against processes that do whatever they like."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nodeagent.contract.report import Kind, Phase
from nodeagent.infra.board import Board
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.worker import EXIT_FATAL, EXIT_OK
from nodeagent.supervisor.backoff import RESTART_MAX_S
from nodeagent.supervisor.children import Children
from nodeagent.supervisor.decide import View, decide
from nodeagent.supervisor.kinds import KINDS
from nodeagent.supervisor.lifecycle import ALIVE
from nodeagent.supervisor.orders import OrderMaker
from nodeagent.supervisor.roster import Want
from tests.support.fake_processes import FakeStarter, TurnedClock

STOP_S = 20.0
NAMES = ("a", "b", "c")


class Supervision(RuleBasedStateMachine):
    """Random wishes, random processes; what must hold after every step and in the end."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock, self.starter = TurnedClock(), FakeStarter()
        self.board = Board.create(Path(self.folder.name) / "board", "n1", 1, 1, cells=8, clock=self.clock)
        orders = OrderMaker(Settings(), Path(self.folder.name), "p")
        starter: Any = self.starter
        self.children = Children(self.board, starter, orders, KINDS, self.clock)
        self.wanted: dict[str, Want] = {}

    def teardown(self) -> None:
        self.starter.broken = False
        self.wanted = {}
        self.settle(STOP_S + 1)
        assert not self.starter.alive(), "told to stop and still there"
        assert self.children.views() == (), "stopped and not forgotten"
        assert self.board.report(self.clock.now_s, "", "").rows == ()
        self.folder.cleanup()

    def turn(self) -> None:
        by = dict.fromkeys(Kind, self.clock.now_s + STOP_S)
        self.children.apply(decide(View(self.wanted, self.children.views(), by), KINDS, self.clock.now_s))
        self.children.reap([p.pidfd for p in self.starter.processes if p.code is not None])

    def settle(self, seconds: float) -> None:
        until_s = self.clock.now_s + seconds
        while self.clock.now_s < until_s:
            self.turn()
            self.clock.now_s += 0.5
        for _ in range(3):
            self.turn()

    @rule(wanted=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 1)))
    def want(self, wanted: dict[str, int]) -> None:
        wants = [Want(Kind.CAPTURE, name, part) for name, part in wanted.items()]
        self.wanted = {want.name: want for want in wants}
        self.turn()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 15.0, 40.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.turn()

    @rule(which=st.integers(0, 5), allow_s=st.sampled_from([None, 60.0]))
    def one_beats_and_gets_ready(self, which: int, allow_s: float | None) -> None:
        alive = self.starter.alive()
        if alive:
            cell = self.board.cell(alive[which % len(alive)].order.cell)
            cell.beat(allow_s)
            cell.ready()
        self.turn()

    @rule(which=st.integers(0, 5), code=st.sampled_from([EXIT_OK, 1, EXIT_FATAL, -11]))
    def one_ends(self, which: int, code: int) -> None:
        alive = self.starter.alive()
        if alive:
            alive[which % len(alive)].code = code
        self.turn()

    @rule(broken=st.booleans())
    def the_fork_server_breaks(self, broken: bool) -> None:
        self.starter.broken = broken

    @rule()
    def a_wanted_child_comes_back(self) -> None:
        self.starter.broken = False
        for _ in range(int(RESTART_MAX_S + STOP_S) + 5):
            self.turn()
            for process in self.starter.alive():
                self.board.cell(process.order.cell).beat()
            self.clock.now_s += 1.0
        running = {process.order.name for process in self.starter.alive()}
        assert running == set(self.wanted)

    @invariant()
    def never_two_processes_of_one_child(self) -> None:
        names = [process.order.name for process in self.starter.alive()]
        assert len(set(names)) == len(names)

    @invariant()
    def board_and_processes_agree(self) -> None:
        pids = {process.order.name: process.pid for process in self.starter.alive()}
        for row in self.board.report(self.clock.now_s, "", "").rows:
            assert (row.phase in ALIVE) == (row.pid != 0)
            if row.name in pids:
                assert row.pid == pids[row.name]

    @invariant()
    def nobody_hangs_for_ever(self) -> None:
        limit_s = max(KINDS[Kind.CAPTURE].start_limit_s, 60.0) + 45.0
        for view in self.children.views():
            if (
                view.phase in (Phase.STARTING, Phase.RUNNING)
                and self.clock.now_s - (view.beat_s or view.since_s) > limit_s
            ):
                assert view.pressure, "silent for long and left alone"


Supervision.TestCase.settings = hypothesis_settings(max_examples=40, stateful_step_count=25, deadline=None)
TestSupervision = Supervision.TestCase
