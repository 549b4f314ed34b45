"""The option `-c`, shared by all commands, and the reading of the file behind it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nodeagent.contract.errors import ConfigError
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import Settings

#: Where the packages' service looks for its configuration.
DEFAULT_PATH = Path("/etc/nodeagent/nodeagent.toml")
#: Environment variable that names another file.
PATH_VARIABLE = "NODEAGENT_CONFIG"

_Command = TypeVar("_Command", bound=Callable[..., Any])


def config_option(command: _Command) -> _Command:
    """Give a command the option `-c/--config`, passed as `config: Path`."""
    option = click.option(
        "-c",
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        default=DEFAULT_PATH,
        envvar=PATH_VARIABLE,
        show_default=True,
        show_envvar=True,
        help="The agent's TOML file.",
    )
    return option(command)


def read_or_exit(config: Path) -> Settings:
    """The settings of a file; prints every fault and exits with USAGE when it has any."""
    try:
        return load_settings(config)
    except ConfigError as exc:
        print_faults(config, exc)
        sys.exit(ExitCode.USAGE)


def print_faults(config: Path, error: ConfigError) -> None:
    """Write every fault to standard error, one a line."""
    number = len(error.faults)
    click.echo(f"{config}: {number} fault{'s' if number != 1 else ''}", err=True)
    for fault in error.faults:
        click.echo(f"  {fault}", err=True)
