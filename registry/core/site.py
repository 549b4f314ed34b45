"""What this registry knows of its site: nodes, tasks, live state, costs, in memory.

The loop writes here and the HTTP API reads, both with `lock` held and for milliseconds only: no input or output is made
under it.  Nothing here is stored: a registry that was killed learns it anew from reports, Redis and the database.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from nodeagent.contract.ids import NS_PER_S, CameraId, NodeId
from nodeagent.contract.ownership import LEASE_S, AgentReport, Holding, Owner, Resources, TaskPhase, TaskStatus
from nodeagent.contract.report import ChildRow, Kind, Phase
from registry.brake import USUAL, Limits
from registry.core.exchange import Held
from registry.draining import Gone, sort_gone
from registry.member import Accepted, Conflict, NodePhase
from registry.membership import Members, NodeView, UnknownNode
from registry.store.epochs import Epochs
from registry.tasks import CAPTURES

#: No version of ours comes near this one, and what a report says beyond is none: a camera whose version an older
#: database lost gets one above what reports say, and above the highest that a column holds there is none.
VERSION_MOST = 2**62
_CAPTURE = f"{Kind.CAPTURE.value}:"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a node's newest report shows.

    Attributes:
        holds: cameras that it says it serves.
        captures: those of which its capture process has a sample.
    """

    report: AgentReport
    holds: Mapping[CameraId, Holding]
    captures: frozenset[CameraId]

    @classmethod
    def of(cls, report: AgentReport) -> Shown:
        """What a report shows."""
        holds = {hold.camera_id: hold for hold in report.holds}
        captures = frozenset(
            row.name.removeprefix(_CAPTURE)
            for row in report.report.rows
            if row.kind is Kind.CAPTURE and row.phase is Phase.RUNNING and row.state in CAPTURES and _has_sample(row)
        )
        return cls(report, holds, captures)

    def owner(self, hold: Holding) -> Owner:
        """The owner that a hold speaks of."""
        return Owner(node_id=self.report.report.node_id, incarnation=self.report.incarnation, epoch=hold.epoch)


def _has_sample(row: ChildRow) -> bool:
    """Whether this process got a sample: a source that is open may be ten seconds before its first key frame."""
    return row.counters.get("last_sample_ns", 0) > row.started_ns


@dataclass(frozen=True, slots=True)
class Herald:
    """What the leader tells the other registries of itself once a second.

    Attributes:
        registry_id: who leads.
        phases: of every node.
        held: none: it does not hold evictions.
        heard_s: monotonic time at which it came.
    """

    registry_id: str
    phases: Mapping[NodeId, NodePhase] = field(default_factory=dict)
    held: Held | None = None
    heard_s: float = float("-inf")


