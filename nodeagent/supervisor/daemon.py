"""`nodeagent run`: puts the real parts together, runs the loop, and leaves nothing behind.

The order, and what a kill -9 between two steps leaves: state folder locked (nothing), old life swept and a new folder
made (swept by the next start), board made and noted (a board without children), children (they leave with us).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from nodeagent.contract.errors import ConfigError, Fault, Unavailable
from nodeagent.contract.report import Kind
from nodeagent.infra.board import Board
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.incarnation import AgentLock, AlreadyRunning, Incarnation, lock_state_dir, start_life
from nodeagent.infra.logging import set_up_logging
from nodeagent.infra.open_files import raise_limit
from nodeagent.infra.sd_notify import Notifier
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.worker import EXIT_FAILED
from nodeagent.supervisor.cameras import CameraSource, RegistryCameras, TomlCameras
from nodeagent.supervisor.children import Children
from nodeagent.supervisor.forkserver import Starter, keep_socket_in
from nodeagent.supervisor.inbox import Inbox
from nodeagent.supervisor.kinds import KINDS, KindRow
from nodeagent.supervisor.loop import Loop
from nodeagent.supervisor.orders import OrderMaker

log = logging.getLogger(__name__)

#: Exit code when another agent works on the same state folder.
EXIT_ALREADY_RUNNING = 4
#: Bytes in the path of the embedded Redis's socket.  The kernel takes 107; some clients count differently.
SOCKET_PATH_MAX = 100
#: Module that the fork server loads before its first fork.
PRELOAD = "nodeagent.supervisor.preload"


def run(settings: Settings, config_path: Path) -> int:
    """Be the agent until TERM or INT; return its exit code: 0 drained, 1 not all, 4 another agent is here already.

    Raises:
        ConfigError: the configuration cannot serve on this machine.
    """
    return supervise(settings, config_path, KINDS, PRELOAD)


def supervise(settings: Settings, config_path: Path, kinds: Mapping[Kind, KindRow], preload: str) -> int:
    """As `run`, with other workers."""
    set_up_logging(settings.log, "agent")
    check_machine(settings)
    raise_limit()
    try:
        lock = lock_state_dir(settings.node.state_dir)
    except AlreadyRunning as exc:
        log.error("%s", exc, extra={"event": "already_running"})  # noqa: TRY400  (one clear line)
        return EXIT_ALREADY_RUNNING
    except Unavailable as exc:
        log.error("%s", exc, extra={"event": "cannot_start"})  # noqa: TRY400  (one clear line)
        return EXIT_FAILED
    try:
        return _with_life(settings, config_path, kinds, preload, lock)
    except (Unavailable, OSError) as exc:
        log.error("%s", exc, extra={"event": "cannot_start"})  # noqa: TRY400  (one clear line)
        return EXIT_FAILED
    finally:
        lock.release()


def check_machine(settings: Settings) -> None:
    """Find faults that the file alone does not show.

    Raises:
        ConfigError: the path of the embedded Redis's socket is longer than the kernel takes.
    """
    path = settings.redis_url.removeprefix("unix://")
    if settings.embedded_redis and len(os.fsencode(path)) > SOCKET_PATH_MAX:
        room = SOCKET_PATH_MAX - len("/redis/redis.sock")
        fault = Fault(
            "node.state_dir", f"expected at most {room} bytes: a socket lies in it", repr(str(settings.node.state_dir))
        )
        raise ConfigError([fault])


def _with_life(
    settings: Settings, config_path: Path, kinds: Mapping[Kind, KindRow], preload: str, lock: AgentLock
) -> int:
    clock = SystemClock()
    # Before anything that takes time: a TERM from here on is a drain.
    inbox = Inbox()
    notifier = Notifier(os.environ)
    starter = Starter(preload)
    life = start_life(lock)
    keep_socket_in(life.path)
    children: Children | None = None
    try:
        children, orders = _children(settings, kinds, starter, life, clock)
        lock.note(life.path.name)
        source: CameraSource = (
            TomlCameras(config_path, settings)
            if settings.registry is None
            else RegistryCameras(config_path, settings, life.path, clock.wall_ns())
        )
        return Loop(settings, source, children, starter, orders, kinds, inbox, notifier, clock).run()
    finally:
        if children is not None:
            children.end()
        starter.close()
        life.remove()
        notifier.close()
        inbox.close()


def _children(
    settings: Settings, kinds: Mapping[Kind, KindRow], starter: Starter, life: Incarnation, clock: SystemClock
) -> tuple[Children, OrderMaker]:
    board = Board.create(life.board_path, settings.node.node_id, os.getpid(), clock.wall_ns())
    orders = OrderMaker(settings, life.path, starter.preload)
    return Children(board, starter, orders, kinds, clock), orders
