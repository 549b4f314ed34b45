"""A site without cameras: real registries around a real Redis and database, and agents that serve what they own.

Time is the test's: `run` lets seconds pass, in which agents report once a second and registries turn four times.  Only
the leader's lock expires by Redis' own clock; `expire_lead` does that at once.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import NS_PER_S, CameraId
from nodeagent.contract.ownership import LEASE_S, AgentReport, Holding, Owner, Resources
from nodeagent.contract.report import NodeReport
from nodeagent.contract.states import State
from nodeagent.infra.clock import Clock
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.ownership.leases import Leases
from nodeagent.infra.ownership.port import Standing
from nodeagent.infra.ownership.prelude import LEADER_KEY
from nodeagent.infra.redis import connect_redis
from registry.core.assembly import Assembled, assemble
from registry.core.loop import TURN_S
from registry.core.site import Site
from registry.http.ports import Contradicted
from registry.store.assignments import Assignments
from registry.store.cameras import Cameras
from tests.support.eventually import eventually
from tests.support.registry_nodes import row
from tests.support.registry_store import draft, vault, writer

#: Seconds in which a dead node's cameras are elsewhere: its lease, two turns, and a turn of the agent that gets them.
FAILOVER_S = LEASE_S + 3 * TURN_S
#: The same after a change of the leader, which waits a lease before it judges.
AFTER_LEADER_S = 2 * LEASE_S + 3 * TURN_S


@dataclass
class TurnedClock:
    """Monotonic time as the test turns it, beside a wall clock that goes with it from the real one."""

    now_s: float = 1_000.0
    wall_start_ns: int = 1_767_225_600 * NS_PER_S

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ns(self) -> int:
        return self.wall_start_ns + int((self.now_s - 1_000.0) * NS_PER_S)


@dataclass
class Host:
    """One life of an agent that serves whatever it owns; `told` are conflicts that it was told of."""

    node_id: str
    state: Leases | None
    clock: Clock
    host: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    capacity: Resources | None = None
    incarnation: str = field(default_factory=lambda: secrets.token_hex(8))
    holds: dict[CameraId, int] = field(default_factory=dict)
    alive: bool = True
    leaving: bool = False
    opens: bool = True
    #: Whether a source that is open gave a sample.
    sees: bool = True
    seq: int = 0
    told: list[str] = field(default_factory=list)
    #: Who captures by now what it serves still, by the last answer to a report.
    captured: Mapping[CameraId, Owner] = field(default_factory=dict)
    #: Cameras that it ever had to let go of, and began to serve.
    lost: list[CameraId] = field(default_factory=list)
    began: list[CameraId] = field(default_factory=list)
    started_ns: int = 0

    def report(self) -> AgentReport:
        self.seq += 1
        state = State.CAPTURING if self.opens else State.SOURCE_DOWN
        node = NodeReport(
            node_id=self.node_id,
            host=self.host or f"host-{self.node_id}",
            version="1",
            agent_pid=7,
            started_ns=self.started_ns,
            rows=tuple(row(camera_id, state, samples=self.sees) for camera_id in sorted(self.holds)),
        )
        return AgentReport(
            report=node,
            incarnation=self.incarnation,
            seq=self.seq,
            sent_ns=self.clock.wall_ns(),
            labels=dict(self.labels),
            capacity=self.capacity,
            holds=tuple(Holding(camera_id=c, epoch=epoch, version=1) for c, epoch in sorted(self.holds.items())),
            draining=self.leaving,
        )

    def reconcile(self, desk: Any) -> None:
        """Serve what is ours, and let go of what is read to be another's; on Redis or, without one, by the registry."""
        if self.state is None:
            mine = {c: owner.epoch for c, owner in desk.owned(self.node_id, self.incarnation).items()}
            for camera_id in [c for c in self.holds if c not in mine]:
                owner = desk.owner(camera_id)
                if owner is not None and owner.epoch > self.holds[camera_id] and self.captured.get(camera_id) == owner:
                    self.let_go(camera_id)
        else:
            mine = {c: owner.epoch for c, owner in self.state.owned_by(self.node_id, self.incarnation).items()}
            for camera_id, renewal in self.state.renew(self.owners()).items():
                # Who leaves keeps a camera until the registry says that its owner captures it.
                kept = self.leaving and self.captured.get(camera_id) != renewal.owner
                if renewal.standing is Standing.TAKEN and camera_id not in mine and not kept:
                    self.let_go(camera_id)
        if not self.leaving:
            self.began += [camera_id for camera_id in mine if camera_id not in self.holds]
            self.holds |= mine

    def owners(self) -> dict[CameraId, Owner]:
        """What it serves, as who and with which epoch."""
        life = {"node_id": self.node_id, "incarnation": self.incarnation}
        return {camera_id: Owner.model_validate({**life, "epoch": epoch}) for camera_id, epoch in self.holds.items()}

    def let_go(self, camera_id: CameraId) -> None:
        del self.holds[camera_id]
        self.lost.append(camera_id)


