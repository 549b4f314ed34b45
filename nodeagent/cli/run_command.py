"""`nodeagent run`: the daemon in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nodeagent.cli.config_option import config_option, read_or_exit
from nodeagent.supervisor import daemon


@click.command()
@config_option
def run(config: Path) -> None:
    """Run the agent in the foreground; systemd starts it so.

    TERM and INT drain and stop it.  HUP reads the file again and starts, stops or changes only the cameras that differ;
    a faulty file changes nothing.
    """
    settings = read_or_exit(config)
    sys.exit(daemon.run(settings, config.resolve()))
