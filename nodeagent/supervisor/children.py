"""The children as the supervisor holds them: carries out actions, takes in what happened, shows both on the board.

It decides nothing.  Every change of a phase goes through `_step`: table, board and one log line.
"""

from __future__ import annotations

import logging
import random
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import assert_never

from nodeagent.contract.errors import AgentError, Unavailable
from nodeagent.contract.phases import step
from nodeagent.contract.report import Kind, Phase
from nodeagent.contract.states import MEANING, State
from nodeagent.infra.board import Board, BoardCell
from nodeagent.infra.clock import Clock
from nodeagent.infra.worker import EXIT_FATAL
from nodeagent.supervisor.backoff import RESTART_MAX_S, failures_after, restart_delay_s
from nodeagent.supervisor.decide import Abort, Action, ChildView, Forget, Kill, MarkReady, Pressure, Spawn, Stop
from nodeagent.supervisor.forkserver import Running, Starter
from nodeagent.supervisor.kinds import KindRow
from nodeagent.supervisor.lifecycle import NEXT, Event
from nodeagent.supervisor.orders import OrderMaker
from nodeagent.supervisor.roster import Want

log = logging.getLogger(__name__)

#: Killed processes are gone within milliseconds unless a dead disk holds them, seconds.
END_WAIT_S = 5.0


@dataclass(slots=True)
class Child:
    """One child's record.  Times are monotonic seconds; see `decide.ChildView`."""

    want: Want
    cell: BoardCell
    phase: Phase = Phase.EXITED
    since_s: float = 0.0
    running: Running | None = None
    #: Deaths in a row, and starts after the first one.
    failures: int = 0
    restarts: int = -1
    retry_at_s: float = 0.0
    pressure: Pressure = Pressure.NONE
    pressed_s: float = 0.0
    stop_by_s: float = 0.0

    def view(self) -> ChildView:
        """What a decision may know."""
        # Before the beat: a worker that no longer needs its allowance beats first and takes it back then.
        allow_s = self.cell.allow_s
        return ChildView(
            want=self.want,
            phase=self.phase,
            since_s=self.since_s,
            is_ready=self.cell.is_ready,
            beat_s=self.cell.beat_monotonic_s,
            allow_s=allow_s,
            retry_at_s=self.retry_at_s,
            pressure=self.pressure,
            pressed_s=self.pressed_s,
            stop_by_s=self.stop_by_s,
        )


