"""The first and last lines of every child: surroundings for the worker, and the worker's exit code for the supervisor.

A child must not outlive the supervisor.  Its parent is the fork server, so PR_SET_PDEATHSIG does not see the supervisor
die; a thread waits for the end of the pipe from the supervisor and leaves with `os._exit`, whatever the worker does.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType

from nodeagent.contract.errors import AgentError, ConfigError
from nodeagent.infra.board import Board
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.incarnation import BOARD, hold_life
from nodeagent.infra.logging import set_up_logging
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.stop import Stop
from nodeagent.infra.worker import EXIT_FAILED, EXIT_FATAL, WorkerContext
from nodeagent.supervisor.inbox import TAKEN

log = logging.getLogger(__name__)

#: Linux's `prctl` option for the name in `ps` and `top`, and the bytes that such a name has.
PR_SET_NAME = 15
COMM_BYTES = 15


@dataclass(frozen=True, slots=True)
class Order:
    """What the supervisor sends to a child; pickled through a pipe between the two and nowhere else.

    Attributes:
        name: `kind` or `kind:arg`.
        arg: what the worker's main gets.
        worker: `module:function`.
        settings: the whole configuration.
        memory_dir: this incarnation's folder on tmpfs.
        cell: index on the status board.
        preload: module that the fork server must have loaded.
    """

    name: str
    arg: str
    worker: str
    settings: Settings
    memory_dir: Path
    cell: int
    preload: str


def run(order: Order) -> None:
    """Be the child: never returns, exits with the worker's code."""
    sys.exit(_run(order))


def _run(order: Order) -> int:
    stop = Stop()
    _take_signals(stop)
    faults = server_faults(order.preload, sys.modules.get(order.preload), threads_of(os.getppid()))
    _name_process(order.name)
    set_up_logging(order.settings.log, order.name)
    _leave_with_supervisor()
    for fault in faults:
        log.error("fork server: %s", fault, extra={"event": "fork_server_unfit"})
    try:
        # Held for life: the next agent finds us by it should we outlive this one.
        hold_life(order.memory_dir)
        cell = Board.open(order.memory_dir / BOARD).cell(order.cell)
        ctx = WorkerContext(order.name, order.settings, cell, stop, SystemClock(), order.memory_dir)
        module, _, function = order.worker.partition(":")
        code: int = getattr(importlib.import_module(module), function)(ctx, order.arg)
    except ConfigError as exc:
        # Its text names the fault and is made for people; a restart does not mend it.
        log.error("cannot serve: %s", exc, extra={"event": "worker_failed"})  # noqa: TRY400
        return EXIT_FATAL
    except AgentError:
        log.exception("cannot serve", extra={"event": "worker_failed"})
        return EXIT_FAILED
    except Exception:
        # The outermost line of a child: the supervisor starts it again, with back-off.
        log.exception("unforeseen error", extra={"event": "worker_failed"})
        return EXIT_FAILED
    return code


def server_faults(name: str, preload: ModuleType | None, threads: int) -> list[str]:
    """What is wrong with the fork server that this child comes from.

    Args:
        name: the module that it should have loaded, and `preload`, what it has under this name.
        threads: how many threads it has; forking a process with more than one may leave a lock taken for ever.
    """
    faults = []
    if preload is None or not getattr(preload, "LOADED", False):
        faults.append(f"{name} is not loaded")
    failed: dict[str, str] = getattr(preload, "FAILED", {})
    faults += [f"{module} could not be loaded: {why}" for module, why in failed.items()]
    if threads > 1:
        faults.append(f"{threads} threads, expected 1")
    return faults


def threads_of(pid: int) -> int:
    """How many threads a process has; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.partition("\nThreads:")[2].split(maxsplit=1)[0])


def _take_signals(stop: Stop) -> None:
    def on_term(_number: int, _frame: FrameType | None) -> None:
        stop.request()

    signal.signal(signal.SIGTERM, on_term)
    # Ctrl-C and the end of a terminal reach the whole group; what to do about them is the supervisor's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # The fork server had them blocked (`shield`): one that came meanwhile is acted on here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TAKEN)
    # SIGABRT and crashes in native code: tracebacks of all threads, also when the interpreter is stuck.
    faulthandler.enable(all_threads=True)
    # A core would hold pictures and passwords.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _name_process(name: str) -> None:
    # The whole id does not fit; its end tells cameras apart better than its start.
    kind, _, arg = name.partition(":")
    room = COMM_BYTES - len(kind) - 1
    short = f"{kind}:{arg[-room:]}" if arg and room > 0 else kind
    ctypes.CDLL(None).prctl(PR_SET_NAME, short.encode()[:COMM_BYTES], 0, 0, 0)


def _leave_with_supervisor() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(EXIT_FAILED)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
