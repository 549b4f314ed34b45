"""`nodeagent run`: the daemon in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nodeagent.cli.config_option import config_option, read_or_exit
from nodeagent.contract.errors import ConfigError
from nodeagent.infra.commands import print_faults
from nodeagent.infra.exits import ExitCode
from nodeagent.supervisor import daemon


@click.command()
@config_option
def run(config: Path) -> None:
    """Run the agent in the foreground; systemd starts it so.

    TERM and INT drain and stop it.  HUP reads the file again and starts, stops or changes only the cameras that differ;
    a faulty file changes nothing.

    Exit code: 0 drained, 1 not every child drained, 2 faulty configuration, 4 another agent works on the state folder.
    """
    settings = read_or_exit(config)
    try:
        code = daemon.run(settings, config.resolve())
    except ConfigError as exc:
        # What only shows on this machine, such as a state folder whose path is too long for a socket.
        print_faults(config, exc)
        code = ExitCode.USAGE
    sys.exit(code)
