"""`registry import`: cameras out of a TOML file, such as an agent's, into the registry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import tomli

from nodeagent.contract.errors import AgentError, ConfigError, Fault
from registry.commands.config_file import ExitCode, print_faults
from registry.commands.remote import Remote, remote_options

#: What a camera has in the registry beside its configuration.
BESIDE = ("enabled", "group", "labels")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace cameras that are there and differ.")
@remote_options
def bring_in(
    file: Path,
    overwrite: bool,
    urls: tuple[str, ...],
    token: str | None,
    token_file: Path | None,
    ca_file: Path | None,
) -> None:
    """Write the `[[cameras]]` of FILE into the registry: all of them or none.

    The tables are those of an agent's configuration; each may also have `enabled`, `group` and `labels`.

    Exit code: 0 written, 1 refused, or no registry answered, 2 the file is faulty.
    """
    try:
        cameras = _cameras(file)
    except ConfigError as exc:
        print_faults(file, exc)
        sys.exit(ExitCode.USAGE)
    try:
        with Remote(urls, token, token_file, ca_file) as remote:
            done = remote.post("import", {"cameras": cameras, "overwrite": overwrite})
    except AgentError as exc:
        click.echo(str(exc), err=True)
        sys.exit(ExitCode.PROBLEMS)
    click.echo(f"{done['made']} cameras made, {done['changed']} changed, {done['same']} as they were")


def _cameras(file: Path) -> list[dict[str, Any]]:
    try:
        doc = tomli.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as exc:
        raise ConfigError([Fault(str(file), f"cannot be read: {exc.strerror}")]) from None
    except (UnicodeDecodeError, tomli.TOMLDecodeError) as exc:
        raise ConfigError([Fault(str(file), f"not TOML: {exc}")]) from None
    tables = doc.get("cameras")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError([Fault("cameras", "expected [[cameras]]")])
    return [_draft(table) for table in tables]


def _draft(table: dict[str, Any]) -> dict[str, Any]:
    beside = {name: table[name] for name in BESIDE if name in table}
    return {"spec": {name: value for name, value in table.items() if name not in BESIDE}, **beside}