@dataclass
class Registry:
    """One registry; its clerk works in a thread, its loop turns when the test says so."""

    made: Assembled
    thread: threading.Thread
    alive: bool = True

    @property
    def desk(self) -> Any:
        return self.made.desk

    @property
    def site(self) -> Site:
        return self.made.office.site

    @property
    def leads(self) -> bool:
        return self.made.loop.leads


@dataclass
class Place:
    """The site; see the module."""

    folder: Path
    redis_url: str | None
    shared: bool = True
    database_url: str = ""
    clock: TurnedClock = field(default_factory=TurnedClock)
    registries: list[Registry] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)
    #: Whom each agent reports to; the first registry that lives, when left out.
    reports_to: dict[str, Registry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.database_url = self.database_url or f"sqlite:///{self.folder / 'registry.db'}"
        self.engine = open_database(self.database_url)
        migrate(self.engine)
        self.cameras = Cameras(self.engine, vault())
        self.client: Any = connect_redis(self.redis_url) if self.redis_url else None

    def registry(self, name: str = "registry-1", **options: Any) -> Registry:
        made = assemble(
            registry_id=name,
            engine=open_database(self.database_url),
            vault=vault(),
            clock=self.clock,
            redis_url=self.redis_url,
            shared=self.shared,
            **options,
        )
        thread = threading.Thread(target=made.clerk.run, name=f"clerk of {name}", daemon=True)
        thread.start()
        eventually(lambda: made.clerk.is_loaded)
        registry = Registry(made, thread)
        self.registries.append(registry)
        return registry

    def agent(self, node_id: str, **options: Any) -> Host:
        leases = Leases(connect_redis(self.redis_url)) if self.redis_url and self.shared else None
        host = Host(node_id, leases, self.clock, started_ns=self.clock.wall_ns(), **options)
        self.hosts.append(host)
        return host

    def add_cameras(self, count: int, first: int = 0, **options: Any) -> list[CameraId]:
        names = [f"cam-{number:03}" for number in range(first, first + count)]
        for name in names:
            self.cameras.make(draft(name, **options), writer())
        self.notice()
        return names

    def notice(self) -> None:
        """Every registry knows what stands in the database."""
        version = self.cameras.version()
        for registry in self.living():
            registry.desk.changed([])
            eventually(lambda made=registry.made: made.office.catalogue.version == version)

    def living(self) -> list[Registry]:
        return [registry for registry in self.registries if registry.alive]

    def leader(self) -> Registry:
        (found,) = [registry for registry in self.living() if registry.leads]
        return found

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Let so many seconds pass, or fewer: up to the turn after which `until` holds.  Returns how many passed."""
        began_s, end_s = self.clock.now_s, self.clock.now_s + seconds
        while self.clock.now_s < end_s - 1e-9:
            self.clock.now_s += TURN_S
            if self.clock.now_s % 1.0 < 1e-9:
                self._report()
            for registry in self.living():
                registry.made.loop.turn()
            for host in self.hosts if self.living() else ():
                if host.alive:
                    # Without an answer of Redis an agent goes on as it was.
                    with suppress(Unavailable):
                        host.reconcile(self._of(host).desk)
            if until is not None and until():
                break
        return self.clock.now_s - began_s

    def _report(self) -> None:
        for host in self.hosts:
            if host.alive and self.living():
                try:
                    host.captured = self._of(host).desk.report(host.report()).captured
                except Contradicted as exc:
                    host.told.append(exc.detail)

    def _of(self, host: Host) -> Registry:
        chosen = self.reports_to.get(host.node_id)
        return chosen if chosen is not None and chosen.alive else self.living()[0]

    def kill(self, registry: Registry) -> None:
        """It does nothing any more, and gives nothing back: as after kill -9 or in SIGSTOP."""
        registry.alive = False

    def expire_lead(self) -> None:
        """The leader's lock runs out."""
        self.client.delete(LEADER_KEY)

    def served(self) -> dict[CameraId, list[str]]:
        """By camera, the live nodes that serve it."""
        found: dict[CameraId, list[str]] = {}
        for host in self.hosts:
            for camera_id in host.holds if host.alive else ():
                found.setdefault(camera_id, []).append(host.node_id)
        return found

    def each_once(self, cameras: list[CameraId]) -> bool:
        """Whether each of these cameras, and no other, is served by one live node."""
        served = self.served()
        return sorted(served) == sorted(cameras) and all(len(nodes) == 1 for nodes in served.values())

    def grants(self) -> dict[CameraId, Owner]:
        """Who serves what with which epoch, by the agents themselves."""
        living = [host for host in self.hosts if host.alive]
        return {camera_id: owner for host in living for camera_id, owner in host.owners().items()}

    def written(self) -> dict[CameraId, Owner]:
        """Owners as the database has them."""
        return Assignments(self.engine).owners()

    def close(self) -> None:
        for registry in self.registries:
            registry.made.clerk.close()
        for registry in self.registries:
            registry.thread.join(15)
            registry.made.close()
        if self.client is not None:
            self.client.close()
        self.engine.dispose()


@contextmanager
def place(folder: Path, redis_url: str | None, **options: Any) -> Iterator[Place]:
    """A site that is cleared away."""
    made = Place(folder, redis_url, **options)
    try:
        yield made
    finally:
        made.close()
