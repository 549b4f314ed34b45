"""How commands show what the registries answer: a table, JSON, or a table that is drawn anew every second."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from nodeagent.contract.errors import AgentError
from registry.commands.config_file import ExitCode
from registry.commands.remote import Remote, remote_options

#: Seconds between two pages of `--watch`.
WATCH_S = 1.0

#: What an answer holds.
Found = Any
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Asked:
    """The options of a command that shows something, and what it does with them."""

    def __init__(
        self,
        urls: tuple[str, ...],
        token: str | None,
        token_file: Path | None,
        ca_file: Path | None,
        as_json: bool,
        watch: bool,
    ) -> None:
        self._remote = (urls, token, token_file, ca_file)
        self._as_json, self._watch = as_json, watch

    def show(self, ask: Callable[[Remote], Found], draw: Callable[[Found], RenderableType]) -> None:
        """Ask and show; exits with PROBLEMS when no registry answers."""
        if self._watch and self._as_json:
            raise click.UsageError("--watch and --json exclude each other")
        try:
            with Remote(*self._remote) as remote:
                if self._watch:
                    self._repeat(remote, ask, draw)
                elif self._as_json:
                    click.echo(json.dumps(ask(remote), indent=2, ensure_ascii=False))
                else:
                    Console(highlight=False).print(draw(ask(remote)))
        except AgentError as exc:
            click.echo(str(exc), err=True)
            sys.exit(ExitCode.PROBLEMS)

    def _repeat(self, remote: Remote, ask: Callable[[Remote], Found], draw: Callable[[Found], RenderableType]) -> None:
        page: RenderableType = ""
        with Live(console=Console(highlight=False), screen=sys.stdout.isatty(), auto_refresh=False) as live:
            while True:
                try:
                    page = draw(ask(remote))
                    live.update(page, refresh=True)
                except AgentError as exc:
                    # What was seen last stays, with the reason why it is old.
                    live.update(Group(page, Text(str(exc), style="bold red")), refresh=True)
                try:
                    time.sleep(WATCH_S)
                except KeyboardInterrupt:
                    return


def showing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `Asked`, passed as `asked`."""

    def run(
        urls: tuple[str, ...],
        token: str | None,
        token_file: Path | None,
        ca_file: Path | None,
        as_json: bool,
        watch: bool,
        **others: Any,
    ) -> None:
        command(asked=Asked(urls, token, token_file, ca_file, as_json, watch), **others)

    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    run.__dict__.update(command.__dict__)
    watched = click.option("--watch", is_flag=True, help="Draw anew every second until Ctrl-C.")(run)
    plain = click.option("--json", "as_json", is_flag=True, help="Print JSON.")(watched)
    return remote_options(plain)
