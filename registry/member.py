"""One node as the registry knows it: its phase, and which life of its agent it is.  Pure.

Every way a node may change phase is a row of NEXT.  Times are seconds of the registry's `AwakeClock`; a report's own
clock is compared with the registry's for a warning and decides nothing.

Two agents with one id: the one that reports stays, another life is refused until it has been silent for a while.  How
long depends on who asks.  A later start on the same host is most likely the same agent started anew, since a second one
cannot lock the state folder: two missing reports are enough (`RESTART_S`), so an agent that was killed and started at
once is back after that and a report, within its lease.  Anybody else waits for the lease.  A life that said that it
leaves is followed at once.  So twins cost at most one change of lives, when the first misses two reports.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from nodeagent.contract.ids import NS_PER_S, CameraId, NodeId
from nodeagent.contract.ownership import LEASE_S, REPORT_S, SKEW_NS, AgentReport, Holding, Resources
from nodeagent.contract.phases import step

#: Silence of a life after which a later start on its host follows it, seconds: two reports are missing.
RESTART_S = 2 * REPORT_S
#: A node that came back from the dead, or was started anew again and again, gets no cameras for so long while others
#: can take them, seconds.
QUARANTINE_S = 30.0
#: Lives, and refused agents, of one node that are remembered; the oldest are forgotten first.
LIVES_MAX = 8


_Value = TypeVar("_Value")


class NodePhase(StrEnum):
    """Where a node is."""

    #: Reports, and came back only just: cameras go elsewhere if they can.
    JOINING = "joining"
    #: Reports and takes cameras.
    LIVE = "live"
    #: Missed reports; keeps its cameras, gets no more.
    SUSPECT = "suspect"
    #: Silent for a lease; its cameras were taken from it.
    DEAD = "dead"
    #: Reports, and hands its cameras over.
    DRAINING = "draining"


class Event(StrEnum):
    """What may happen to it."""

    #: It reports and may have cameras; in quarantine; and meant to leave.
    SERVES = "serves"
    JOINS = "joins"
    DRAINS = "drains"
    #: It missed reports.
    SILENT = "silent"
    #: It was evicted.
    LOST = "lost"


_REPORTS = {Event.SERVES: NodePhase.LIVE, Event.JOINS: NodePhase.JOINING, Event.DRAINS: NodePhase.DRAINING}
_SILENT = {Event.SILENT: NodePhase.SUSPECT}

NEXT: dict[NodePhase, dict[Event, NodePhase]] = {
    NodePhase.JOINING: _REPORTS | _SILENT,
    NodePhase.LIVE: _REPORTS | _SILENT,
    NodePhase.DRAINING: _REPORTS | _SILENT,
    # Only who was seen to be silent can be lost, and only once.
    NodePhase.SUSPECT: _REPORTS | {Event.LOST: NodePhase.DEAD},
    NodePhase.DEAD: _REPORTS,
}

#: Phases of a node that reports.
REPORTING = frozenset({NodePhase.JOINING, NodePhase.LIVE, NodePhase.DRAINING})


@dataclass(frozen=True, slots=True)
class Accepted:
    """A report that counts.

    Attributes:
        fresh: whether it told something new; an older or repeated one did not, and changed nothing.
        warnings: sentences for whoever sent it.
        log: sentences that nobody was told yet.
    """

    fresh: bool = True
    warnings: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """A report that is refused: another agent reports under this id.

    Attributes:
        incarnation: the life that stays.
        detail: a sentence for a person.
        log: the sentence when it is certain that both agents are alive, and nobody was told yet; else empty.  A restart
            is refused a time or two as well, which is not worth a line.
    """

    node_id: NodeId
    incarnation: str
    detail: str
    log: str = ""


@dataclass(frozen=True, slots=True)
class Life:
    """One life of an agent, by its reports; `since_s` is when it was first accepted."""

    incarnation: str
    host: str
    agent_pid: int
    version: str
    started_ns: int
    since_s: float

    @classmethod
    def of(cls, report: AgentReport, at_s: float) -> Life:
        """The life that reports."""
        node = report.report
        return cls(report.incarnation, node.host, node.agent_pid, node.version, node.started_ns, at_s)

    def follows(self, other: Life) -> bool:
        """Whether this looks like the same agent, started anew."""
        return self.host == other.host and self.started_ns > other.started_ns


@dataclass(slots=True)
class _Rival:
    """Another agent under this id that was refused."""

    first_s: float
    told: bool = False


@dataclass(slots=True)
class Member:
    """One node.

    Attributes:
        heard_s: since when its silence counts: its newest report, or later when the registry is to blame.
        seen_s: its newest report; none yet: minus infinity.
        steady: whether its life is not one of several in a short time.
        ordered: an operator wants it drained; `leaving`: it says so itself.
        conflict: why another agent, alive beside this one, was refused; `conflict_s` when that was last.
        skew_ns: its clock less the registry's, UTC ns, at the newest report; a slow way makes it smaller.
    """

    node_id: NodeId
    heard_s: float
    seen_s: float = float("-inf")
    phase: NodePhase = NodePhase.SUSPECT
    life: Life | None = None
    steady: bool = True
    ordered: bool = False
    leaving: bool = False
    conflict: str = ""
    conflict_s: float = float("-inf")
    skew_ns: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    capacity: Resources | None = None
    costs: dict[CameraId, Resources] = field(default_factory=dict)
    holds: tuple[Holding, ...] = ()
    models: frozenset[str] | None = None
    _skew_told: bool = False
    _quarantine_until_s: float = float("-inf")
    _seqs: dict[str, int] = field(default_factory=dict)
    _rivals: dict[str, _Rival] = field(default_factory=dict)

    def take(self, report: AgentReport, wall_ns: int, at_s: float, lease_s: float = LEASE_S) -> Accepted | Conflict:
        """Take a report, or refuse it, or see that it is an old one.

        Args:
            report: it; `node_id` is this one's.
            wall_ns: the registry's wall clock, UTC ns.
            at_s: when it arrived.
            lease_s: silence after which any other life is followed.
        """
        if report.seq <= self._seqs.get(report.incarnation, 0):
            return Accepted(fresh=False)
        life = Life.of(report, at_s)
        if self.life is None:
            self.life = life
        elif life.incarnation != self.life.incarnation:
            grace_s = self._grace_s(self.life, life, report.draining, lease_s)
            if at_s - self.seen_s < grace_s:
                return self._refuse(self.life, life, grace_s, at_s)
            self._follow(self.life, life, at_s)
        elif self.phase is NodePhase.DEAD:
            self._quarantine_until_s = at_s + QUARANTINE_S
        log = self._learn(report, wall_ns - report.sent_ns, at_s)
        _remember(self._seqs, report.incarnation, report.seq)
        self.heard_s = self.seen_s = at_s
        self.enter(self._word(at_s))
        return Accepted(warnings=self._warnings(), log=log)

    def enter(self, event: Event) -> None:
        """Change phase.

        Raises:
            IllegalStep: it cannot; nothing was changed.
        """
        self.phase = step(NEXT, self.phase, event)

    def settle(self, at_s: float) -> None:
        """Let an order, or the end of the quarantine, take effect; a silent node's when it reports again."""
        if self.phase in REPORTING:
            self.enter(self._word(at_s))

    def silent_s(self, at_s: float) -> float:
        """How long it has been silent without the registry's fault."""
        return max(0.0, at_s - self.heard_s)

    def excuse(self, by_s: float, at_s: float) -> None:
        """Do not count so many seconds of its silence."""
        self.heard_s = max(self.heard_s, min(at_s, self.heard_s + by_s))

    def renewed(self, heard_s: float) -> Member:
        """The node in a new term: its silence counts from `heard_s`, and an earlier verdict is no more."""
        if self.phase is NodePhase.DEAD:
            return Member(self.node_id, heard_s, ordered=self.ordered, _seqs=self._seqs)
        self.heard_s = heard_s
        return self

    def _word(self, at_s: float) -> Event:
        if self.ordered or self.leaving:
            return Event.DRAINS
        return Event.JOINS if at_s < self._quarantine_until_s else Event.SERVES

    def _grace_s(self, old: Life, new: Life, new_leaves: bool, lease_s: float) -> float:
        """How long the old life must have been silent before the new one is followed."""
        if self.leaving and not new_leaves:
            return 0.0
        return RESTART_S if new.follows(old) else lease_s

    def _follow(self, old: Life, new: Life, at_s: float) -> None:
        lasted_s = at_s - old.since_s
        if new.follows(old):
            # A registry that has only just begun knows every life for a short time; the host knows better.
            lasted_s = max(lasted_s, (new.started_ns - old.started_ns) / NS_PER_S)
        self.steady = lasted_s >= QUARANTINE_S
        if self.phase is NodePhase.DEAD or not self.steady:
            self._quarantine_until_s = at_s + QUARANTINE_S
        self.life = new

    def _refuse(self, old: Life, new: Life, grace_s: float, at_s: float) -> Conflict:
        rival = self._rivals.get(new.incarnation) or _Rival(at_s)
        _remember(self._rivals, new.incarnation, rival)
        detail = (
            f"node {self.node_id}: an agent on {old.host} (pid {old.agent_pid}, life {old.incarnation}) reports under "
            f"this id, so one on {new.host} (pid {new.agent_pid}, life {new.incarnation}) is refused until the first "
            f"has been silent for {grace_s:g} s: if both are meant to run, give one of them another id"
        )
        log = ""
        if self.seen_s > rival.first_s:
            # The old life reported after the new one did: it is no restart, both are alive.
            self.conflict, self.conflict_s = detail, at_s
            log, rival.told = "" if rival.told else detail, True
        return Conflict(self.node_id, old.incarnation, detail, log)

    def _learn(self, report: AgentReport, behind_ns: int, at_s: float) -> tuple[str, ...]:
        """Take what it says of itself; sentences for the log."""
        # What a network that is healed, or a registry that just starts, takes late looks like a clock that is behind:
        # the next report will tell.
        was_kept = behind_ns > 0 and (not self._seqs or at_s - self.seen_s > 2 * REPORT_S)
        self.skew_ns = self.skew_ns if was_kept else -behind_ns
        told, off_ns = self._skew_told, abs(self.skew_ns)
        # Between the two it stays as it was: a clock on the edge is told of once.
        self._skew_told = off_ns > SKEW_NS or (told and off_ns > SKEW_NS // 2)
        self.labels, self.capacity = report.labels, report.capacity
        self.models = None if report.models is None else frozenset(report.models)
        self.costs, self.holds, self.leaving = report.costs, report.holds, report.draining
        return () if told else self._warnings()

    def _warnings(self) -> tuple[str, ...]:
        if abs(self.skew_ns) <= SKEW_NS:
            return ()
        where = "ahead of" if self.skew_ns > 0 else "behind"
        off_s = abs(self.skew_ns) / NS_PER_S
        return (f"the clock of node {self.node_id} is {off_s:.1f} s {where} the registry's: check its time service",)


def _remember(known: dict[str, _Value], key: str, value: _Value) -> None:
    known.pop(key, None)
    known[key] = value
    while len(known) > LIVES_MAX:
        del known[next(iter(known))]
