"""How commands show what the registries answer: as tables, as JSON, or as tables that are drawn anew every second."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError
from rich.console import Console, RenderableType

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import ID_PATTERN
from nodeagent.infra.registry_api import RegistryApi
from nodeagent.infra.registry_door import Door, door_options
from nodeagent.infra.watching import watch

_Found = TypeVar("_Found")
_Model = TypeVar("_Model", bound=BaseModel)


def name(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Callback of arguments and options that are the id of a camera or node, which becomes a part of an address."""
    if value is not None and not re.fullmatch(ID_PATTERN, value):
        raise click.BadParameter("expected letters, digits, `_`, `.` or `-`, a letter or digit first, at most 63")
    return value


@dataclass(frozen=True, slots=True)
class Showing:
    """The options of a command that shows something.

    Attributes:
        as_json: print what was answered, as it is.
        again: draw anew until Ctrl-C.
    """

    door: Door
    as_json: bool
    again: bool

    def show(self, ask: Callable[[RegistryApi], _Found], draw: Callable[[_Found], RenderableType]) -> None:
        """Ask and show; ends the command as `Door.opened` does.  What `ask` returns is JSON."""
        if self.again and self.as_json:
            raise click.UsageError("--watch and --json exclude each other")
        console = Console(highlight=False)
        with self.door.opened() as api:
            if self.as_json:
                click.echo(json.dumps(ask(api), indent=2))
            elif self.again:
                watch(lambda: draw(ask(api)), console)
            else:
                console.print(draw(ask(api)))


def showing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `Showing`, passed as `showing`."""

    @functools.wraps(command)
    def run(*, door: Door, as_json: bool, again: bool, **others: Any) -> None:
        command(showing=Showing(door, as_json, again), **others)

    run = click.option("--watch", "again", is_flag=True, help="Draw anew every second until Ctrl-C.")(run)
    return door_options(json_option(run))


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option `--json`, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON; times are UTC.")(command)


def read_as(kind: type[_Model], document: object) -> _Model:
    """A part of an answer as the model that the registry answers with.

    Raises:
        Unavailable: it is another one: a registry of another version.
    """
    try:
        return kind.model_validate(document)
    except ValidationError:
        raise Unavailable("the registry's answer cannot be read: it is of another version") from None
