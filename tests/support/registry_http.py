"""A registry that serves HTTP on a free port: its own core, on SQLite and in memory, with time that the test turns.

The loop turns all the while, and its clock stands still unless `pass_s` moves it: no node falls silent by itself, and
what is asked of the loop is done within milliseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from sqlalchemy import Engine

from nodeagent.contract.ownership import AgentReport, Holding, Owner, Unfinished
from nodeagent.contract.report import NodeReport
from nodeagent.contract.states import State
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.web.certificates import KeyPair
from nodeagent.infra.web.server import Server, listen
from registry.core.assembly import Assembled, assemble
from registry.core.loop import TURN_S
from registry.http.app import make_app
from registry.http.parts import Parts, make_parts
from registry.http.ports import Contradicted, Readiness
from registry.http.server import BACKLOG, make_server
from registry.secrets import Vault
from registry.store.errors import Unknown
from registry.tokens import Role
from tests.support.eventually import eventually
from tests.support.registry_nodes import row
from tests.support.registry_store import vault
from tests.support.registry_world import TurnedClock

NODES = ("n1", "n2")
#: Who has a token.
PEOPLE = {role.value: role for role in Role}
LIFE = "00000000000000a1"
#: Seconds between two turns of the loop, of a clock that nobody turns.
SOON_S = 0.02
_numbers = count(1)


def report_of(node_id: str, seq: int | None = None, incarnation: str = LIFE, **values: Any) -> AgentReport:
    """A report of a node on which nothing waits; without `seq` one that is newer than all before."""
    if not values.get("holds"):
        values.setdefault("unfinished", Unfinished(cameras=0, clips=0, detections=0, alarms=0))
    rows = values.pop("rows", ())
    node = NodeReport(node_id=node_id, host="h", version="1", agent_pid=7, started_ns=1, rows=rows)
    sent_ns = SystemClock().wall_ns()
    return AgentReport(report=node, incarnation=incarnation, seq=seq or next(_numbers), sent_ns=sent_ns, **values)


@dataclass
class Troubled:
    """The core, which raises `trouble`, while that is set, wherever it may; `heard` are cameras that changed."""

    desk: Any
    trouble: Exception | None = None
    heard: list[str] = field(default_factory=list)

    def changed(self, camera_ids: Iterable[str]) -> None:
        changed = list(camera_ids)
        self.heard += changed
        self.desk.changed(changed)

    def readiness(self) -> Readiness:
        return Readiness(state=str(self.trouble), leader="") if self.trouble else self.desk.readiness()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.desk, name)
        if self.trouble is None or name in {"registry_id", "report", "configurations", "claimable"}:
            return found

        def fail(*_asked: Any) -> Any:
            raise self.trouble or AssertionError

        return fail


@dataclass(frozen=True)
class RegistryServing:
    """It, and who may ask: `viewer`, `operator`, `admin`, `n1` and `n2`."""

    origin: str
    core: Troubled
    made: Assembled
    clock: TurnedClock
    parts: Parts
    engine: Engine
    secrets: Mapping[str, str]
    token_ids: Mapping[str, str]
    turns: list[int]

    def client(self, who: str | None = "admin", **headers: str) -> httpx.Client:
        """A client that shows this one's token, or this token; none without a name."""
        token = {"Authorization": f"Bearer {self.secrets.get(who, who)}"} if who else {}
        # Making a context for TLS, which nobody speaks here, takes longer than most requests.
        return httpx.Client(base_url=f"{self.origin}/api/v1", headers=token | headers, verify=False, timeout=20)

    def report(self, *node_ids: str, **values: Any) -> None:
        """Let these nodes report, and the loop judge it."""
        for node_id in node_ids:
            self.core.report(report_of(node_id, **values))
        self.turn()

    def give(self, camera_id: str, node_id: str) -> Owner:
        """Let a node own a camera that there is."""

        def given() -> Owner | None:
            with suppress(Contradicted, Unknown):
                return self.made.desk.move(camera_id, node_id, "test")
            return None

        self.report(node_id)
        owner = eventually(given)
        assert owner is not None
        return owner

    def capture(self, camera_id: str, state: State = State.CAPTURING) -> None:
        """Let the owner of a camera report that it serves it, and how that goes."""
        owner = self.made.desk.owner(camera_id)
        assert owner is not None
        holds = (Holding(camera_id=camera_id, epoch=owner.epoch, version=1),)
        self.report(owner.node_id, holds=holds, rows=(row(camera_id, state),))

    def turn(self) -> None:
        """Wait for a whole turn of the loop."""
        before = self.turns[0]
        eventually(lambda: self.turns[0] > before + 1, every_s=SOON_S / 4)

    def pass_s(self, seconds: float) -> None:
        """Let seconds pass in which nobody reports."""
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.now_s += TURN_S
            self.turn()


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
def _running(made: Assembled, turns: list[int]) -> Iterator[None]:
    stop = threading.Event()

    def turn() -> None:
        while not stop.wait(SOON_S):
            made.loop.turn()
            turns[0] += 1

    threads = [threading.Thread(target=each, daemon=True) for each in (made.clerk.run, turn)]
    threads[0].name = "clerk"
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: made.clerk.is_loaded and made.loop.leads)
        yield
    finally:
        stop.set()
        made.clerk.close()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        made.close()


@contextmanager
def serving_registry(
    folder: Path, tls: KeyPair | None = None, keys: Vault | None = None, **options: Any
) -> Iterator[RegistryServing]:
    """Serve until the block ends; with a key pair, HTTPS.  `options` are those of `assemble`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "registry.db"
    if not file.exists():
        file.write_bytes(_empty_database())
    engine, keys = open_database(f"sqlite:///{file}"), keys or vault()
    clock, turns = TurnedClock(wall_start_ns=SystemClock().wall_ns()), [0]
    made = assemble(registry_id="reg1", engine=engine, vault=keys, clock=clock, redis_url=None, shared=False, **options)
    core = Troubled(made.desk)
    parts = make_parts(core, engine, keys, SystemClock())
    tokens = {name: parts.tokens.make_for_person(name, role, "tests", 1) for name, role in PEOPLE.items()}
    tokens |= {node: parts.tokens.make_for_node(node, node, "tests", 1) for node in NODES}
    server = make_server(make_app(parts), parts.doorkeeper, parts.clock, tls)
    with _running(made, turns), _listening(server, tls is not None) as origin:
        yield RegistryServing(
            origin=origin,
            core=core,
            made=made,
            clock=clock,
            parts=parts,
            engine=engine,
            secrets={name: secret.get_secret_value() for name, (_, secret) in tokens.items()},
            token_ids={name: bearer.token_id for name, (bearer, _) in tokens.items()},
            turns=turns,
        )


@contextmanager
def _listening(server: Server, tls: bool) -> Iterator[str]:
    listening = listen("127.0.0.1", 0, BACKLOG)
    origin = f"{'https' if tls else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
    server.start(listening)
    try:
        eventually(lambda: httpx.get(f"{origin}/healthz", verify=False, trust_env=False).status_code == 200)
        yield origin
    finally:
        server.stop()
        server.join(10)
        assert not server.running
