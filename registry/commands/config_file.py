"""The option `-c`, the reading of the file behind it, and the exit codes: the same for all commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import click

from nodeagent.contract.errors import ConfigError
from registry.settings import DEFAULT_PATH, PATH_VARIABLE, ServiceSettings, load_registry_settings

_Command = TypeVar("_Command", bound=Callable[..., Any])


class ExitCode(IntEnum):
    """What a command tells the shell; the numbers are those of `nodeagent`."""

    #: Done.
    OK = 0
    #: Not done; the message says why.
    PROBLEMS = 1
    #: The configuration or the command line is wrong; every fault was printed.
    USAGE = 2
    #: `serve`: another registry works on this state folder.
    ALREADY_RUNNING = 4


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
        help="The registry's TOML file.",
    )
    return option(command)


def read_or_exit(config: Path) -> ServiceSettings:
    """The settings of a file; prints every fault and exits with USAGE when it has any."""
    try:
        return load_registry_settings(config)
    except ConfigError as exc:
        print_faults(config, exc)
        sys.exit(ExitCode.USAGE)


def print_faults(config: Path, error: ConfigError) -> None:
    """Write every fault to standard error, one a line."""
    number = len(error.faults)
    click.echo(f"{config}: {number} fault{'s' if number != 1 else ''}", err=True)
    for fault in error.faults:
        click.echo(f"  {fault}", err=True)
