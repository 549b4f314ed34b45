"""What is answered of nodes and of where cameras are: all that lives for seconds.  Pure.  Times are UTC ns."""

from __future__ import annotations

from typing import Literal

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.ids import CameraId, Epoch, Frozen, FrozenStrict, NodeId, Switch, UtcNs
from nodeagent.contract.ownership import Owner, Resources, TaskPhase, Unfinished, Version
from nodeagent.contract.report import ChildRow
from registry.draining import DrainState
from registry.explain import Candidate, Explanation
from registry.http.ports import Cluster, Draining, Freeze, NodeStanding, Placed
from registry.member import NodePhase
from registry.store.assignments import Assignment


class Drain(Frozen):
    """How far a node is with handing its cameras over."""

    #: Who ordered it; empty: nobody, it leaves by its own word.
    ordered_by: str
    #: 0: nobody ordered it.
    ordered_ns: UtcNs
    forced: bool
    #: How far it is; the last three states are ends.
    state: DrainState
    #: Cameras that are still its own, and those that another node took since it began.
    left: int
    moved: int
    #: Of those that were taken: how many are not captured yet, and the first of those that nobody captures, for longer
    #: than a start takes.
    starting: int
    uncaptured: tuple[CameraId, ...]
    #: What the node has still to do with what it recorded, each null where that is not known; null as a whole: it
    #: serves cameras still, or its agent does not tell.
    unfinished: Unfinished | None
    #: Whether nothing is left, neither cameras nor what they recorded.
    done: bool
    #: Why it does not go on; empty: it does.
    trouble: str

    @classmethod
    def of(cls, drain: Draining) -> Drain:
        """From the core's."""
        order = drain.order
        return cls(
            ordered_by=order.by if order else "",
            ordered_ns=order.at_ns if order else 0,
            forced=order.forced if order else False,
            state=drain.state,
            left=drain.left,
            moved=drain.moved,
            starting=drain.gone.starting,
            uncaptured=drain.gone.uncaptured,
            unfinished=drain.unfinished,
            done=drain.state is DrainState.DONE,
            trouble=drain.trouble,
        )


class Node(Frozen):
    """One node."""

    node_id: NodeId
    #: Grows with each order to it; the ETag.
    version: int
    phase: NodePhase
    #: Of the life of its agent that reports; empty and 0: it has not reported yet.
    host: str
    agent_pid: int
    incarnation: str
    agent_version: str
    started_ns: UtcNs
    #: Seconds since its newest report; none: it has not reported yet.
    silent_s: float | None
    #: Its clock less the registry's, ns.
    skew_ns: int
    labels: dict[str, str]
    capacity: Resources | None
    #: Names of the models that it has loaded; none: it does not tell.
    models: tuple[str, ...] | None
    #: How many cameras it owns (`container_load` in Redis), and how many it says that it serves.
    owns: int
    serves: int
    #: How full these make it, by the scarcest of its resources, or by their number where it does not tell its capacity;
    #: 1 is full.
    load: float
    drain: Drain | None
    #: Why another agent under its id is refused; empty: there is none.
    conflict: str

    @classmethod
    def of(cls, standing: NodeStanding) -> Node:
        """From the core's."""
        view = standing.view
        life = view.life
        return cls(
            node_id=view.node_id,
            version=standing.version,
            phase=view.phase,
            host=life.host if life else "",
            agent_pid=life.agent_pid if life else 0,
            incarnation=life.incarnation if life else "",
            agent_version=life.version if life else "",
            started_ns=life.started_ns if life else 0,
            silent_s=view.silent_s,
            skew_ns=view.skew_ns,
            labels=dict(view.labels),
            capacity=view.capacity,
            models=None if view.models is None else tuple(sorted(view.models)),
            owns=len(view.cameras),
            serves=len(view.holds),
            load=round(standing.load, 4),
            drain=None if standing.drain is None else Drain.of(standing.drain),
            conflict=view.conflict,
        )


class Nodes(Frozen):
    """A part of the nodes, in the order of their ids."""

    nodes: tuple[Node, ...]
    #: Path of the next part; none after the last.
    next: str | None


class NodeWhole(Frozen):
    """One node with its cameras and children."""

    node: Node
    #: Those that it owns.
    cameras: tuple[CameraId, ...]
    #: One row per child process, as it reported them last.
    rows: tuple[ChildRow, ...]

    @classmethod
    def of(cls, standing: NodeStanding) -> NodeWhole:
        """From the core's."""
        rows = standing.report.rows if standing.report else ()
        return cls(node=Node.of(standing), cameras=standing.view.cameras, rows=rows)


class DrainOrdered(FrozenStrict):
    """How a node is to be drained."""

    #: Although the other nodes lack capacity, so that cameras are left without one.
    forced: Switch = False


class NodeCamera(Frozen):
    """A camera for the node that owns it, with its credentials."""

    camera: CameraSpec
    version: Version
    #: With which the node owns it; 0: it does not, but may claim it.
    epoch: Epoch | Literal[0]