class Site:
    """Nodes, tasks and live state."""

    def __init__(self, epochs: Epochs, now_s: float, limits: Limits = USUAL) -> None:
        self.lock = threading.RLock()
        self.limits = limits
        self.members = Members(now_s, limits)
        self.epochs = epochs
        #: Live state as it was read last, with what this registry did since.
        self.statuses: dict[CameraId, TaskStatus] = {}
        #: Cameras in it that nobody owns.
        self.waiting: set[CameraId] = set()
        #: What each node's newest report shows.
        self.shown: dict[NodeId, Shown] = {}
        #: What each camera was measured to need where it was served last.
        self.costs: dict[CameraId, Resources] = {}
        #: Why each camera was placed where it is, or waits.
        self.reasons: dict[CameraId, str] = {}
        #: Why each camera that waits came to be without an owner.
        self.causes: dict[CameraId, str] = {}
        #: Cameras that others took from nodes that drain, since they began, and when: monotonic seconds.
        self.moved: dict[NodeId, dict[CameraId, float]] = {}
        #: Why a drain does not go on.
        self.trouble: dict[NodeId, str] = {}
        self.herald: Herald | None = None
        #: Nodes that members were told to drain.
        self._ordered: frozenset[NodeId] = frozenset()

    # What happens; the loop calls these.

    def hear(self, report: AgentReport, wall_ns: int, now_s: float) -> Accepted | Conflict:
        """Take a report, whoever it was sent to."""
        with self.lock:
            answer = self.members.report(report, wall_ns, now_s)
            if isinstance(answer, Accepted) and answer.fresh:
                shown = self.shown[report.report.node_id] = Shown.of(report)
                # Of what was last given to it.  Of others' cameras a node that lies could have an epoch that nobody has
                # end the owner's row in the database, or say a cost with which no node can take them.
                own = self._own(shown)
                self.epochs.learn({camera_id: hold.epoch for camera_id, hold in own.items()})
                self.costs.update({camera_id: cost for camera_id, cost in report.costs.items() if camera_id in own})
            return answer

    def read(self, statuses: dict[CameraId, TaskStatus], now_s: float) -> None:
        """Take what the live state says, and let members know of owners that others made or that gave back."""
        with self.lock:
            before, self.statuses = self.statuses, statuses
            self.waiting = {camera_id for camera_id, status in statuses.items() if status.phase is TaskPhase.POOLED}
            self.epochs.learn(
                {
                    camera_id: status.owner.epoch
                    for camera_id, status in statuses.items()
                    if status.owner is not None and before.get(camera_id) != status
                }
            )
            for camera_id, status in statuses.items():
                if status.owner is None:
                    continue
                if status.phase is TaskPhase.OWNED:
                    self._owned(camera_id, status.owner, now_s)
                elif self.members.tasks.owner(camera_id) == status.owner:
                    self.members.removed(camera_id)

    def granted(self, camera_id: CameraId, owner: Owner, reason: str, wall_ms: int, now_s: float) -> None:
        """Take in that this registry gave a camera to a node."""
        with self.lock:
            self.epochs.learn({camera_id: owner.epoch})
            self.statuses[camera_id] = TaskStatus(phase=TaskPhase.OWNED, owner=owner, since_ms=wall_ms)
            self.reasons[camera_id] = reason
            self.causes.pop(camera_id, None)
            self.waiting.discard(camera_id)
            self._owned(camera_id, owner, now_s)

    def pooled(self, camera_id: CameraId, owner: Owner | None, reason: str, wall_ms: int) -> None:
        """Take in that this registry put a camera into the pool."""
        with self.lock:
            self.statuses[camera_id] = TaskStatus(phase=TaskPhase.POOLED, owner=owner, since_ms=wall_ms)
            self.reasons[camera_id] = self.causes[camera_id] = reason
            self.waiting.add(camera_id)

    def forgotten(self, camera_id: CameraId) -> None:
        """Nobody is to serve a camera any more."""
        with self.lock:
            self.statuses.pop(camera_id, None)
            self.waiting.discard(camera_id)
            self.reasons.pop(camera_id, None)
            self.causes.pop(camera_id, None)
            self.costs.pop(camera_id, None)
            self.members.removed(camera_id)

    def begin_term(self, drains: Collection[NodeId], now_s: float) -> None:
        """Judge nodes from now on, by the live state as it was read; `drains`: nodes that are ordered to drain."""
        with self.lock:
            self.herald = None
            self.members.begin_term(self.owners(), now_s)
            self.order(drains, now_s)

    def end_term(self) -> None:
        """Follow from now on."""
        with self.lock:
            self.members.end_term()

    def heralded(self, herald: Herald) -> None:
        """Another registry said that it leads, and how nodes stand."""
        with self.lock:
            before = self.herald.phases if self.herald is not None else {}
            self.herald = herald
            for node_id in self.members.dismiss(herald.phases.keys(), herald.heard_s):
                self.shown.pop(node_id, None)
            for node_id, phase in herald.phases.items():
                if phase is NodePhase.DRAINING and before.get(node_id) is not phase:
                    self.drain_begins(node_id)

    def order(self, drains: Collection[NodeId], now_s: float) -> None:
        """Let orders to drain, and their end, take effect."""
        wanted = frozenset(drains)
        if wanted == self._ordered:
            return
        with self.lock:
            for node_id in sorted(wanted - self._ordered):
                self.members.expect(node_id, now_s)
                self.members.drain(node_id, now_s)
            for node_id in sorted(self._ordered - wanted):
                # A node that was forgotten has no order either.
                with suppress(UnknownNode):
                    self.members.undrain(node_id, now_s)
            self._ordered = wanted

    def drain_begins(self, node_id: NodeId) -> None:
        """A node drains from now on: what became of an earlier drain counts no more."""
        with self.lock:
            self.moved[node_id] = {}
            self.trouble.pop(node_id, None)

    def gone(self, node_id: NodeId, now_s: float) -> tuple[int, Gone]:
        """How many cameras left a node since it drains, and what became of them."""
        with self.lock:
            left_s = self.moved.get(node_id, {})
            owners = {camera_id: self.owner(camera_id) for camera_id in left_s}
            # Of one that is not known any more there is nothing to capture.
            wanted = {c: at_s for c, at_s in left_s.items() if c in self.statuses}
            captured = frozenset(c for c, owner in owners.items() if owner is not None and self.is_captured(c, owner))
            return len(left_s), sort_gone(wanted, captured, now_s)

    def _own(self, shown: Shown) -> dict[CameraId, Holding]:
        """What a node serves of what was last given to it."""
        node_id, statuses, own = shown.report.report.node_id, self.statuses, {}
        for camera_id, hold in shown.holds.items():
            status = statuses.get(camera_id)
            if status is not None and status.owner is not None and status.owner.node_id == node_id:
                own[camera_id] = hold
        return own

    def _owned(self, camera_id: CameraId, owner: Owner, now_s: float) -> None:
        before = self.members.tasks.owner(camera_id)
        if before is not None and owner.epoch <= before.epoch:
            return
        if before is not None and before.node_id != owner.node_id and before.node_id in self.moved:
            self.moved[before.node_id][camera_id] = now_s
        self.moved.get(owner.node_id, {}).pop(camera_id, None)
        self.members.granted(camera_id, owner, now_s)

    # What is there.

    def owner(self, camera_id: CameraId) -> Owner | None:
        """Who owns a camera as far as this registry knows."""
        with self.lock:
            status = self.statuses.get(camera_id)
            return status.owner if status is not None and status.phase is TaskPhase.OWNED else None

    def owners(self) -> dict[CameraId, Owner]:
        """All owners, as far as this registry knows."""
        with self.lock:
            return {
                camera_id: status.owner
                for camera_id, status in self.statuses.items()
                if status.phase is TaskPhase.OWNED and status.owner is not None
            }

    def served(self) -> dict[CameraId, int]:
        """The version of its configuration with which each camera is served, by the node that it was last given to."""
        found: dict[CameraId, int] = {}
        with self.lock:
            for shown in self.shown.values():
                for camera_id, hold in self._own(shown).items():
                    if hold.version < VERSION_MOST:
                        found[camera_id] = hold.version
        return found

    def heard_within(self, within_s: float, now_s: float) -> list[NodeId]:
        """Nodes that reported lately."""
        with self.lock:
            views = self.members.views(now_s)
            return [view.node_id for view in views if view.silent_s is not None and view.silent_s < within_s]

    def is_captured(self, camera_id: CameraId, owner: Owner) -> bool:
        """Whether pictures of a camera arrive where this owner serves it."""
        shown = self.shown.get(owner.node_id)
        if shown is None or shown.report.incarnation != owner.incarnation:
            return False
        hold = shown.holds.get(camera_id)
        return hold is not None and hold.epoch >= owner.epoch and camera_id in shown.captures

    def captured(self, report: AgentReport) -> dict[CameraId, Owner]:
        """Of the cameras that a node serves still, those that another one owns and captures by now, and who.

        Without the lock, which the loop may hold for longer than a report is to wait: one camera is read in one step.
        """
        life, found = (report.report.node_id, report.incarnation), {}
        for hold in report.holds:
            status = self.statuses.get(hold.camera_id)
            owner = status.owner if status is not None and status.phase is TaskPhase.OWNED else None
            if owner is None or (owner.node_id, owner.incarnation) == life:
                continue
            if self.is_captured(hold.camera_id, owner):
                found[hold.camera_id] = owner
        return found

    def views(self, now_s: float) -> list[NodeView]:
        """All nodes by id, with the phase that the leader gives them."""
        with self.lock:
            return [self._as_led(view, now_s) for view in self.members.views(now_s) if self._is_there(view, now_s)]

    def view(self, node_id: NodeId, now_s: float) -> NodeView | None:
        """One node; none: there is none."""
        with self.lock:
            try:
                view = self.members.view(node_id, now_s)
            except UnknownNode:
                return None
            return self._as_led(view, now_s) if self._is_there(view, now_s) else None

    def held(self, now_s: float, now_ns: int) -> Held | None:
        """Whether evictions are held, by this registry or by the one that leads."""
        with self.lock:
            herald, frozen = self.leader(now_s), self.members.frozen
        if herald is not None or frozen is None:
            return herald.held if herald is not None else None
        since_ns = now_ns - int((now_s - frozen.since_s) * NS_PER_S)
        return Held(reason=frozen.reason, since_ns=since_ns, until_ns=now_ns + int((frozen.until_s - now_s) * NS_PER_S))

    def phases(self, now_s: float) -> dict[NodeId, NodePhase]:
        """The phase of every node, by this registry's own judgement."""
        with self.lock:
            return {view.node_id: view.phase for view in self.members.views(now_s)}

    def leader(self, now_s: float) -> Herald | None:
        """What another registry that leads told last; none: none was heard of lately."""
        herald = self.herald
        return herald if herald is not None and now_s - herald.heard_s < LEASE_S else None

    def _as_led(self, view: NodeView, now_s: float) -> NodeView:
        herald = self.leader(now_s)
        phase = herald.phases.get(view.node_id) if herald is not None else None
        return replace(view, phase=phase) if phase is not None else view

    def _is_there(self, view: NodeView, now_s: float) -> bool:
        """Whether the leader knows the node too, or cannot yet."""
        herald = self.leader(now_s)
        return herald is None or view.node_id in herald.phases or (view.silent_s or 0.0) < LEASE_S
