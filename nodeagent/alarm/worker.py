"""The alarm stage's process: puts the parts together and runs the desk's loop."""

from __future__ import annotations

import logging
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from nodeagent.alarm.desk import AlarmDesk
from nodeagent.alarm.replay import ReplayMaker
from nodeagent.alarm.steps import Checkpoint, go_on
from nodeagent.alarm.store import AlarmStore
from nodeagent.alarm.work import AlarmWork
from nodeagent.contract.errors import ConfigError, DecodeError, Unavailable
from nodeagent.contract.states import State
from nodeagent.infra.bus.aside import watch_aside
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.topology import ALARMS
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.storage import follow_storage
from nodeagent.infra.wanted import WantedFile
from nodeagent.infra.worker import EXIT_FATAL, EXIT_OK, WorkerContext

log = logging.getLogger(__name__)

#: Alarms in hand at a time: each waits half a minute for its replay, so this is about four a second.
PREFETCH = 256
#: Longest wait for a message in one turn, seconds: waiting alarms are looked at twice a second.
TURN_S = 0.2
#: Pause while database or broker are away at the start, seconds.
START_PAUSE_S = 0.5
#: The first statement on a new database makes its tables, and another process may be at it, seconds.
MIGRATE_S = 90.0
#: Part of the node's time to stop that running steps get to end.
DRAIN_PART = 0.6
#: Pause between two looks at the cameras' names, seconds.
NAMES_S = 1.0


def main(ctx: WorkerContext, arg: str) -> int:
    """Run alarm worker `arg` (its number) until told to stop; return the exit code."""
    engine = open_database(ctx.settings.database_url)
    bus = open_bus(ctx.settings)
    watch_aside(ctx, bus, ALARMS)
    try:
        return serve(ctx, arg, engine, bus, go_on)
    finally:
        # Closing gives every unacknowledged message back.
        bus.close()
        engine.dispose()


def serve(ctx: WorkerContext, arg: str, engine: Engine, bus: Bus, checkpoint: Checkpoint) -> int:
    """As `main`, with the parts given; `checkpoint` is told of each step."""
    try:
        if not _prepared(ctx, engine, bus):
            return EXIT_OK
    except ConfigError as exc:
        log.error("%s", exc, extra={"event": "config_fault"})  # noqa: TRY400  (the text says it all)
        ctx.cell.state(State.BUS_DOWN, str(exc))
        return EXIT_FATAL
    desk = build_desk(ctx, arg, engine, bus, checkpoint)
    names = WantedFile(ctx.wanted_path)
    names_due_s = 0.0
    bus.consume(ALARMS, PREFETCH)
    ctx.cell.ready()
    while not ctx.stop.requested:
        if ctx.clock.monotonic_s() >= names_due_s:
            _refresh(names, desk)
            names_due_s = ctx.clock.monotonic_s() + NAMES_S
        desk.turn(TURN_S)
    # The judges have ended by now: what they sent last is recorded, so that it is seen while the agent is down.
    desk.turn(TURN_S)
    ctx.cell.state(State.DRAINING)
    desk.drain(ctx.clock.monotonic_s() + ctx.settings.node.stop_timeout_s * DRAIN_PART)
    return EXIT_OK


def _prepared(ctx: WorkerContext, engine: Engine, bus: Bus) -> bool:
    """Tables made and queues declared, however long their servers are away; False when told to stop meanwhile."""
    tables = queues = False
    while not ctx.stop.requested and not (tables and queues):
        ctx.cell.beat(allow_s=MIGRATE_S)
        try:
            if not tables:
                migrate(engine)
                tables = True
        except Unavailable as exc:
            ctx.cell.state(State.DATABASE_DOWN, str(exc))
        try:
            if not queues:
                bus.declare()
                queues = True
        except Unavailable as exc:
            if tables:
                ctx.cell.state(State.BUS_DOWN, str(exc))
        if not (tables and queues):
            ctx.stop.wait(START_PAUSE_S)
    return tables and queues


def build_desk(ctx: WorkerContext, arg: str, engine: Engine, bus: Bus, checkpoint: Checkpoint) -> AlarmDesk:
    """The desk of alarm worker `arg` on these parts."""
    settings = ctx.settings
    # The same after a restart: the successor of a killed worker owns its claims at once.
    worker = f"{settings.node.node_id}/alarm:{arg}"
    zone = ZoneInfo(settings.site.time_zone)
    store = AlarmStore(engine, worker)
    maker = ReplayMaker(settings.evidence_dir, worker, zone, checkpoint)
    work = AlarmWork(store, maker, settings.push, (settings.site.name, zone), ctx.clock, checkpoint)
    return AlarmDesk(
        node_id=settings.node.node_id,
        bus=bus,
        store=store,
        storage=follow_storage(settings),
        work=work,
        pause=ctx.stop.wait,
        cell=ctx.cell,
        clock=ctx.clock,
        patience_s=settings.alarm.replay_patience_s,
        checkpoint=checkpoint,
    )


def _refresh(names: WantedFile, desk: AlarmDesk) -> None:
    try:
        if names.refresh():
            desk.camera_names = {camera.camera_id: camera.name for camera in names.current.cameras}
    except DecodeError as exc:
        log.warning("%s; the names known before stay", exc, extra={"event": "wanted_unreadable"})
