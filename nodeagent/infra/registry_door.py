"""The options with which a command says which registries it asks, and how it ends when they do not do what it wants.

They are the same for `nodeagent cluster` and for the commands of `registry`, and so are the exit codes.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from pydantic import ValidationError

from nodeagent.contract.errors import ConfigError, Fault, Unavailable
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.registry_api import RegistryApi, RegistryRefuses
from nodeagent.infra.settings.faults import faults_of
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.registry import RegistrySettings

#: Where a registry listens when nobody says so.
DEFAULT_URL: Final = "http://127.0.0.1:8450"
#: Seconds that a registry has for its answer to a person: it may ask a database, and others wait there, too.
ANSWER_S: Final = 10.0
#: Environment variables in place of the options.
URL_VARIABLE, TOKEN_VARIABLE, CA_VARIABLE = "REGISTRY_URL", "REGISTRY_TOKEN_FILE", "REGISTRY_CA_FILE"
#: The one that names an agent's file, for all commands of `nodeagent` as well.
CONFIG_VARIABLE: Final = "NODEAGENT_CONFIG"

_OPTIONS: Final = {"urls": "--url", "token_file": "--token-file", "ca_file": "--ca-file"}
_FILE: Final = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Door:
    """What the options say of the registries; empty and None: nothing.

    Attributes:
        config: an agent's file, whose `[registry]` says what no other option does.
    """

    urls: tuple[str, ...]
    token_file: Path | None
    ca_file: Path | None
    config: Path | None = None

    def settings(self) -> RegistrySettings:
        """Which registries to ask, and with which token.

        Raises:
            ConfigError: an address is none, there is no token, or the file cannot be used.
        """
        configured = self._configured()
        given: dict[str, Any] = {name: getattr(self, name) for name in _OPTIONS if getattr(self, name)}
        if configured is None:
            given.setdefault("urls", (DEFAULT_URL,))
        else:
            names = ("urls", "ca_file") if "token_file" in given else ("urls", "ca_file", "token", "token_file")
            given = {name: getattr(configured, name) for name in names} | given
        if given.get("token") is None and given.get("token_file") is None:
            raise ConfigError([Fault("--token-file", f"required, or {TOKEN_VARIABLE}, but missing")])
        try:
            return RegistrySettings.model_validate(given)
        except ValidationError as exc:
            raise ConfigError(map(self._named, faults_of(exc.errors(include_url=False), RegistrySettings))) from None

    def _configured(self) -> RegistrySettings | None:
        """The agent's `[registry]`; none: the options say it all.  The file is not read then, it may be others' alone.

        Raises:
            ConfigError: the file has faults, or neither it nor an option says where a registry is.
        """
        if self.config is None or (self.urls and self.token_file is not None):
            return None
        door = load_settings(self.config).admin_door
        if door is None and not self.urls:
            raise ConfigError([Fault(str(self.config), "there is no [registry], so this node is alone; see --url")])
        return door

    @contextmanager
    def opened(self) -> Iterator[RegistryApi]:
        """The registries' API; what goes wrong with it inside the block ends the command, with one line that says why.

        Exit codes: 1 a registry refuses, 2 the options are faulty, 3 no registry answers.
        """
        try:
            with RegistryApi(self.settings(), SystemClock()) as api:
                yield api
        except ConfigError as exc:
            for fault in exc.faults:
                click.echo(str(self._named(fault)), err=True)
            sys.exit(ExitCode.USAGE)
        except RegistryRefuses as exc:
            click.echo("\n".join(refusal_lines(exc)), err=True)
            sys.exit(ExitCode.PROBLEMS)
        except Unavailable as exc:
            click.echo(str(exc), err=True)
            sys.exit(ExitCode.NOT_RUNNING)

    def _named(self, fault: Fault) -> Fault:
        """A fault of what an option gave carries the option's name."""
        field = fault.path.removeprefix("registry.").partition("[")[0]
        given = field in _OPTIONS and getattr(self, field)
        return Fault(_OPTIONS[field], fault.message, fault.value) if given else fault


def refusal_lines(refusal: RegistryRefuses) -> list[str]:
    """What a registry said no with: every faulty field where it names some, else its sentence."""
    if refusal.faults:
        return ["the registry refuses:", *(f"  {fault}" for fault in refusal.faults)]
    return [f"the registry refuses: {refusal.why or f'status {refusal.status}'}"]


def door_options(command: Callable[..., Any], usual: Path | None = None) -> Callable[..., Any]:
    """Give a command the options of a `Door`, passed as `door`; `usual` is the agent's file when none is named."""

    @functools.wraps(command)
    def run(
        *, urls: tuple[str, ...], token_file: Path | None, ca_file: Path | None, config: Path | None, **others: Any
    ) -> None:
        command(door=Door(urls, token_file, ca_file, config), **others)

    options = (
        click.option(
            "--url",
            "urls",
            multiple=True,
            envvar=URL_VARIABLE,
            show_envvar=True,
            help="A registry, such as https://reg1:8450; again for each further one, or with spaces in the variable.",
        ),
        click.option(
            "--token-file", type=_FILE, envvar=TOKEN_VARIABLE, show_envvar=True, help="File that holds your token."
        ),
        click.option("--ca-file", type=_FILE, envvar=CA_VARIABLE, show_envvar=True, help="Certificates to trust, PEM."),
        click.option(
            "-c",
            "--config",
            type=_FILE,
            default=usual,
            show_default=usual is not None,
            envvar=CONFIG_VARIABLE,
            show_envvar=True,
            help="An agent's TOML file; its [registry] says what no other option does.",
        ),
    )
    for option in reversed(options):
        run = option(run)
    return run
