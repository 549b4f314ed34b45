"""Which nodes are there, which are lost, and what becomes of their cameras.  Pure: it decides, others carry it out.

`Members` hears reports and grants, is asked several times a second what to do (`tick`), and returns decisions.  An
orphan that it returned is nobody's; whoever carries a decision out keeps what he could not do yet.  Nothing here is
stored: a registry that is killed begins a new term from what Redis, the database and the reports say.

Promises: no node that reported within the lease is evicted.  No camera is returned twice without a grant between.
Clocks of other hosts, and doubled or late reports, change no decision.  The easy mistake: to tick only while leading.
The clock that silence is counted by stands still without ticks, so a registry that follows ticks too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from nodeagent.contract.errors import AgentError
from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import AgentReport, Holding, Owner, Resources
from nodeagent.contract.phases import IllegalStep
from registry.brake import USUAL, AwakeClock, Brake, Frozen, Limits, Sight, Thawed
from registry.member import REPORTING, Accepted, Conflict, Event, Life, Member, NodePhase
from registry.tasks import Orphan, StopTask, Tasks


class UnknownNode(AgentError):
    """No node of this name was ever heard of.  The request is wrong; never retry."""


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """A node is in another phase than when it was last told; `old` none: it is new."""

    node_id: NodeId
    old: NodePhase | None
    new: NodePhase


@dataclass(frozen=True, slots=True)
class Evict:
    """A node is dead: its cameras are nobody's, back into the task pool with them.  There may be none."""

    node_id: NodeId
    orphans: tuple[Orphan, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Reborn:
    """An agent was started anew: what its last life owned is nobody's, and best given to the new life at once.

    Attributes:
        incarnation: the new life.
        steady: whether that is wise; not of one that is started anew again and again.
    """

    node_id: NodeId
    incarnation: str
    orphans: tuple[Orphan, ...]
    steady: bool


Decision = PhaseChanged | Evict | Reborn | StopTask | Frozen | Thawed


@dataclass(frozen=True, slots=True)
class Witness:
    """What the registry sees besides reports.

    Attributes:
        gone: of nodes, whether they give no sign of life in another way either (`core.witnesses`).  Missing or none:
            not known.
        cut_off: whether the registry itself reaches Redis or its database no more; while so nothing moves.
    """

    gone: Mapping[NodeId, bool | None] = field(default_factory=dict)
    cut_off: bool = False


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node for pages, the API and placement.

    Attributes:
        phase: where it is; only a live node should get cameras, a joining one when there is no other.
        life: the life of its agent; none: it has not reported yet.
        silent_s: seconds since its newest report during which the registry ran; none: it has not reported yet.
        skew_ns: its clock less the registry's.
        ordered: an operator wants it drained; `leaving`: it says so itself.
        models: names of those that it has loaded; none: it did not tell.
        cameras: those that it owns, sorted; `holds` are those that it says it serves.
        conflict: why another agent under its id is refused; empty: there is none.
    """

    node_id: NodeId
    phase: NodePhase
    life: Life | None
    silent_s: float | None
    skew_ns: int
    labels: Mapping[str, str]
    capacity: Resources | None
    models: frozenset[str] | None
    costs: Mapping[CameraId, Resources]
    holds: tuple[Holding, ...]
    cameras: tuple[CameraId, ...]
    ordered: bool
    leaving: bool
    conflict: str


class Members:
    """All nodes and all tasks.  `now_s` is the registry's monotonic clock; nothing is decided before `begin_term`."""

    def __init__(self, now_s: float, limits: Limits = USUAL) -> None:
        self._limits = limits
        self._awake = AwakeClock(now_s)
        self._brake = Brake(limits)
        self._members: dict[NodeId, Member] = {}
        self._told: dict[NodeId, NodePhase] = {}
        self._leads = False
        self.tasks = Tasks()

    # What happens.

    def report(self, report: AgentReport, wall_ns: int, now_s: float) -> Accepted | Conflict:
        """Take an agent's report, or refuse it; `wall_ns` is the registry's wall clock, UTC ns."""
        at_s = self._awake.at(now_s)
        node_id = report.report.node_id
        if node_id not in self._members:
            self._members[node_id] = Member(node_id, heard_s=at_s)
        answer = self._members[node_id].take(report, wall_ns, at_s, self._limits.lease_s)
        if isinstance(answer, Accepted) and answer.fresh:
            self.tasks.reported(node_id, report.incarnation, report.report.rows, at_s)
        return answer

    def expect(self, node_id: NodeId, now_s: float) -> None:
        """A node is known from elsewhere: it has a lease, and the grace of a new term, to report."""
        if node_id not in self._members:
            self._members[node_id] = Member(node_id, heard_s=self._awake.at(now_s) + self._grace_s)

    def granted(self, camera_id: CameraId, owner: Owner, now_s: float) -> None:
        """A camera has an owner from now on.  Old news changes nothing."""
        self.expect(owner.node_id, now_s)
        self.tasks.granted(camera_id, owner, self._awake.at(now_s))

    def removed(self, camera_id: CameraId) -> None:
        """A camera is to be served by nobody any more."""
        self.tasks.removed(camera_id)

    def begin_term(self, owners: Mapping[CameraId, Owner], now_s: float) -> None:
        """Lead from now on: these are the owners, and every node has its lease, and a grace, to report."""
        self._leads, self._brake, self.tasks = True, Brake(self._limits), Tasks()
        # How long the registry took until it led is no pause.
        self._awake.look(now_s)
        heard_s = self._awake.at(now_s) + self._grace_s
        self._members = {node_id: member.renewed(heard_s) for node_id, member in self._members.items()}
        for camera_id, owner in owners.items():
            self.granted(camera_id, owner, now_s)

    def end_term(self) -> None:
        """Follow from now on: keep hearing and ticking, decide nothing."""
        self._leads = False

    def drain(self, node_id: NodeId, now_s: float) -> None:
        """An operator wants a node to hand its cameras over; a silent one does when it reports again.

        Raises:
            UnknownNode: there is none.
        """
        self._order(node_id, True, now_s)

    def undrain(self, node_id: NodeId, now_s: float) -> None:
        """Take that order back.  A node that leaves by its own word leaves all the same.

        Raises:
            UnknownNode: there is none.
        """
        self._order(node_id, False, now_s)

    def forget(self, node_id: NodeId) -> None:
        """A dead node will not come back.

        Raises:
            UnknownNode: there is none.
            IllegalStep: it is not dead; nothing was changed.
        """
        member = self._member(node_id)
        if member.phase is not NodePhase.DEAD:
            raise IllegalStep(f"forget while {member.phase.value}")
        del self._members[node_id]
        self._told.pop(node_id, None)

    def dismiss(self, but: Collection[NodeId], now_s: float) -> list[NodeId]:
        """Follow a leader that knows no other nodes than these: forget those that own nothing and have been silent for
        a lease.  Somebody forgot them there, and a term that began with them would find them dead again.
        """
        at_s = self._awake.at(now_s)
        gone = [
            member.node_id
            for member in self._members.values()
            if member.node_id not in but
            and member.silent_s(at_s) > self._limits.lease_s
            and not self.tasks.count(member.node_id)
        ]
        for node_id in gone:
            del self._members[node_id]
            self._told.pop(node_id, None)
        return gone

    def thaw(self, now_s: float) -> Thawed | None:
        """End a freeze by order; none: there is none.  What is silent now is evicted in the next tick."""
        return self._brake.thaw("by order", self._awake.at(now_s))

    # What to do.

    def tick(self, now_s: float, witness: Witness | None = None) -> list[Decision]:
        """What follows from all that happened; to be called several times a second, by a registry that follows too."""
        witness = witness or Witness()
        passed_s = self._awake.look(now_s)
        at_s = self._awake.at(now_s)
        for member in self._members.values():
            if witness.cut_off and member.phase is not NodePhase.DEAD:
                member.excuse(passed_s, at_s)
            if member.phase in REPORTING and at_s - member.seen_s >= self._limits.suspect_s:
                member.enter(Event.SILENT)
            member.settle(at_s)
        decisions = self._lead(witness, passed_s, now_s, at_s) if self._leads else []
        changes = self._changes()
        return [*changes, *decisions] if self._leads else []

    def _lead(self, witness: Witness, passed_s: float, now_s: float, at_s: float) -> list[Decision]:
        turned = self._brake.turn(self._sight(witness, passed_s, at_s), now_s, at_s)
        decisions: list[Decision] = [] if turned is None else [turned]
        if witness.cut_off:
            return decisions
        for node_id, orphans in self.tasks.take_reborn().items():
            life, steady = self._members[node_id].life, self._members[node_id].steady
            decisions.append(Reborn(node_id, "" if life is None else life.incarnation, orphans, steady))
        decisions += [evict for member in self._members.values() if (evict := self._evict(member, witness, at_s))]
        if self._brake.frozen is None:
            takers = {node_id for node_id, member in self._members.items() if member.phase is NodePhase.LIVE}
            decisions += self.tasks.take_stops(takers)
        return decisions

    def _evict(self, member: Member, witness: Witness, at_s: float) -> Evict | None:
        node_id, silent_s = member.node_id, member.silent_s(at_s)
        if member.phase is NodePhase.DEAD and self.tasks.count(node_id):
            return Evict(node_id, self.tasks.evict(node_id), "granted to a node that was dead already")
        if member.phase is not NodePhase.SUSPECT or silent_s <= self._limits.lease_s:
            return None
        reason = f"silent for {silent_s:.1f} s"
        if self._brake.holds(member.heard_s) and not member.leaving:
            if silent_s < self._limits.witness_s or not witness.gone.get(node_id):
                return None
            reason += ", and nobody else hears of it"
        member.enter(Event.LOST)
        return Evict(node_id, self.tasks.evict(node_id), reason)

    def _sight(self, witness: Witness, passed_s: float, at_s: float) -> Sight:
        """What the brake judges by.

        A node that said that it leaves is no sign of anything, nor is one that was only ever heard of and owns nothing:
        every new term would find such ones silent.
        """
        known = (m for m in self._members.values() if m.life is not None or self.tasks.count(m.node_id))
        staying = [member for member in known if not member.leaving]
        present = [member for member in staying if member.phase is not NodePhase.DEAD]
        silent = [member for member in present if member.phase is NodePhase.SUSPECT]
        waiting = [member.heard_s for member in silent if member.silent_s(at_s) >= self._limits.suspect_s]
        return Sight(
            passed_s=passed_s,
            cut_off=witness.cut_off,
            due=any(at_s - heard_s > self._limits.lease_s for heard_s in waiting),
            waiting=waiting,
            gone=[member.heard_s for member in staying if member.phase is NodePhase.DEAD],
            present=len(present),
            back_since_s=min((member.seen_s for member in present), default=at_s),
        )

    def _changes(self) -> list[Decision]:
        """Phases that are not what was told last; what came and went between two ticks is not worth a word."""
        changes: list[Decision] = []
        for node_id, member in self._members.items():
            old = self._told.get(node_id)
            if old is not member.phase:
                changes.append(PhaseChanged(node_id, old, member.phase))
                self._told[node_id] = member.phase
        return changes

    def _order(self, node_id: NodeId, drains: bool, now_s: float) -> None:
        member = self._member(node_id)
        member.ordered = drains
        member.settle(self._awake.at(now_s))

    def _member(self, node_id: NodeId) -> Member:
        try:
            return self._members[node_id]
        except KeyError:
            raise UnknownNode(f"node {node_id}: unknown") from None

    # What is there.

    @property
    def _grace_s(self) -> float:
        """What every node gets on top of its lease when a term begins: agents whose registry died have to find
        another.
        """
        return self._limits.lease_s

    @property
    def frozen(self) -> Frozen | None:
        """The freeze that holds evictions; none: they are not held."""
        return self._brake.frozen

    def view(self, node_id: NodeId, now_s: float) -> NodeView:
        """One node.

        Raises:
            UnknownNode: there is none.
        """
        return self._view(self._member(node_id), self._awake.at(now_s))

    def views(self, now_s: float) -> tuple[NodeView, ...]:
        """All nodes, by id."""
        at_s = self._awake.at(now_s)
        return tuple(self._view(self._members[node_id], at_s) for node_id in sorted(self._members))

    def _view(self, member: Member, at_s: float) -> NodeView:
        return NodeView(
            node_id=member.node_id,
            phase=member.phase,
            life=member.life,
            silent_s=None if member.life is None else max(0.0, at_s - member.seen_s),
            skew_ns=member.skew_ns,
            labels=member.labels,
            capacity=member.capacity,
            models=member.models,
            costs=member.costs,
            holds=member.holds,
            cameras=self.tasks.cameras(member.node_id),
            ordered=member.ordered,
            leaving=member.leaving,
            conflict=member.conflict if at_s - member.conflict_s < self._limits.lease_s else "",
        )