class Children:
    """All children of this agent.

    Attributes:
        killed: how many had to be killed because they did not stop or hung; a clean drain adds none.
    """

    def __init__(
        self, board: Board, starter: Starter, orders: OrderMaker, kinds: Mapping[Kind, KindRow], clock: Clock
    ) -> None:
        self._board = board
        self._starter = starter
        self._orders = orders
        self._kinds = kinds
        self._clock = clock
        self._children: dict[str, Child] = {}
        #: Children that the full board has no cell for; each is named once.
        self._homeless: set[str] = set()
        self.killed = 0

    def views(self) -> tuple[ChildView, ...]:
        """All children as they are now."""
        return tuple(child.view() for child in self._children.values())

    def running(self) -> list[Running]:
        """The processes that there are."""
        return [child.running for child in self._children.values() if child.running is not None]

    def apply(self, actions: Iterable[Action]) -> None:
        """Carry actions out."""
        for action in actions:
            match action:
                case Spawn(want):
                    self._spawn(want)
                case MarkReady(name):
                    self._step(self._children[name], Event.READY, "")
                case Stop(name, stop_by_s):
                    self._stop(self._children[name], stop_by_s)
                case Abort(name, silent_s):
                    self._abort(self._children[name], silent_s)
                case Kill(name, why):
                    self._kill(self._children[name], why)
                case Forget(name):
                    self._board.release(name)
                    del self._children[name]
                case _:
                    assert_never(action)

    def reap(self, pidfds: Iterable[int]) -> None:
        """Take in the ends of the processes with these pidfds."""
        ended = set(pidfds)
        for child in self._children.values():
            if child.running is not None and child.running.pidfd in ended:
                self._ended(child, child.running.reap())

    def kill_all(self, why: str) -> None:
        """End every process: their fork server is gone, and with it whoever could tell how they end."""
        for child in self._children.values():
            if child.running is not None:
                self._kill(child, why)

    def end(self) -> None:
        """Leave no process behind, however the loop ended; does nothing after a drain."""
        for running in self.running():
            running.send(signal.SIGKILL)
        until_s = self._clock.monotonic_s() + END_WAIT_S
        while (running_now := self.running()) and self._clock.monotonic_s() < until_s:
            self.reap(fd for fd in wait([running.pidfd for running in running_now], END_WAIT_S) if isinstance(fd, int))

    def _spawn(self, want: Want) -> None:
        child = self._children.get(want.name)
        if child is None:
            try:
                child = self._children[want.name] = Child(want, self._board.claim(want.name, want.kind))
            except AgentError as exc:
                if want.name not in self._homeless:
                    self._homeless.add(want.name)
                    log.error("%s", exc, extra={"event": "board_full", "child_name": want.name})  # noqa: TRY400
                return
        child.want = want
        child.restarts += 1
        child.pressure = Pressure.NONE
        child.cell.begin(self._clock.wall_ns())
        try:
            child.running = self._starter.start(
                self._orders.make(want, self._kinds[want.kind].worker, child.cell.index)
            )
        except Unavailable as exc:
            self._step(child, Event.SPAWN, "")
            self._fall_back(child, Event.ENDED, str(exc), worked_s=0.0)
            return
        self._step(child, Event.SPAWN, f"pid {child.running.pid}")

    def _stop(self, child: Child, stop_by_s: float) -> None:
        if child.running is not None:
            child.stop_by_s = stop_by_s
            child.running.send(signal.SIGTERM)
            self._press(child, Pressure.TERM)
        self._step(child, Event.STOP, "")

    def _abort(self, child: Child, silent_s: float) -> None:
        log.error(
            "%s hangs: no beat for %.1f s; it writes its traceback and is started again",
            child.want.name,
            silent_s,
            extra={"event": "child_hangs", "child_name": child.want.name},
        )
        child.cell.state(State.HANGING, f"no beat for {silent_s:.1f} s")
        if child.running is not None:
            # CONT: a stopped process would keep the ABRT pending.
            child.running.send(signal.SIGABRT, signal.SIGCONT)
        self._press(child, Pressure.ABORT)

    def _kill(self, child: Child, why: str) -> None:
        log.warning(
            "%s is killed: %s", child.want.name, why, extra={"event": "child_killed", "child_name": child.want.name}
        )
        if child.running is not None:
            child.running.send(signal.SIGKILL)
        self._press(child, Pressure.KILL)
        self.killed += 1

    def _press(self, child: Child, pressure: Pressure) -> None:
        child.pressure, child.pressed_s = pressure, self._clock.monotonic_s()

    def _ended(self, child: Child, code: int) -> None:
        worked_s = self._clock.monotonic_s() - child.since_s if child.phase is Phase.RUNNING else 0.0
        child.running = None
        event, how = (Event.GAVE_UP if code == EXIT_FATAL else Event.ENDED), how_ended(code)
        if child.phase is Phase.STOPPING:
            self._step(child, event, how)
        else:
            self._fall_back(child, event, how, worked_s)

    def _fall_back(self, child: Child, event: Event, how: str, worked_s: float) -> None:
        child.failures = failures_after(child.failures, worked_s)
        delay_s = RESTART_MAX_S if event is Event.GAVE_UP else restart_delay_s(child.failures, random.random())
        child.retry_at_s = self._clock.monotonic_s() + delay_s
        again = f"{how}; starts again in {delay_s:.1f} s"
        if not MEANING[child.cell.current_state].problem:
            # What the worker said of itself is no longer so; a problem that it named is still the best explanation.
            child.cell.state(State.STARTING, again)
        self._step(child, event, again)

    def _step(self, child: Child, event: Event, why: str) -> None:
        old, child.phase = child.phase, step(NEXT, child.phase, event)
        pid = child.running.pid if child.running else 0
        child.cell.phase(child.phase, pid, max(child.restarts, 0))
        if child.phase is old:
            return
        child.since_s = self._clock.monotonic_s()
        level = logging.WARNING if child.phase in (Phase.BACKOFF, Phase.FATAL) else logging.INFO
        log.log(
            level,
            "%s: %s -> %s%s",
            child.want.name,
            old.value,
            child.phase.value,
            f" ({why})" if why else "",
            extra={"event": "child_phase", "child_name": child.want.name, "old": old.value, "new": child.phase.value},
        )


def how_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, perhaps out of memory" if -code == signal.SIGKILL else name