class Whereabouts(Frozen):
    """Who owns a camera."""

    #: Whether there is such a camera, and a node is to serve it.
    known: bool
    #: None: nobody does.
    owner: Owner | None


class Place(Frozen):
    """Where a camera is now."""

    camera_id: CameraId
    phase: TaskPhase
    #: Who owns it, or owned it last.
    owner: Owner | None
    since_ms: int
    #: Why it was placed there; empty: not known.
    reason: str

    @classmethod
    def of(cls, placed: Placed) -> Place:
        """From the core's."""
        status = placed.status
        return cls(
            camera_id=placed.camera_id,
            phase=status.phase,
            owner=status.owner,
            since_ms=status.since_ms,
            reason=placed.reason,
        )


class Places(Frozen):
    """A part of the cameras with where they are, in the order of their ids."""

    assignments: tuple[Place, ...]
    #: Path of the next part; none after the last.
    next: str | None


class PastPlace(Frozen):
    """One owner that a camera has or had."""

    owner: Owner
    #: Why it had to be placed.
    reason: str
    granted_ns: UtcNs
    #: None: it is the current one.
    ended_ns: UtcNs | None
    end_reason: str

    @classmethod
    def of(cls, assignment: Assignment) -> PastPlace:
        """From the store's."""
        grant = assignment.grant
        return cls(
            owner=grant.owner,
            reason=grant.reason,
            granted_ns=grant.granted_ns,
            ended_ns=assignment.ended_ns,
            end_reason=assignment.end_reason,
        )


class PastPlaces(Frozen):
    """Owners of a camera, newest first."""

    camera_id: CameraId
    assignments: tuple[PastPlace, ...]
    #: Path of the next part; none after the last.
    next: str | None


class Move(FrozenStrict):
    """Where a camera is to go."""

    node_id: NodeId


class Considered(Frozen):
    """One node as it was considered for a camera."""

    node_id: NodeId
    #: 1 for the node that the camera would be placed on now, 2 for the next; 0: refused.
    rank: int
    #: Of the node without and with the camera; 1 is full.
    load: float
    load_with: float
    #: Cameras of its group where the node is.
    group: int
    #: Whether the camera's source could not be reached from there.
    is_avoided: bool
    #: Every reason why it cannot take the camera; none when it can.
    refusals: tuple[str, ...]

    @classmethod
    def of(cls, candidate: Candidate) -> Considered:
        """From the placement's."""
        return cls(**{name: getattr(candidate, name) for name in cls.model_fields})


class Why(Frozen):
    """Why a camera is where it is."""

    camera_id: CameraId
    #: Its owner; empty: it has none.
    node_id: str
    #: Where it would be placed now; empty: nowhere.
    best: str
    sentence: str
    #: How many nodes were considered; `candidates` are the first of them.
    considered: int
    candidates: tuple[Considered, ...]

    @classmethod
    def of(cls, explanation: Explanation, limit: int) -> Why:
        """From the placement's, so many candidates at most."""
        return cls(
            camera_id=explanation.camera_id,
            node_id=explanation.node_id,
            best=explanation.best,
            sentence=explanation.sentence,
            considered=len(explanation.candidates),
            candidates=tuple(Considered.of(one) for one in explanation.candidates[:limit]),
        )


class Held(Frozen):
    """Evictions are held."""

    reason: str
    since_ns: UtcNs
    #: When it ends at the latest.
    until_ns: UtcNs

    @classmethod
    def of(cls, freeze: Freeze) -> Held:
        """From the core's."""
        return cls(reason=freeze.reason, since_ns=freeze.since_ns, until_ns=freeze.until_ns)


class Overview(Frozen):
    """All of it in a few numbers."""

    #: Who answers, and who leads; empty: not known.
    registry_id: str
    leader: str
    #: None: evictions are not held.
    freeze: Held | None
    #: How many nodes, and cameras, are in each phase.
    nodes: dict[NodePhase, int]
    cameras: dict[TaskPhase, int]
    cameras_version: int

    @classmethod
    def of(cls, registry_id: str, cluster: Cluster) -> Overview:
        """From the core's."""
        freeze = cluster.freeze
        return cls(
            registry_id=registry_id,
            leader=cluster.leader,
            freeze=None if freeze is None else Held.of(freeze),
            nodes={phase: cluster.nodes.get(phase, 0) for phase in NodePhase},
            cameras={phase: cluster.cameras.get(phase, 0) for phase in TaskPhase},
            cameras_version=cluster.cameras_version,
        )


class Thawed(Frozen):
    """The end of a freeze by order."""

    #: Whether there was one.
    thawed: bool
    #: Why it was; empty: there was none.
    reason: str


class Alive(Frozen):
    """The process lives."""

    status: str = "ok"


class Ready(Frozen):
    """Whether this registry can serve; each sentence says why not, and is empty when all is well."""

    ready: bool
    database: str
    state: str
    leader: str
