"""`nodeagent pool`: the disks of the storage pool, and how one is prepared, tried, added and retired."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from nodeagent.cli.config_option import config_option, read_or_exit
from nodeagent.cli.pool_change import add_to_file, reload_agent
from nodeagent.cli.pool_view import DiskRow, answered, checked, disk_row
from nodeagent.contract.errors import ConfigError, StorageUnavailable
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.commands import print_faults
from nodeagent.infra.disk_notes import DiskNotes
from nodeagent.infra.disks import Marker, init_pool, read_marker, write_marker
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.settings.sections import GIB, PoolSettings

_DISK = click.Path(file_okay=False, path_type=Path)


@click.group()
def pool() -> None:
    """The disks of the storage pool."""


@pool.command()
@click.argument("path", type=_DISK)
def init(path: Path) -> None:
    """Mark PATH as a disk of the pool.

    The agent writes only where it finds the mark, so a disk that is not mounted is noticed and its mount point is never
    filled.  Marking twice does no harm.
    """
    click.echo(f"{path}: pool {_marked(path)}")


def _marked(path: Path) -> str:
    try:
        return answered(lambda: init_pool(path))
    except (OSError, StorageUnavailable) as exc:
        click.echo(f"{path}: {exc}", err=True)
        sys.exit(ExitCode.PROBLEMS)


@pool.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="One document for programs; sizes in bytes.")
def list_(config: Path, as_json: bool) -> None:
    """Every disk: its mark, space, state and speed.  Exits with 1 when one is missing, aside, full or silent."""
    settings = read_or_exit(config)
    notes = DiskNotes(settings.node.state_dir)
    aside, sync_s = notes.aside(SystemClock().wall_ns()), notes.measured()
    rows = [disk_row(one, aside, sync_s) for one in settings.pools]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        Console().print(_table(rows))
        for row in rows:
            if row.why:
                click.echo(f"{row.path}: {row.state}: {row.why}")
    if any(row.state not in ("ok", "retired") for row in rows):
        sys.exit(ExitCode.PROBLEMS)


def _table(rows: list[DiskRow]) -> Table:
    table = Table("disk", "state", "used", "quota", "free", "reserve", "sync", "id", box=None)
    for row in rows:
        table.add_row(
            row.path,
            row.state,
            *(_gib(size) for size in (row.used, row.quota, row.free, row.reserve)),
            "-" if row.sync_ms is None else f"{row.sync_ms:.1f} ms",
            row.pool_id[:8] or "-",
        )
    return table


def _gib(size: int | None) -> str:
    return "-" if size is None else f"{size / GIB:.1f} GiB"


@pool.command()
@click.argument("paths", type=_DISK, nargs=-1, required=True, metavar="PATH...")
def check(paths: tuple[Path, ...]) -> None:
    """Try all that recording needs of each PATH: mark, write, sync, read back, rename, hard link.

    Writes 8 MB and removes them.  Exits with 1 when a disk has a fault, with one line for it.
    """
    failed = False
    for path in paths:
        try:
            faults, what = checked(path)
        except OSError as exc:
            faults, what = [exc.strerror or str(exc)], ""
        failed = failed or bool(faults)
        for fault in faults:
            click.echo(f"{path}: {fault}", err=True)
        if not faults:
            click.echo(f"{path}: ok, {what}")
    if failed:
        sys.exit(ExitCode.PROBLEMS)


@pool.command()
@config_option
@click.argument("path", type=_DISK)
@click.option("--quota-gb", type=float, default=None, help="Space that clips may take, GiB.")
@click.option("--reserve-gb", type=float, default=None, help="Space that stays free, GiB.")
def add(config: Path, path: Path, quota_gb: float | None, reserve_gb: float | None) -> None:
    """Mark PATH, add it to the TOML as a [[pool]], and have a running agent use it from the next clip on.

    A disk that was retired is taken into use again.
    """
    path = path.absolute()
    settings = read_or_exit(config)
    if (quota_gb, reserve_gb) != (None, None) and any(one.path == path for one in settings.pools):
        click.echo(f"{path}: is in {config} already: change its quota_gb and reserve_gb there", err=True)
        sys.exit(ExitCode.USAGE)
    limits = {"quota_gb": quota_gb, "reserve_gb": reserve_gb}
    try:
        wanted = PoolSettings(path=path, **{key: value for key, value in limits.items() if value is not None})
    except ValidationError as exc:
        fault = exc.errors()[0]
        click.echo(f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}", err=True)
        sys.exit(ExitCode.USAGE)
    identity = _marked(path)
    try:
        marker = answered(lambda: read_marker(path))
        if marker is not None and marker.retired:
            answered(lambda: write_marker(path, Marker(identity)))
        if all(one.path != path for one in settings.pools):
            add_to_file(config, settings, wanted)
    except ConfigError as exc:
        print_faults(config, exc)
        sys.exit(ExitCode.USAGE)
    except OSError as exc:
        click.echo(f"{exc.filename or path}: {exc.strerror or exc}", err=True)
        sys.exit(ExitCode.PROBLEMS)
    _told(path, reload_agent(settings.node.state_dir), f"pool {identity}, in {config}")


@pool.command()
@config_option
@click.argument("path", type=_DISK)
def retire(config: Path, path: Path) -> None:
    """Begin no new clip on PATH.  What it has stays readable and ages out; `pool list` says when it is empty.

    The mark on the disk keeps it, so it needs no reload; then remove its [[pool]] from the TOML and reload.
    """
    settings = read_or_exit(config)
    path = path.absolute()
    if all(one.path != path for one in settings.pools):
        click.echo(f"{path}: is no disk of {config}: {', '.join(str(one.path) for one in settings.pools)}", err=True)
        sys.exit(ExitCode.USAGE)
    try:
        marker = answered(lambda: read_marker(path))
        if marker is None:
            click.echo(f"{path}: has no mark, so nothing is written there", err=True)
            sys.exit(ExitCode.PROBLEMS)
        answered(lambda: write_marker(path, Marker(marker.pool_id, retired=True)))
    except OSError as exc:
        click.echo(f"{path}: {exc.strerror or exc}", err=True)
        sys.exit(ExitCode.PROBLEMS)
    click.echo(f"{path}: retired, takes no new clips from now on")


def _told(path: Path, running: bool, what: str) -> None:
    click.echo(f"{path}: {what}{'; the running agent takes it into use' if running else '; no agent is running'}")
