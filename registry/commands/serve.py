"""`registry serve`: the service in the foreground."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from nodeagent.contract.errors import ConfigError, Unavailable
from nodeagent.infra.commands import print_faults, settings_or_exit
from nodeagent.infra.exits import ExitCode
from registry import service
from registry.commands.config_file import config_option
from registry.settings import load_registry_settings


@click.command()
@config_option
def serve(config: Path) -> None:
    """Run the registry in the foreground; systemd starts it so.

    TERM and INT end it; another registry leads at once.  A change of the file takes effect at the next start, which no
    agent notices.

    Exit code: 0 ended as asked, 1 it could not go on, 2 faulty configuration, 4 another registry works on the state
    folder.
    """
    # One that runs within an agent's tree is the agent's to start.
    settings = settings_or_exit(config, load_registry_settings)
    try:
        code = service.run(settings, os.environ)
    except ConfigError as exc:
        print_faults(config, exc)
        code = ExitCode.USAGE
    except service.AlreadyRunning as exc:
        click.echo(str(exc), err=True)
        code = ExitCode.ALREADY_RUNNING
    except Unavailable as exc:
        click.echo(str(exc), err=True)
        code = ExitCode.PROBLEMS
    sys.exit(code)
