"""Puts a disk into the agent's TOML and tells a running agent.

A `[[pool]]` block is added at the file's end, which is always right in TOML; all that stands there stays as it is,
comments and secrets too.  What the result would mean is read before the file is replaced.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from pathlib import Path

from nodeagent import __version__
from nodeagent.cli.toml_text import toml_text
from nodeagent.contract.errors import AgentError, ConfigError, Fault
from nodeagent.infra.board import Board
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.files import sync_file, sync_folder
from nodeagent.infra.incarnation import live_board_path
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import PoolSettings, Settings


def add_to_file(config: Path, settings: Settings, pool: PoolSettings) -> None:
    """Add a disk to the file.

    Raises:
        ConfigError: the file would have a fault with it; nothing was changed.
        OSError: the file cannot be replaced.
    """
    # Without a block the folder in the state folder is the pool: named now, or its clips would be left behind.
    added = [*(() if settings.pool else settings.pools), pool]
    text = config.read_text()
    blocks = toml_text({"pool": [one.model_dump(mode="json") for one in added]})
    body = f"{text.rstrip()}\n\n{blocks}".encode()
    info = config.stat()
    fd, name = tempfile.mkstemp(prefix=f".{config.name}.", suffix=".toml", dir=config.parent)
    beside = Path(name)
    try:
        with os.fdopen(fd, "wb") as out:
            os.fchmod(fd, info.st_mode & 0o7777)
            if (info.st_uid, info.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(fd, info.st_uid, info.st_gid)
            out.write(body)
            out.flush()
            sync_file(fd)
        if load_settings(beside).pools != (*settings.pools, pool):
            raise ConfigError([Fault("pool", "expected [[pool]] blocks, to which one can be added", "another form")])
        beside.replace(config)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(config.parent)


def reload_agent(state_dir: Path) -> bool:
    """Have a running agent read its file again; False when none runs on this state folder."""
    path = live_board_path(state_dir)
    if path is None:
        return False
    try:
        report = Board.open(path).report(SystemClock().monotonic_s(), __version__, socket.gethostname())
        os.kill(report.agent_pid, signal.SIGHUP)
    except (AgentError, FileNotFoundError, ProcessLookupError):
        return False
    return True
