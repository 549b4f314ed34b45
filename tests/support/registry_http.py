"""A registry that serves HTTP on a free port: SQLite, and a core that keeps nodes and owners in memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from sqlalchemy import Engine

from nodeagent.contract.ownership import AgentReport, Owner, ReportAnswer, TaskPhase, TaskStatus
from nodeagent.contract.report import NodeReport
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.database import migrate, open_database
from registry.explain import Explanation, explain
from registry.http.app import make_app
from registry.http.parts import Parts, make_parts
from registry.http.ports import Cluster, Contradicted, Draining, Freeze, NodeStanding, Placed, Readiness
from registry.http.server import Server, listen
from registry.member import Conflict, NodePhase
from registry.membership import Members, UnknownNode
from registry.placement_rules import Camera, Node
from registry.store.camera_record import CameraRow
from registry.store.errors import Stale, Unknown
from registry.store.nodes import DrainOrder
from registry.tokens import Role
from tests.support.eventually import eventually
from tests.support.registry_store import vault

NODES = ("n1", "n2")
#: Who has a token.
PEOPLE = {role.value: role for role in Role}
LIFE = "00000000000000a1"


def report_of(node_id: str, seq: int = 1, incarnation: str = LIFE, **values: Any) -> AgentReport:
    """A report of a node without children."""
    node = NodeReport(node_id=node_id, host="h", version="1", agent_pid=7, started_ns=1, rows=values.pop("rows", ()))
    sent_ns = SystemClock().wall_ns()
    return AgentReport(report=node, incarnation=incarnation, seq=seq, sent_ns=sent_ns, **values)


@dataclass
class MemoryCore:
    """One registry that leads, and moves nothing by itself.

    Attributes:
        trouble: raised by every call but reports, while it is set.
        heard: cameras that were said to have changed.
        rows: cameras in memory.
        claims: cameras that nodes may claim.
    """

    registry_id: str = "reg1"
    trouble: Exception | None = None
    freeze: Freeze | None = None
    heard: list[str] = field(default_factory=list)
    rows: dict[str, CameraRow] = field(default_factory=dict)
    claims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._clock = SystemClock()
        self._members = Members(self._now_s())
        self._members.begin_term({}, self._now_s())
        self._reports: dict[str, NodeReport] = {}
        self._statuses: dict[str, TaskStatus] = {}
        self._orders: dict[str, DrainOrder] = {}
        self._versions: Counter[str] = Counter()

    def own(self, camera_id: str, node_id: str, incarnation: str = LIFE) -> Owner:
        """Let a node own a camera."""
        with self._lock:
            before = self._statuses.get(camera_id)
            epoch = before.owner.epoch + 1 if before and before.owner else 1
            owner = Owner(node_id=node_id, incarnation=incarnation, epoch=epoch)
            self._statuses[camera_id] = TaskStatus(phase=TaskPhase.OWNED, owner=owner, since_ms=1)
            self._members.granted(camera_id, owner, self._now_s())
            return owner

    def pool(self, camera_id: str) -> None:
        """Let a camera be nobody's."""
        with self._lock:
            self._statuses[camera_id] = TaskStatus(phase=TaskPhase.POOLED, owner=None, since_ms=1)

    def report(self, report: AgentReport) -> ReportAnswer:
        with self._lock:
            answer = self._members.report(report, self._clock.wall_ns(), self._now_s())
            if isinstance(answer, Conflict):
                raise Contradicted(answer.detail, "incarnation")
            self._versions[report.report.node_id] = max(1, self._versions[report.report.node_id])
            self._reports[report.report.node_id] = report.report
        return ReportAnswer(
            registry_id=self.registry_id,
            now_ns=self._clock.wall_ns(),
            cameras_version=len(self.heard),
            warnings=answer.warnings,
        )

    def changed(self, camera_ids: Iterable[str]) -> None:
        self.heard += camera_ids

    def owned(self, node_id: str, incarnation: str) -> Mapping[str, Owner]:
        with self._asked():
            owners = {name: status.owner for name, status in self._statuses.items() if status.owner}
            return {
                name: owner
                for name, owner in owners.items()
                if (owner.node_id, owner.incarnation) == (node_id, incarnation)
            }

    def configurations(self, camera_ids: Iterable[str]) -> Mapping[str, CameraRow]:
        return {name: self.rows[name] for name in camera_ids if name in self.rows}

    def claimable(self) -> Collection[str]:
        return self.claims

    def owner(self, camera_id: str) -> Owner | None:
        with self._asked():
            status = self._statuses.get(camera_id)
            return status.owner if status else None

    def node(self, node_id: str) -> NodeStanding:
        with self._asked():
            try:
                view = self._members.view(node_id, self._now_s())
            except UnknownNode:
                raise Unknown(f"node {node_id}") from None
            order = self._orders.get(node_id)
            drain = Draining(order=order, left=len(view.cameras), moved=0) if order or view.leaving else None
            return NodeStanding(
                view=view, version=self._versions[node_id], report=self._reports.get(node_id), drain=drain
            )

    def nodes(self, after: str, limit: int, phase: NodePhase | None) -> Sequence[NodeStanding]:
        with self._asked():
            views = [view for view in self._members.views(self._now_s()) if view.node_id > after]
            return [self.node(view.node_id) for view in views if phase in (None, view.phase)][:limit]

    def drain(self, node_id: str, order: DrainOrder, version: int | None) -> NodeStanding:
        with self._asked():
            standing = self._seen(node_id, version)
            others = [one for one in self.nodes("", 1000, NodePhase.LIVE) if one.view.node_id != node_id]
            if standing.view.cameras and not others and not order.forced:
                raise Contradicted("no other node takes its cameras")
            self._orders[node_id] = order
            self._versions[node_id] += 1
            self._members.drain(node_id, self._now_s())
            return self.node(node_id)

    def undrain(self, node_id: str, by: str, version: int | None) -> NodeStanding:
        with self._asked():
            self._seen(node_id, version)
            if self._orders.pop(node_id, None):
                self._versions[node_id] += 1
            self._members.undrain(node_id, self._now_s())
            return self.node(node_id)

    def forget(self, node_id: str, by: str, version: int | None) -> None:
        with self._asked():
            standing = self._seen(node_id, version)
            if standing.view.phase is not NodePhase.DEAD:
                raise Contradicted(f"node {node_id} is not dead")
            self._members.forget(node_id)

    def assignments(self, after: str, limit: int, node_id: str | None, phase: TaskPhase | None) -> Sequence[Placed]:
        with self._asked():
            found = [Placed(camera_id=name, status=self._statuses[name]) for name in sorted(self._statuses)]
            if node_id is not None:
                found = [one for one in found if one.status.owner and one.status.owner.node_id == node_id]
            return [one for one in found if one.camera_id > after and phase in (None, one.status.phase)][:limit]

    def move(self, camera_id: str, node_id: str, by: str) -> Owner:
        with self._asked():
            if self.node(node_id).view.phase is not NodePhase.LIVE:
                raise Contradicted(f"node {node_id} takes no cameras", "node_id")
            return self.own(camera_id, node_id)

    def explain(self, camera_id: str) -> Explanation:
        with self._asked():
            if camera_id not in self._statuses:
                raise Unknown(f"camera {camera_id}")
            owner = self._statuses[camera_id].owner
            nodes = [Node(node_id=one.view.node_id) for one in self.nodes("", 1000, None)]
            return explain(Camera(camera_id=camera_id), nodes, owner=owner.node_id if owner else "")

    def thaw(self, by: str) -> str:
        with self._asked():
            freeze, self.freeze = self.freeze, None
            return freeze.reason if freeze else ""

    def cluster(self) -> Cluster:
        with self._asked():
            nodes = Counter(view.phase for view in self._members.views(self._now_s()))
            cameras = Counter(status.phase for status in self._statuses.values())
            return Cluster(
                leader=self.registry_id,
                freeze=self.freeze,
                nodes=nodes,
                cameras=cameras,
                cameras_version=len(self.heard),
            )

    def readiness(self) -> Readiness:
        return Readiness(state=str(self.trouble or ""), leader="" if self.trouble else self.registry_id)

    def _seen(self, node_id: str, version: int | None) -> NodeStanding:
        standing = self.node(node_id)
        if version not in (None, standing.version):
            raise Stale(f"node {node_id}", version or 0, standing.version)
        return standing

    @contextmanager
    def _asked(self) -> Iterator[None]:
        with self._lock:
            if self.trouble is not None:
                raise self.trouble
            yield

    def _now_s(self) -> float:
        return self._clock.monotonic_s()


