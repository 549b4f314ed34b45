"""Makes a registry's real parts, runs them in their threads, and ends them in order: `registry serve`, and a child of
an agent that has its registry inside.

Threads: the clerk (database), the loop (Redis, decisions), the web server, and this one, which waits for the request to
stop and tells whoever watches over it that the others live.  A registry may be killed at any moment: agents ask the
next one, or go on as they are until it is back.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from sqlalchemy import Engine

from nodeagent.contract.errors import AgentError, ConfigError, Fault, Unavailable
from nodeagent.infra.clock import Clock, SystemClock
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.logging import set_up_logging
from nodeagent.infra.open_files import raise_limit
from nodeagent.infra.sd_notify import Notifier
from nodeagent.infra.stop import Stop
from nodeagent.infra.web.certificates import KeyPair, pair_fault
from nodeagent.infra.web.server import Server, listen
from registry.brake import Limits
from registry.core.assembly import Assembled, assemble
from registry.http.app import make_app
from registry.http.parts import make_parts
from registry.http.server import BACKLOG, make_server
from registry.secrets import KEY_BYTES, Key, Vault, open_vault
from registry.settings import ServiceSettings
from registry.store.cameras import Cameras

log = logging.getLogger(__name__)

#: Seconds between two looks at the other threads.
LOOK_S = 0.5
#: Seconds between two tries to reach the database at the start.
DATABASE_AGAIN_S = 1.0
#: Seconds without a turn of the loop, or a sign of life of the web server, after which systemd is told no more that all
#: is well.  A loop whose Redis does not answer turns every dozen seconds.
STUCK_S = 40.0
#: Seconds that each thread has for its end: the clerk may wait for a database.
END_S = 15.0
#: File in the state folder that one registry at a time holds.
LOCK = "registry.lock"


class AlreadyRunning(AgentError):
    """Another registry works on this state folder."""


class Keeper(Protocol):
    """What a registry runs under, which is told how it is."""

    def alive(self, now_s: float) -> None:
        """It works, or waits for its database; called every second at least, `now_s` is monotonic."""
        ...

    def waits(self, why: str) -> None:
        """It cannot serve before its database is back."""
        ...

    def prepared(self, engine: Engine, vault: Vault) -> None:
        """Database and keys are there, and nothing serves yet.

        Raises:
            Unavailable: the database is away again, or the state folder cannot be written.
        """
        ...

    def ready(self) -> None:
        """It serves, and has read its database."""
        ...

    def looks(self, core: Assembled) -> None:
        """Called at every look at its threads."""
        ...

    def stopping(self) -> None:
        """It ends."""
        ...


@dataclass(frozen=True, slots=True)
class _Systemd:
    """A service of systemd."""

    notifier: Notifier

    def alive(self, now_s: float) -> None:
        self.notifier.alive(now_s)

    def waits(self, _why: str) -> None:
        self.notifier.status("waits for its database")

    def prepared(self, _engine: Engine, _vault: Vault) -> None:
        """People make its cameras and tokens."""

    def ready(self) -> None:
        self.notifier.ready()

    def looks(self, core: Assembled) -> None:
        self.notifier.status(_sentence(core))

    def stopping(self) -> None:
        self.notifier.stopping()


@dataclass(frozen=True, slots=True)
class Running:
    """A registry that serves."""

    core: Assembled
    server: Server
    loop: threading.Thread
    clerk: threading.Thread


def run(settings: ServiceSettings, environment: Mapping[str, str]) -> int:
    """Serve until TERM or INT; returns the exit code: 0 ended as asked, 1 the web server failed.

    Raises:
        ConfigError: what only shows on this machine is wrong, such as a key file that others may read.
        AlreadyRunning: another registry works on the state folder.
        Unavailable: the state folder cannot be used.
    """
    set_up_logging(settings.log, "registry")
    raise_limit()
    stop, notifier = Stop(), Notifier(environment)

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.request()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        with held(settings.registry.state_dir):
            tls = _key_pair(settings)
            # Taken first, so that a port that is in use is told of before anything is changed.
            with _listen(settings) as listening:
                return serve(settings, listening, stop, _Systemd(notifier), SystemClock(), tls)
    finally:
        notifier.close()


def serve(
    settings: ServiceSettings,
    listening: socket.socket,
    stop: Stop,
    keeper: Keeper,
    clock: Clock,
    tls: KeyPair | None = None,
) -> int:
    """Serve on a socket until asked to stop; returns the exit code: 0 ended as asked, 1 the web server failed.

    The caller holds the state folder.  With a key pair, which was found good, HTTPS is spoken.

    Raises:
        ConfigError: the key file cannot be used.
        Unavailable: `keeper.prepared` raised it.
    """
    engine = open_database(settings.database_url)
    vault = _prepare(settings, engine, stop, keeper, clock)
    if vault is None:
        return 0
    keeper.prepared(engine, vault)
    running = _start(settings, engine, vault, clock, listening, tls)
    try:
        return _watch(running, stop, keeper, clock)
    finally:
        _end(running, keeper)


@contextmanager
def held(state_dir: Path) -> Iterator[None]:
    """Hold the state folder, which is made when it is missing; ends with the process at the latest.

    Raises:
        AlreadyRunning: another registry holds it.
        Unavailable: it cannot be used.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        lock = os.open(state_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as exc:
        raise Unavailable(f"state folder {state_dir}: {exc.strerror}") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AlreadyRunning(f"another registry works on {state_dir}") from None
    try:
        yield
    finally:
        os.close(lock)


def _key_pair(settings: ServiceSettings) -> KeyPair | None:
    """What it speaks HTTPS with, found good before anything runs; None: it speaks HTTP."""
    tls = settings.tls
    pair = KeyPair(tls.certificate, tls.key) if tls is not None else None
    if pair is not None and (fault := pair_fault("tls.certificate", pair)):
        raise ConfigError([fault])
    return pair


def _listen(settings: ServiceSettings) -> socket.socket:
    host, port = settings.registry.host, settings.registry.port
    try:
        return listen(host, port, BACKLOG)
    except OSError as exc:
        raise ConfigError([Fault("registry.port", f"cannot listen on {host}, port {port}: {exc.strerror}")]) from None


def _prepare(settings: ServiceSettings, engine: Engine, stop: Stop, keeper: Keeper, clock: Clock) -> Vault | None:
    """Bring the database to this release and open the keys; waits for the database.  None: asked to stop meanwhile."""
    told = False
    while not stop.requested:
        keeper.alive(clock.monotonic_s())
        try:
            migrate(engine)
            # A missing key file is made only where none is missed.
            return open_vault(settings.key_file, may_make=not _holds_credentials(engine))
        except Unavailable as exc:
            trouble = str(exc)
        if not told:
            log.error("%s; waits for it", trouble, extra={"event": "database_down"})
            keeper.waits(trouble)
        told = True
        stop.wait(DATABASE_AGAIN_S)
    return None


def _holds_credentials(engine: Engine) -> bool:
    # Any key will do for a question that decrypts nothing.
    return Cameras(engine, Vault((Key("0" * 8, bytes(KEY_BYTES)),))).holds_credentials()


def _start(
    settings: ServiceSettings, engine: Engine, vault: Vault, clock: Clock, listening: socket.socket, tls: KeyPair | None
) -> Running:
    core = assemble(
        registry_id=settings.registry.registry_id,
        engine=engine,
        vault=vault,
        clock=clock,
        redis_url=settings.redis_url,
        bus_url=settings.bus_url,
        shared=settings.mode == "redis",
        limits=Limits(settings.membership.lease_s, settings.membership.freeze_s, settings.membership.witness_s),
        places=settings.placement.strategy == "broadcast",
        evens=settings.placement.rebalance_percent_per_min / 100 if settings.placement.rebalance else 0.0,
    )
    parts = make_parts(core.desk, engine, vault, clock)
    server = make_server(make_app(parts), parts.doorkeeper, clock, tls)
    loop = threading.Thread(target=core.loop.run, name="loop", daemon=True)
    clerk = threading.Thread(target=core.clerk.run, name="clerk", daemon=True)
    clerk.start()
    loop.start()
    server.start(listening)
    section = settings.registry
    log.info(
        "registry %s serves %s on %s, port %d; live state in %s",
        section.registry_id, "https" if tls is not None else "http", section.host, section.port, settings.mode,
        extra={"event": "registry_started"},
    )  # fmt: skip
    return Running(core, server, loop, clerk)


def _watch(running: Running, stop: Stop, keeper: Keeper, clock: Clock) -> int:
    """Tell the keeper how the threads are, until somebody asks to stop or the web server fails."""
    ready = False
    while not stop.wait(LOOK_S):
        if running.server.failed or not running.server.running:
            log.critical("the web server ended by itself", extra={"event": "server_failed"})
            return 1
        now_s = clock.monotonic_s()
        if now_s - running.core.loop.turned_s < STUCK_S and now_s - running.server.alive_s < STUCK_S:
            keeper.alive(now_s)
        if not ready and running.core.clerk.is_loaded:
            ready = True
            keeper.ready()
        keeper.looks(running.core)
    return 0


def _sentence(core: Assembled) -> str:
    stands = "leads" if core.loop.leads else f"follows {core.loop.leader or 'nobody'}"
    return "; ".join(text for text in (stands, core.loop.trouble, core.clerk.trouble) if text)


def _end(running: Running, keeper: Keeper) -> None:
    """Requests first, then the lead, so that another registry has it at once, then what is to be written."""
    keeper.stopping()
    running.server.stop()
    running.server.join(END_S)
    running.core.loop.close()
    running.loop.join(END_S)
    running.core.clerk.close()
    running.clerk.join(END_S)
    if running.loop.is_alive() or running.clerk.is_alive():
        # They hang in Redis or in the database; what they had to write the next audit finds.
        log.warning("ends with a thread that hangs", extra={"event": "end_forced"})
        return
    running.core.close()
    log.info("ended", extra={"event": "registry_ended"})
