"""What the supervisor should do now, from what it sees.  Pure; `children.apply` carries it out.

One turn may ask for one action per child; what follows from it is decided in the next turn, from what is seen then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from nodeagent.contract.report import Kind, Phase
from nodeagent.supervisor.kinds import KindRow
from nodeagent.supervisor.lifecycle import ALIVE
from nodeagent.supervisor.roster import Roster, Want

#: From SIGABRT, which makes a hanging child write its traceback, to SIGKILL, seconds.
ABORT_GRACE_S = 2.0
#: A killed child that is still there is killed again after so long, seconds: only to be seen in the log.
KILL_AGAIN_S = 10.0


class Pressure(IntEnum):
    """The strongest signal that a child was sent."""

    NONE = 0
    TERM = 1
    ABORT = 2
    KILL = 3


@dataclass(frozen=True, slots=True)
class ChildView:
    """One child as it is seen at the start of a turn.  Times are monotonic seconds.

    Attributes:
        want: what it was started for, or will be.
        phase: where it is; `since_s` when it got there.
        is_ready: whether it said so since its start.
        beat_s: its last beat since its start; `allow_s` how long it asked that the next one may take.
        retry_at_s: when a child that died may be started again.
        pressure: strongest signal sent since its start; `pressed_s` when.
        stop_by_s: when a stopping child is killed.
    """

    want: Want
    phase: Phase
    since_s: float
    is_ready: bool = False
    beat_s: float | None = None
    allow_s: float | None = None
    retry_at_s: float = 0.0
    pressure: Pressure = Pressure.NONE
    pressed_s: float = 0.0
    stop_by_s: float = 0.0


@dataclass(frozen=True, slots=True)
class View:
    """All that a decision depends on.

    Attributes:
        wanted: the children that should run now.
        children: those that there are.
        stop_by_s: when a child of a kind that is told to stop now is killed.
    """

    wanted: Roster
    children: tuple[ChildView, ...]
    stop_by_s: Mapping[Kind, float]


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a child, a new one or one that there was."""

    want: Want


@dataclass(frozen=True, slots=True)
class MarkReady:
    """It is able to work from now on."""

    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell it to drain and leave until `stop_by_s`."""

    name: str
    stop_by_s: float


@dataclass(frozen=True, slots=True)
class Abort:
    """It hangs: have it write a traceback and die."""

    name: str
    silent_s: float


@dataclass(frozen=True, slots=True)
class Kill:
    """End it now."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Forget:
    """It is gone and not wanted any more: free its cell."""

    name: str


Action = Spawn | MarkReady | Stop | Abort | Kill | Forget


def decide(view: View, kinds: Mapping[Kind, KindRow], now_s: float) -> list[Action]:
    """The actions of this turn, stops before starts, starts in the order of the roster."""
    known = {child.want.name for child in view.children}
    actions = [action for child in view.children if (action := _decide_one(child, view, kinds, now_s)) is not None]
    actions += [Spawn(want) for name, want in view.wanted.items() if name not in known]
    order = {name: i for i, name in enumerate(view.wanted)}
    spawns = sorted((a for a in actions if isinstance(a, Spawn)), key=lambda a: order[a.want.name])
    return [*(a for a in actions if not isinstance(a, Spawn)), *spawns]


def silence_limit_s(child: ChildView, row: KindRow) -> float:
    """How long the child may be silent: its own word if it gave one, never less than its kind's."""
    usual = row.hang_limit_s if child.is_ready else row.start_limit_s
    return max(usual, child.allow_s or 0.0)


def silent_s(child: ChildView, now_s: float) -> float:
    """How long the child has shown no life.  A child that waits for a peer beats, so not being ready is no hang."""
    return now_s - (child.since_s if child.beat_s is None else child.beat_s)


def _decide_one(child: ChildView, view: View, kinds: Mapping[Kind, KindRow], now_s: float) -> Action | None:
    want = view.wanted.get(child.want.name)
    match child.phase:
        case Phase.EXITED:
            return Spawn(want) if want else Forget(child.want.name)
        case Phase.BACKOFF | Phase.FATAL:
            if want != child.want:
                return Stop(child.want.name, now_s)
            return Spawn(want) if now_s >= child.retry_at_s else None
        case Phase.STOPPING:
            return _decide_stopping(child, view, now_s)
        case Phase.STARTING | Phase.RUNNING:
            if want != child.want:
                return Stop(child.want.name, view.stop_by_s[child.want.kind])
            return _decide_working(child, kinds[child.want.kind], now_s)


def _decide_stopping(child: ChildView, view: View, now_s: float) -> Action | None:
    # A second TERM moves the limit of all forward, so the earlier of the two counts.
    if now_s < min(child.stop_by_s, view.stop_by_s[child.want.kind]):
        return None
    return _kill(child, "did not stop in time", now_s)


def _decide_working(child: ChildView, row: KindRow, now_s: float) -> Action | None:
    if child.pressure >= Pressure.ABORT:
        return _kill(child, "hangs", now_s) if now_s - child.pressed_s >= ABORT_GRACE_S else None
    silent = silent_s(child, now_s)
    if silent > silence_limit_s(child, row):
        return Abort(child.want.name, silent)
    if child.phase is Phase.STARTING and child.is_ready:
        return MarkReady(child.want.name)
    return None


def _kill(child: ChildView, why: str, now_s: float) -> Action | None:
    if child.pressure is Pressure.KILL and now_s - child.pressed_s < KILL_AGAIN_S:
        return None
    return Kill(child.want.name, why)


def alive_kinds(children: Iterable[ChildView]) -> frozenset[Kind]:
    """Kinds of which there is a process."""
    return frozenset(child.want.kind for child in children if child.phase in ALIVE)
