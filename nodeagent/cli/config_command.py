"""`nodeagent config`: check a file before it is used, or show what is in force."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel, SecretStr

from nodeagent.cli.config_files import missing_files, unmarked_disks
from nodeagent.cli.config_option import DEFAULT_PATH, config_option, read_or_exit
from nodeagent.cli.toml_text import toml_text
from nodeagent.contract.camera import redact_url
from nodeagent.contract.errors import ConfigError, Fault
from nodeagent.infra.commands import print_faults
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.registry_door import CONFIG_VARIABLE
from nodeagent.infra.settings.sections import Settings
from nodeagent.supervisor.daemon import check_machine


@click.group()
def config() -> None:
    """Check or show the configuration."""


@config.command()
@click.argument(
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_PATH,
    envvar=CONFIG_VARIABLE,
)
def check(file: Path) -> None:
    """Check FILE and the models and videos that it names; print every fault and exit with 2 when there is one.

    FILE is that of NODEAGENT_CONFIG, or /etc/nodeagent/nodeagent.toml, when left out.
    """
    settings = read_or_exit(file)
    faults = [*_machine_faults(settings), *missing_files(settings)]
    if faults:
        print_faults(file, ConfigError(faults))
        sys.exit(ExitCode.USAGE)
    for note in unmarked_disks(settings):
        click.echo(f"note: {note}")
    click.echo(f"{file}: well, {len(settings.cameras)} cameras, {sum(len(c.rules) for c in settings.cameras)} rules")


@config.command()
@config_option
def show(config: Path) -> None:
    """Print the configuration in force as TOML: defaults filled in, paths absolute, secrets hidden."""
    click.echo(toml_text(_plain(read_or_exit(config))), nl=False)


def _machine_faults(settings: Settings) -> tuple[Fault, ...]:
    """What `run` refuses on this machine, although the file alone is sound."""
    try:
        check_machine(settings)
    except ConfigError as exc:
        return exc.faults
    return ()


def _plain(value: Any, key: str = "") -> Any:
    """Models as dictionaries, secrets hidden; empty secrets stay empty, for that is no secret."""
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name), name) for name in type(value).model_fields}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        # By the key, not by the look: a password may begin with `/` or hold `://`.
        return redact_url(text) if key == "url" else "***" * bool(text)
    return value
