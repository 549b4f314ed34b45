"""What the HTTP API asks of the core (`http.ports.Core`): it reads memory, writes orders, has the loop do the rest."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

from nodeagent.contract.camera import StreamSpec
from nodeagent.contract.clip import StreamName
from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import AgentReport, Owner, ReportAnswer, TaskPhase, TaskStatus
from nodeagent.contract.phases import IllegalStep
from nodeagent.contract.probe import ProbeResult
from nodeagent.infra.clock import Clock
from registry.core.asked import Asked
from registry.core.inbox import Arrived
from registry.core.leading import Leading, Office
from registry.core.loop import Loop
from registry.core.probing import Life, Probes
from registry.core.wishes import needs_of
from registry.draining import state_of
from registry.explain import Explanation
from registry.http.ports import Cluster, Contradicted, Draining, Freeze, NodeStanding, NotLeader, Placed, Readiness
from registry.member import REPORTING, Conflict, NodePhase
from registry.membership import NodeView
from registry.store.camera_record import CameraRow
from registry.store.errors import Stale, Unknown
from registry.store.nodes import DrainOrder, NodeRow, Nodes, Seen

log = logging.getLogger(__name__)

#: Seconds that somebody waits for the loop to do what he asks: more than one turn of a loop whose Redis answers.
ASK_S = 3.0
#: Times that an order is written anew when somebody else wrote one at the same moment, and its giver saw no version.
TRIES = 5


@dataclass(frozen=True, slots=True)
class Desk:
    """The core, as the HTTP API sees it; any thread."""

    loop: Loop
    office: Office
    notes: Nodes
    asked: Asked
    probes: Probes = field(default_factory=Probes)

    @property
    def registry_id(self) -> str:
        """Name of this registry."""
        return self.loop.identity.registry_id

    # Agents.

    def report(self, report: AgentReport) -> ReportAnswer:
        """Take an agent's report; see the port."""
        wall_ns, now_s = self._clock.wall_ns(), self._clock.monotonic_s()
        verdict = self.loop.inbox.put(Arrived(report, now_s, wall_ns))
        if isinstance(verdict, Conflict):
            raise Contradicted(verdict.detail, "incarnation")
        return ReportAnswer(
            registry_id=self.registry_id,
            now_ns=wall_ns,
            cameras_version=self._version_for(report),
            warnings=verdict.warnings if verdict is not None else (),
            captured=self.office.site.captured(report),
            probes=self.probes.swap(report, now_s),
        )

    def changed(self, camera_ids: Iterable[CameraId]) -> None:
        """These cameras were written; the clerk reads them at once and tells everyone."""
        self.office.clerk.poke()

    def owned(self, node_id: NodeId, incarnation: str) -> Mapping[CameraId, Owner]:
        """The cameras that this life of a node owns: who is told of a camera is told its credentials, too."""
        try:
            return self.office.state.owned_by(node_id, incarnation)
        except Unavailable:
            # Nobody can be given anything meanwhile: what was true is true.
            owners = self.office.site.owners().items()
            return {c: owner for c, owner in owners if (owner.node_id, owner.incarnation) == (node_id, incarnation)}

    def owner(self, camera_id: CameraId) -> Owner | None:
        """Who owns a camera."""
        return self.office.site.owner(camera_id)

    def configurations(self, camera_ids: Iterable[CameraId]) -> dict[CameraId, CameraRow]:
        """Those of these cameras that there are, credentials in clear, from memory: for when the database is away."""
        rows = (self.office.catalogue.get(camera_id) for camera_id in camera_ids)
        return {row.camera_id: row for row in rows if row is not None}

    def claimable(self) -> Collection[CameraId]:
        """Cameras that nodes may take by themselves."""
        return frozenset() if self.office.places else self.office.catalogue.wanted

    # Nodes.

    def node(self, node_id: NodeId) -> NodeStanding:
        """One node."""
        view = self._view(node_id)
        return self._standing(view, self._row(node_id), self._loads())

    def nodes(self, after: str, limit: int, phase: NodePhase | None) -> Sequence[NodeStanding]:
        """The next nodes by id."""
        views = [view for view in self._views() if view.node_id > after and phase in (None, view.phase)][:limit]
        rows = self._rows(after, views[-1].node_id) if views else {}
        loads = self._loads()
        return [self._standing(view, rows.get(view.node_id), loads) for view in views]

    def drain(self, node_id: NodeId, order: DrainOrder, version: int | None) -> NodeStanding:
        """Order a node to hand its cameras over."""
        view = self._view(node_id)
        if not self.office.places:
            raise Contradicted("nodes take cameras by themselves here, and would again: stop the agent instead")
        if not order.forced:
            self._check_room(view)
        row = self._ordered(node_id, version, lambda number: self.notes.order_drain(node_id, number, order))
        log.info("node %s: drain ordered by %s", node_id, order.by, extra={"event": "drain_ordered", "node": node_id})
        return self._standing(view, row, self._loads())

    def undrain(self, node_id: NodeId, by: str, version: int | None) -> NodeStanding:
        """Take that order back."""
        view = self._view(node_id)
        row = self._ordered(node_id, version, lambda number: self.notes.end_drain(node_id, number))
        log.info("node %s: drain ended by %s", node_id, by, extra={"event": "drain_ended", "node": node_id})
        return self._standing(view, row, self._loads())

    def forget(self, node_id: NodeId, by: str, version: int | None) -> None:
        """Forget a node that is gone for good."""
        view = self._view(node_id)
        row = self._row(node_id)
        if version is not None and version != (row.version if row is not None else 0):
            raise Stale(f"node {node_id}", version, row.version if row is not None else 0)
        if view.phase is not NodePhase.DEAD:
            raise Contradicted(f"node {node_id} is {view.phase.value}: only a dead one can be forgotten")

        def check(_leading: Leading) -> None:
            if self._view(node_id).phase is not NodePhase.DEAD:
                raise Contradicted(f"node {node_id} reports again")

        def deed(_leading: Leading) -> None:
            site = self.office.site
            with site.lock:
                try:
                    site.members.forget(node_id)
                except IllegalStep:
                    raise Contradicted(f"node {node_id} reports again") from None
                site.shown.pop(node_id, None)

        # By the loop, which knows of every report that has come: else the row of a node that is back, and an order to
        # drain in it, would go although the answer is no.
        self.loop.ask(check, ASK_S)
        # The row first: killed after that, the order is given again, and finds the node in memory only.  The other way
        # round the row would stay, and with an order to drain in it the node would be one of every later term.
        if row is not None:
            self.notes.forget(node_id, row.version)
        self.office.clerk.forget(node_id)
        self.office.clerk.poke()
        self.loop.ask(deed, ASK_S)
        log.info("node %s: forgotten by %s", node_id, by, extra={"event": "node_forgotten", "node": node_id})

    # Cameras.

    def assignments(self, after: str, limit: int, node_id: NodeId | None, phase: TaskPhase | None) -> Sequence[Placed]:
        """Where the next cameras are."""
        site = self.office.site
        with site.lock:
            statuses, reasons = dict(site.statuses), dict(site.reasons)
        ids = sorted(statuses)
        found: list[Placed] = []
        for camera_id in ids[bisect_right(ids, after) :]:
            if len(found) == limit:
                break
            if _matches(statuses[camera_id], node_id, phase):
                reason = reasons.get(camera_id, "")
                found.append(Placed(camera_id=camera_id, status=statuses[camera_id], reason=reason))
        return found

    def move(self, camera_id: CameraId, node_id: NodeId, by: str) -> Owner:
        """Give a camera to a node by hand."""
        found = self._explained(camera_id)
        view = self._view(node_id)
        stands = found.of(node_id)
        if stands is None or view.life is None:
            raise Contradicted(f"node {node_id} has not reported", "node_id")
        if stands.refusals:
            raise Contradicted(f"node {node_id}: {'; '.join(stands.refusals)}", "node_id")
        incarnation = view.life.incarnation

        def deed(leading: Leading) -> Owner | None:
            return leading.hands.give(camera_id, node_id, incarnation, f"moved by {by}")

        owner = self.loop.ask(deed, ASK_S)
        if owner is None:
            raise Contradicted(f"camera {camera_id}: no epoch is left", "camera_id")
        return owner

    def probe(
        self, camera_id: CameraId, streams: Mapping[StreamName, StreamSpec], labels: Mapping[str, str]
    ) -> tuple[NodeId, ProbeResult]:
        """Have a node look at streams; see the port."""
        node_id, incarnation = self._prober(camera_id, labels)
        return node_id, self.probes.ask((node_id, incarnation), streams)

    def explain(self, camera_id: CameraId) -> Explanation:
        """Why a camera is where it is."""
        return self._explained(camera_id)

    # All of it.

    def thaw(self, by: str) -> str:
        """End a freeze of evictions."""

        def deed(_leading: Leading) -> str:
            site = self.office.site
            with site.lock:
                frozen = site.members.frozen
                site.members.thaw(self._clock.monotonic_s())
            return frozen.reason if frozen is not None else ""

        reason = self.loop.ask(deed, ASK_S)
        log.warning("evictions go on by order of %s", by, extra={"event": "thawed", "by": by})
        return reason

    def cluster(self) -> Cluster:
        """All of it in a few numbers."""
        site = self.office.site
        views = self._views()
        with site.lock:
            waiting, known = len(site.waiting), len(site.statuses)
        held = site.held(self._clock.monotonic_s(), self._clock.wall_ns())
        return Cluster(
            leader=self.loop.leader,
            freeze=Freeze(reason=held.reason, since_ns=held.since_ns, until_ns=held.until_ns) if held else None,
            nodes=Counter(view.phase for view in views),
            cameras={TaskPhase.OWNED: known - waiting, TaskPhase.POOLED: waiting},
            cameras_version=self.office.catalogue.version,
        )

    def readiness(self) -> Readiness:
        """Whether it can serve."""
        return Readiness(state=self.loop.trouble, leader=self.loop.leader)

    # Their parts.

    @property
    def _clock(self) -> Clock:
        return self.office.clock

    def _version_for(self, report: AgentReport) -> int:
        """The version of what a node is told of: when one camera changes, the others' nodes have nothing to ask."""
        catalogue = self.office.catalogue
        if not self.office.places:
            # It keeps all cameras that it may claim.
            return catalogue.version
        serves = (hold.camera_id for hold in report.holds)
        # Also what it owns and cannot serve: a change may mend that.  Without the lock, which the loop may hold for
        # longer than a report is to wait: what one node owns is copied in one step.
        owns = self.office.site.members.tasks.cameras(report.report.node_id)
        return catalogue.version_of(chain(serves, owns))

    def _views(self) -> list[NodeView]:
        return self.office.site.views(self._clock.monotonic_s())

    def _view(self, node_id: NodeId) -> NodeView:
        view = self.office.site.view(node_id, self._clock.monotonic_s())
        if view is None:
            raise Unknown(f"node {node_id}")
        return view

    def _loads(self) -> Mapping[NodeId, float]:
        return self.asked.loads(self._views())

    def _standing(self, view: NodeView, row: NodeRow | None, loads: Mapping[NodeId, float]) -> NodeStanding:
        site = self.office.site
        with site.lock:
            shown = site.shown.get(view.node_id)
            trouble = site.trouble.get(view.node_id, "")
        order = row.drain if row is not None else None
        drain = None
        if order is not None or view.leaving or view.phase is NodePhase.DRAINING:
            serves = shown.holds if shown is not None and view.phase in REPORTING else {}
            left = len({*view.cameras, *serves})
            moved, gone = site.gone(view.node_id, self._clock.monotonic_s())
            unfinished = shown.report.unfinished if shown is not None else None
            drain = Draining(
                order=order,
                state=state_of(view.phase, left, gone, unfinished, reported=shown is not None),
                left=left,
                moved=moved,
                gone=gone,
                unfinished=unfinished,
                trouble=trouble,
            )
        return NodeStanding(
            view=view,
            version=row.version if row is not None else 0,
            load=loads.get(view.node_id, 0.0),
            report=shown.report.report if shown is not None else None,
            drain=drain,
        )

    def _prober(self, camera_id: CameraId, labels: Mapping[str, str]) -> Life:
        """Who looks at a camera: its owner, which reaches it, or while it has none the node with the fewest cameras."""
        owner = self.office.site.owner(camera_id)
        views = [view for view in self._views() if view.life is not None and view.phase in REPORTING]
        if owner is not None:
            # Nobody else instead of it: the camera's password is for its owner.
            fit = [view for view in views if view.node_id == owner.node_id]
            if not fit:
                raise Unavailable(f"node {owner.node_id} owns the camera and does not report: nobody else looks at it")
        else:
            needs = needs_of(labels)
            fit = [view for view in views if needs.items() <= view.labels.items()]
            if not fit:
                raise Contradicted("no live node has what the camera's labels ask for, so none can look at it")
        lives = [
            (view.node_id, view.life.incarnation)
            for view in sorted(fit, key=lambda view: (len(view.cameras), view.node_id))
            if view.life is not None
        ]
        now_s = self._clock.monotonic_s()
        here = next((life for life in lives if self.probes.hears(life, now_s)), None)
        if here is None:
            raise Unavailable(f"node {lives[0][0]} reports to another registry: ask that one")
        return here

    def _row(self, node_id: NodeId) -> NodeRow | None:
        with suppress(Unknown):
            return self.notes.get(node_id)
        return None

    def _rows(self, after: str, last: str) -> dict[NodeId, NodeRow]:
        """Notes on the nodes between two ids."""
        found: dict[NodeId, NodeRow] = {}
        at: str | None = after
        while at is not None and at < last:
            rows, at = self.notes.page(at)
            found |= {row.node_id: row for row in rows}
        return found

    def _ordered(self, node_id: NodeId, version: int | None, write: Callable[[int], NodeRow]) -> NodeRow:
        """Write an order to a node, which may have reported for the first time a moment ago."""
        for left in reversed(range(TRIES)):
            row = self._row(node_id) or self._noted(node_id)
            try:
                done = write(row.version if version is None else version)
            except Stale:
                if version is not None or not left:
                    raise
            else:
                self.office.clerk.poke()
                return done
        raise AssertionError("unreachable")

    def _noted(self, node_id: NodeId) -> NodeRow:
        with self.office.site.lock:
            shown = self.office.site.shown.get(node_id)
        host, incarnation = (shown.report.report.host, shown.report.incarnation) if shown is not None else ("", "")
        self.notes.see({node_id: Seen(host, incarnation, self._clock.wall_ns())})
        return self.notes.get(node_id)

    def _check_room(self, view: NodeView) -> None:
        placement = self.asked.without(view, self._views())
        if placement.is_complete:
            return
        stuck = [decision for decision in placement.decisions() if decision.node_id is None]
        raise Contradicted(
            f"the other nodes cannot take {len(stuck)} of {len(view.cameras)} cameras, such as "
            f"{stuck[0].camera_id}: {stuck[0].detail}",
            "forced",
        )

    def _explained(self, camera_id: CameraId) -> Explanation:
        if not self.loop.leads:
            raise NotLeader(self.loop.leader)
        owner = self.office.site.owner(camera_id)
        found = self.asked.explain(camera_id, owner.node_id if owner is not None else "", self._views())
        if found is None:
            raise Unknown(f"camera {camera_id}")
        return found


def _matches(status: TaskStatus, node_id: NodeId | None, phase: TaskPhase | None) -> bool:
    if phase is not None and status.phase is not phase:
        return False
    if node_id is None:
        return True
    return status.phase is TaskPhase.OWNED and status.owner is not None and status.owner.node_id == node_id