@dataclass(frozen=True)
class RegistryServing:
    """It, and who may ask: `viewer`, `operator`, `admin`, `n1` and `n2`."""

    origin: str
    core: MemoryCore
    parts: Parts
    engine: Engine
    secrets: Mapping[str, str]
    token_ids: Mapping[str, str]

    def client(self, who: str | None = "admin", **headers: str) -> httpx.Client:
        """A client that shows this one's token; none without a name."""
        token = {"Authorization": f"Bearer {self.secrets.get(who, who)}"} if who else {}
        # Making a context for TLS, which nobody speaks here, takes longer than most requests.
        return httpx.Client(base_url=f"{self.origin}/api/v1", headers=token | headers, verify=False, timeout=20)


@cache
def _empty_database() -> bytes:
    """A database with all tables, made once."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "registry.db")
        engine = open_database(f"sqlite:///{file}")
        migrate(engine)
        engine.dispose()
        return file.read_bytes()


@contextmanager
def serving_registry(
    folder: Path, certificate: Path | None = None, key: Path | None = None
) -> Iterator[RegistryServing]:
    """Serve until the block ends; with a certificate, HTTPS."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "registry.db"
    file.write_bytes(_empty_database())
    engine = open_database(f"sqlite:///{file}")
    core, clock = MemoryCore(), SystemClock()
    parts = make_parts(core, engine, vault(), clock)
    made = {name: parts.tokens.make_for_person(name, role, "tests", 1) for name, role in PEOPLE.items()}
    made |= {node: parts.tokens.make_for_node(node, node, "tests", 1) for node in NODES}
    server = Server(make_app(parts), parts.doorkeeper, clock, certificate, key)
    listening = listen("127.0.0.1", 0)
    origin = f"{'https' if certificate else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
    server.start(listening)
    try:
        eventually(lambda: httpx.get(f"{origin}/healthz", verify=False, trust_env=False).status_code == 200)
        yield RegistryServing(
            origin=origin,
            core=core,
            parts=parts,
            engine=engine,
            secrets={name: secret.get_secret_value() for name, (_, secret) in made.items()},
            token_ids={name: bearer.token_id for name, (bearer, _) in made.items()},
        )
    finally:
        server.stop()
        server.join(10)
        assert not server.running
        engine.dispose()
