"""What the command lines of `nodeagent` and `registry` share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import click

from nodeagent.contract.errors import ConfigError
from nodeagent.infra.exits import ExitCode

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Settings = TypeVar("_Settings")


class Commands(click.Group):
    """A group that imports a command when it is called.

    `table`: for each command where it is, as `module:name`, and its line in the help; `user`: who may read what the
    commands read, besides root.
    """

    def __init__(self, *, table: Mapping[str, tuple[str, str]], user: str, **options: Any) -> None:
        super().__init__(**options)
        self._table = table
        self._user = user

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; None: there is none."""
        if cmd_name not in self._table:
            return None
        module, _, name = self._table[cmd_name][0].partition(":")
        command = getattr(import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{name} is no command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except PermissionError as exc:
            # An ordinary user looked at the service's folders: no fault of the program.
            click.echo(f"{exc.filename or ctx.info_name}: {exc.strerror}; root and {self._user} may", err=True)
            ctx.exit(ExitCode.PROBLEMS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help's list, which imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._table.items()])


def config_option_of(default: Path, variable: str, whose: str) -> Callable[[_Command], _Command]:
    """What gives a command the option `-c/--config`, passed as `config: Path`.

    Args:
        default: the file without the option.
        variable: environment variable that names another one.
        whose: file it is, as in "The agent's".
    """
    return click.option(
        "-c",
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        default=default,
        envvar=variable,
        show_default=True,
        show_envvar=True,
        help=f"{whose} TOML file.",
    )


def settings_or_exit(config: Path, load: Callable[[Path], _Settings]) -> _Settings:
    """What `load` makes of a file; prints every fault and exits with USAGE when it has any."""
    try:
        return load(config)
    except ConfigError as exc:
        print_faults(config, exc)
        sys.exit(ExitCode.USAGE)


def print_faults(config: Path, error: ConfigError) -> None:
    """Write every fault to standard error, one a line."""
    number = len(error.faults)
    click.echo(f"{config}: {number} fault{'s' if number != 1 else ''}", err=True)
    for fault in error.faults:
        click.echo(f"  {fault}", err=True)
