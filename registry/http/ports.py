"""What the HTTP API asks of the registry's core, and the words that cross between them.

Promises of every core:
- All calls may come from any thread.  `report` and `changed` come from the event loop: they return within a
  millisecond, and wait neither for input or output nor for a lock that somebody holds meanwhile.
- Every call may be repeated after Unavailable: doing it twice does no harm.
- No answer but `configurations` and `report`, which holds the node's orders to probe, and no error holds a secret.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nodeagent.contract.camera import StreamSpec
from nodeagent.contract.clip import StreamName
from nodeagent.contract.errors import AgentError, Unavailable
from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import AgentReport, Owner, ReportAnswer, TaskPhase, TaskStatus, Unfinished
from nodeagent.contract.probe import ProbeResult
from nodeagent.contract.report import NodeReport
from registry.draining import DrainState, Gone
from registry.explain import Explanation
from registry.member import NodePhase
from registry.membership import NodeView
from registry.store.camera_record import CameraRow
from registry.store.nodes import DrainOrder


class Contradicted(AgentError):
    """What is asked contradicts what is there: another agent has this id, no node has room.  Look, then ask anew.

    Attributes:
        detail: a sentence for a person.
        field: of the request, the one that cannot be; empty: all of it.
    """

    def __init__(self, detail: str, field: str = "") -> None:
        super().__init__(detail)
        self.detail, self.field = detail, field


class Unanswered(AgentError):
    """A node does not say in time what it was asked; it may have been lost.  Ask again, or look at the node."""


class NotLeader(Unavailable):
    """Only the leading registry can do that.  Ask it, or the next one.

    Attributes:
        leader: id of the registry that leads; empty: nobody knows.
    """

    def __init__(self, leader: str) -> None:
        super().__init__(f"only the leader can do that, which is {leader}" if leader else "no registry leads now")
        self.leader = leader


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """How far a node is with handing its cameras over.

    Attributes:
        order: of a person; none: it leaves by its own word.
        left: cameras that are still its own, or that it serves until another node captures them.
        moved: cameras that another node took since it began, as far as this registry saw.
        gone: what became of those.
        unfinished: what the node has still to do with what it recorded; none: it serves cameras, or does not tell.
        trouble: why it does not go on, one sentence; empty: it does.
    """

    order: DrainOrder | None
    state: DrainState
    left: int
    moved: int
    gone: Gone
    unfinished: Unfinished | None
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStanding:
    """One node.

    Attributes:
        version: of the last order to it (`store.nodes.NodeRow`); 0: it was never noted.
        load: how full it is, by the scarcest of its resources; 1 is full.
        report: the newest one; none: it has not reported to this registry.
        drain: none: it does not hand its cameras over.
    """

    view: NodeView
    version: int
    load: float
    report: NodeReport | None
    drain: Draining | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where one camera is now.

    Attributes:
        reason: why it was placed there, or waits; empty: not known.
    """

    camera_id: CameraId
    status: TaskStatus
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """Evictions are held; times are wall clock, UTC ns."""

    reason: str
    since_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """All of it in a few numbers.

    Attributes:
        leader: id of the registry that leads; empty: not known.
        nodes: how many are in each phase; phases without any may be left out.
        cameras: how many are in each phase; likewise.
    """

    leader: str
    freeze: Freeze | None
    nodes: Mapping[NodePhase, int]
    cameras: Mapping[TaskPhase, int]
    cameras_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether the core can serve.

    Attributes:
        state: why the live state (Redis) cannot be used, one sentence; empty: it can.
        leader: id of the registry that leads; empty: not known.
    """

    state: str
    leader: str


class Core(Protocol):
    """The registry's core.  Every call but `report` and `changed` may raise Unavailable, unless it says otherwise."""

    @property
    def registry_id(self) -> str:
        """Name of this registry."""
        ...

    def report(self, report: AgentReport) -> ReportAnswer:
        """Take an agent's report.  Whoever calls has checked that it may speak for its node.

        Raises:
            Contradicted: another agent reports under this id; nothing was changed.
        """
        ...

    def changed(self, camera_ids: Iterable[CameraId]) -> None:
        """These cameras were made, changed or deleted in the database: tell agents and place what is new, soon."""
        ...

    def owned(self, node_id: NodeId, incarnation: str) -> Mapping[CameraId, Owner]:
        """The cameras that this life of a node owns."""
        ...

    def owner(self, camera_id: CameraId) -> Owner | None:
        """Who owns a camera; none: nobody, or there is no such camera."""
        ...

    def configurations(self, camera_ids: Iterable[CameraId]) -> Mapping[CameraId, CameraRow]:
        """Those of these cameras that the core has in memory, with their credentials; asks nobody, raises nothing.

        A camera that was made a moment ago may be missing, one that was changed be as before.
        """
        ...

    def claimable(self) -> Collection[CameraId]:
        """Cameras that nodes may take by themselves; none where the registry gives them to nodes.

        Asks nobody, raises nothing.
        """
        ...

    def node(self, node_id: NodeId) -> NodeStanding:
        """One node.

        Raises:
            store.errors.Unknown: there is none.
        """
        ...

    def nodes(self, after: str, limit: int, phase: NodePhase | None) -> Sequence[NodeStanding]:
        """The next nodes behind `after` by id, so many at most, in this phase or, none, in any."""
        ...

    def drain(self, node_id: NodeId, order: DrainOrder, version: int | None) -> NodeStanding:
        """Order a node to hand its cameras over, without waiting for it; an order that holds is replaced.

        `version` is the one that the caller saw; none: whatever it is.

        Raises:
            store.errors.Unknown: there is no such node.
            store.errors.Stale: it has another version.
            Contradicted: the other nodes lack capacity, and the order is not forced.
        """
        ...

    def undrain(self, node_id: NodeId, by: str, version: int | None) -> NodeStanding:
        """Take that order back; harmless when there is none.  `version` and errors: like `drain`."""
        ...

    def forget(self, node_id: NodeId, by: str, version: int | None) -> None:
        """Forget a node that is gone for good.

        Raises:
            store.errors.Unknown: there is no such node.
            store.errors.Stale: it has another version.
            Contradicted: it is not dead.
        """
        ...

    def assignments(self, after: str, limit: int, node_id: NodeId | None, phase: TaskPhase | None) -> Sequence[Placed]:
        """Where the next cameras behind `after` by id are, so many at most.

        `node_id`: those that this node owns, none: all; `phase`: those in this phase, none: in any.
        """
        ...

    def move(self, camera_id: CameraId, node_id: NodeId, by: str) -> Owner:
        """Give a camera to a node by hand; returns its new owner.

        Raises:
            store.errors.Unknown: there is no such camera or node.
            Contradicted: the node cannot take it now; says why.
            NotLeader: ask the leader.
        """
        ...

    def probe(
        self, camera_id: CameraId, streams: Mapping[StreamName, StreamSpec], labels: Mapping[str, str]
    ) -> tuple[NodeId, ProbeResult]:
        """Have a camera's owner, or while it has none a live node that may have it, look at streams.

        `labels` are the camera's.  Returns who looked, and what it saw.

        Waits for it, half a minute at most.

        Raises:
            Unanswered: the node does not say in time.
            Contradicted: there is no such node.
            Unavailable: the owner does not report, or the node does to another registry, which is to be asked.
        """
        ...

    def explain(self, camera_id: CameraId) -> Explanation:
        """Why a camera is where it is.

        Raises:
            store.errors.Unknown: there is no such camera.
            NotLeader: ask the leader.
        """
        ...

    def thaw(self, by: str) -> str:
        """End a freeze of evictions; returns why it was, empty when there was none.

        Raises:
            NotLeader: ask the leader.
        """
        ...

    def cluster(self) -> Cluster:
        """All of it in a few numbers."""
        ...

    def readiness(self) -> Readiness:
        """Whether it can serve; asks nobody, and raises nothing."""
        ...
