"""Tiny workers that behave or misbehave by the name of their camera, and an agent made of them.

`python -m tests.support.workers CONFIG` is `nodeagent run` with these workers; the module is its own preload.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from nodeagent.contract.errors import ConfigError, Fault
from nodeagent.contract.report import Kind
from nodeagent.contract.states import State
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.worker import EXIT_FAILED, EXIT_FATAL, EXIT_OK, WorkerContext
from nodeagent.supervisor import daemon
from nodeagent.supervisor.kinds import KINDS, KindRow

#: What `child.server_faults` looks for in a preload.
LOADED = True
FAILED: dict[str, str] = {}

#: Silence after which these workers count as hanging, seconds: long enough for a busy machine.
HANG_S = 2.5
START_S = 4.0
BEAT_S = 0.05
#: How often the crashing worker crashes before it behaves.
CRASHES = 2

WORKER_KINDS = {
    kind: KindRow("tests.support.workers:main", START_S, HANG_S, row.drain_share) for kind, row in KINDS.items()
}


def main(ctx: WorkerContext, arg: str) -> int:
    """Behave as the first word of `arg` says; any other word means well."""
    starts = _count_start(ctx)
    ctx.cell.state(State.RUNNING)
    match arg.partition("-")[0]:
        case "fatal":
            ctx.cell.state(State.BAD_MODEL, "as ordered")
            return EXIT_FATAL
        case "misconfigured":
            raise ConfigError([Fault("database.url", "as ordered")])
        case "mute" if starts == 1:
            time.sleep(600)
        case "crash" if starts <= CRASHES:
            return EXIT_FAILED
        case "busy" if starts == 1:
            ctx.cell.beat()
            ctx.cell.ready()
            _busy_here()
        case "stubborn":
            _serve(ctx, leave=False)
    _serve(ctx, leave=True)
    _note(ctx, f"stopped {ctx.name}")
    return EXIT_OK


def _serve(ctx: WorkerContext, leave: bool) -> None:
    ctx.cell.beat()
    ctx.cell.ready()
    while not (leave and ctx.stop.wait(BEAT_S)):
        ctx.cell.beat()
        time.sleep(0 if leave else BEAT_S)


def _busy_here() -> None:
    while True:
        pass


def _count_start(ctx: WorkerContext) -> int:
    path = ctx.settings.node.state_dir / f"{ctx.name}.starts"
    starts = len(path.read_text()) + 1 if path.exists() else 1
    path.write_text("x" * starts)
    return starts


def _note(ctx: WorkerContext, line: str) -> None:
    # One write with O_APPEND: lines of several workers do not mix.
    fd = os.open(ctx.settings.node.state_dir / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


if __name__ == "__main__":
    config = Path(sys.argv[1])
    if os.environ.get("TEST_REDIS") == "real":
        WORKER_KINDS[Kind.REDIS] = KINDS[Kind.REDIS]
    if os.environ.get("TEST_LINK") == "real":
        WORKER_KINDS[Kind.LINK] = KINDS[Kind.LINK]
    preload = os.environ.get("TEST_PRELOAD", "tests.support.workers")
    sys.exit(daemon.supervise(load_settings(config), config, WORKER_KINDS, preload))
