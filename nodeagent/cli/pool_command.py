"""`nodeagent pool`: prepare disks of the storage pool."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nodeagent.cli.exits import ExitCode
from nodeagent.contract.errors import StorageUnavailable
from nodeagent.infra.storage import init_pool


@click.group()
def pool() -> None:
    """Prepare disks of the storage pool."""


@pool.command()
@click.argument("path", type=click.Path(file_okay=False, path_type=Path))
def init(path: Path) -> None:
    """Mark PATH as a disk of the pool.

    The agent writes only where it finds the mark, so a disk that is not mounted is noticed and its mount point is never
    filled.  Marking twice does no harm.
    """
    try:
        identity = init_pool(path)
    except (OSError, StorageUnavailable) as exc:
        click.echo(f"{path}: {exc}", err=True)
        sys.exit(ExitCode.PROBLEMS)
    click.echo(f"{path}: pool {identity}")
