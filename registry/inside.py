"""The child `registry`: a registry within the tree of an agent, for a site with one server.

The same service as `registry serve`, on the agent's own Redis and database, watched over by the agent's supervisor.
Besides, it makes the tokens of this machine, and takes the cameras of the agent's configuration that it never knew:
the supervisor leaves them in the state folder at its start and at every reload, and this process looks for them there.
Killed anywhere it begins anew from the database; captures do not notice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from sqlalchemy import Engine

from nodeagent.contract.errors import DecodeError, Unavailable
from nodeagent.contract.ids import CameraId
from nodeagent.contract.states import State
from nodeagent.infra.wanted import SEED, WantedFile
from nodeagent.infra.web.port import take_port
from nodeagent.infra.worker import EXIT_OK, WorkerContext
from registry.core.assembly import Assembled
from registry.http.server import BACKLOG
from registry.inside_settings import inside_settings
from registry.inside_tokens import renew_tokens
from registry.secrets import Vault
from registry.service import held, serve
from registry.settings import ServiceSettings
from registry.store.camera_writes import Writer
from registry.store.seeds import Seeded, seed
from registry.store.tokens import Tokens

log = logging.getLogger(__name__)

#: Seconds between two tries to write the file's cameras while the database does not take them.
SEED_AGAIN_S = 5.0
#: Seconds that writing cameras or tokens may take without a beat: a database that is busy, and thousands of cameras.
WRITE_ALLOW_S = 90.0
#: Cameras named in a line; the others are counted.
NAMED_MOST = 20
#: Who made a camera that the file brought, in its history.
BY = "configuration file"


def main(ctx: WorkerContext, _arg: str) -> int:
    """Serve until told to stop.

    Raises:
        ConfigError: the key file cannot be used.
        AlreadyRunning: another registry works on the folder.
        Unavailable: the folder cannot be used, or the database went away at a bad moment.
    """
    settings, section = inside_settings(ctx.settings), ctx.settings.registry
    if section is None:
        return EXIT_OK
    with held(settings.registry.state_dir):
        listening = take_port(ctx, "the registry", section.listen, BACKLOG)
        if listening is None:
            return EXIT_OK
        with listening:
            # Its exit codes are a worker's.
            return serve(settings, listening, ctx.stop, _Tree(ctx, settings), ctx.clock)


@dataclass(slots=True)
class _Tree:
    """The agent's tree as the registry's keeper (`service.Keeper`)."""

    ctx: WorkerContext
    settings: ServiceSettings
    seeds: Seeds | None = field(default=None)

    def alive(self, _now_s: float) -> None:
        self.ctx.cell.beat()

    def waits(self, why: str) -> None:
        self.ctx.cell.state(State.DATABASE_DOWN, why)

    def prepared(self, engine: Engine, vault: Vault) -> None:
        self.ctx.cell.beat(allow_s=WRITE_ALLOW_S)
        section = self.settings.registry
        renew_tokens(Tokens(engine), section.state_dir, section.registry_id, self.ctx.clock.wall_ns())
        self.seeds = Seeds(self.ctx, engine, vault)
        # Before anything serves: a camera that is captured already, and that the registry does not know, is let go.
        self.seeds.take()

    def ready(self) -> None:
        self.ctx.cell.ready()

    def looks(self, core: Assembled) -> None:
        if self.seeds is not None and (made := self.seeds.look()):
            core.desk.changed(made)
        cell = self.ctx.cell
        cell.set("cameras", len(core.office.catalogue.wanted))
        cell.set("nodes", len(core.office.site.shown))
        if core.loop.trouble:
            cell.state(State.REDIS_DOWN, core.loop.trouble)
        elif core.clerk.trouble:
            cell.state(State.DATABASE_DOWN, core.clerk.trouble)
        else:
            cell.state(State.RUNNING)

    def stopping(self) -> None:
        self.ctx.cell.state(State.DRAINING)


class Seeds:
    """The cameras of the agent's configuration, taken over whenever the supervisor has left new ones."""

    def __init__(self, ctx: WorkerContext, engine: Engine, vault: Vault) -> None:
        self._ctx = ctx
        self._engine = engine
        self._vault = vault
        self._file = WantedFile(ctx.settings.node.state_dir / SEED)
        self._is_new = False
        self._at_s = float("-inf")

    def look(self) -> tuple[CameraId, ...]:
        """As `take`, now and then; what cannot be written now is tried again."""
        now_s = self._ctx.clock.monotonic_s()
        if now_s < self._at_s:
            return ()
        try:
            return self.take()
        except Unavailable as exc:
            self._at_s = now_s + SEED_AGAIN_S
            log.error("the configuration's cameras wait: %s", exc, extra={"event": "seed_waits"})  # noqa: TRY400
            return ()

    def take(self) -> tuple[CameraId, ...]:
        """Write what is not known yet; returns which.

        Raises:
            Unavailable: the database is away.
        """
        try:
            self._is_new |= self._file.refresh()
            if not self._is_new:
                return ()
            self._ctx.cell.beat(allow_s=WRITE_ALLOW_S)
            done = seed(self._engine, self._vault, self._file.current.cameras, Writer(BY, self._ctx.clock.wall_ns()))
        except (DecodeError, OSError) as exc:
            # The supervisor's file, or a row that somebody else wrote: the same again would change nothing.
            log.error("the configuration's cameras cannot be taken: %s", exc, extra={"event": "seed_failed"})  # noqa: TRY400
            self._is_new = False
            return ()
        self._is_new = False
        _tell(done)
        return done.made


def _tell(done: Seeded) -> None:
    if done.made:
        log.info(
            "cameras of the configuration that the registry did not know: %s", _named(done.made),
            extra={"event": "seeded", "made": len(done.made)},
        )  # fmt: skip
    if done.differ or done.deleted:
        told = [("it has otherwise", done.differ), ("were deleted from it", done.deleted)]
        parts = "; ".join(f"{what}: {_named(names)}" for what, names in told if names)
        log.warning(
            "the registry counts, not the configuration, for cameras that %s; `registry import` takes the file's",
            parts,
            extra={"event": "seed_differs", "differ": len(done.differ), "deleted": len(done.deleted)},
        )  # fmt: skip
    for fault in done.faults:
        log.error("not taken into the registry: cameras.%s", fault, extra={"event": "seed_fault"})


def _named(names: tuple[str, ...]) -> str:
    more = len(names) - NAMED_MOST
    return ", ".join(names[:NAMED_MOST]) + (f" and {more} more" if more > 0 else "")
