"""`nodeagent alarms`: the alarms of the database, with what became of their pushes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from sqlalchemy import Engine

from nodeagent.cli.alarms_draw import card, table
from nodeagent.cli.config_option import config_option, read_or_exit
from nodeagent.contract.errors import AgentError
from nodeagent.infra.alarm_records import AlarmRow, list_alarms
from nodeagent.infra.alarm_records import show as find_alarm
from nodeagent.infra.database import open_database, sqlite_file
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.settings.sections import Settings

#: Seconds between two looks of `--follow`.
FOLLOW_EVERY_S = 1.0


@click.group(invoke_without_command=True)
@config_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many, newest first.")
@click.option("--camera", default=None, help="Only of this camera.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, times in UTC ns.")
@click.option("--follow", is_flag=True, help="Then print each new alarm and change of state until Ctrl-C.")
@click.pass_context
def alarms(context: click.Context, config: Path, limit: int, camera: str | None, as_json: bool, follow: bool) -> None:
    """List the latest alarms with state, replay and pushes; times are the site's."""
    settings = read_or_exit(config)
    context.obj = settings
    if context.invoked_subcommand is not None:
        return
    zone = ZoneInfo(settings.site.time_zone)
    with _database(settings) as engine:
        rows = list_alarms(engine, limit, camera) if engine else []
        _print(rows, zone, as_json)
        if follow and engine:
            _follow(engine, rows, limit, camera, zone, as_json)


@alarms.command()
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, times in UTC ns.")
@click.pass_obj
def show(settings: Settings, key: str, as_json: bool) -> None:
    """Show one alarm, named by its number or its key: times of every step, evidence, replay and every push."""
    with _database(settings) as engine:
        row = find_alarm(engine, int(key) if key.isdigit() and len(key) < 19 else key) if engine else None
    if row is None:
        click.echo(f"no alarm {key!r}", err=True)
        sys.exit(ExitCode.PROBLEMS)
    if as_json:
        click.echo(_json(row))
    else:
        Console().print(card(row, ZoneInfo(settings.site.time_zone)))


@contextmanager
def _database(settings: Settings) -> Iterator[Engine | None]:
    """The database; none when it is a file that the agent has not made yet.  Failures end the command."""
    try:
        file = sqlite_file(settings.database_url)
        # Opening it would make it, as the user who looks.
        if file is not None and not file.exists():
            click.echo(f"no database yet at {file}: the agent makes it at its first start", err=True)
            yield None
            return
        engine = open_database(settings.database_url)
        try:
            yield engine
        finally:
            engine.dispose()
    except AgentError as exc:
        click.echo(f"database: {exc}", err=True)
        sys.exit(ExitCode.PROBLEMS)
    except KeyboardInterrupt:
        sys.exit(ExitCode.OK)


def _follow(
    engine: Engine, first: list[AlarmRow], limit: int, camera: str | None, zone: ZoneInfo, as_json: bool
) -> None:
    seen = {row.id: row.state for row in first}
    while True:
        time.sleep(FOLLOW_EVERY_S)
        fresh = [row for row in list_alarms(engine, limit, camera) if seen.get(row.id) != row.state]
        if fresh:
            _print(fresh, zone, as_json)
            seen.update({row.id: row.state for row in fresh})


def _print(rows: list[AlarmRow], zone: ZoneInfo, as_json: bool) -> None:
    if as_json:
        for row in rows:
            click.echo(_json(row))
    else:
        Console().print(table(rows, zone))


def _json(row: AlarmRow) -> str:
    document = {name: getattr(row, name) for name in row.__dataclass_fields__}
    document["evidence"] = row.evidence.model_dump(mode="json")
    document["timings"] = dict(row.timings)
    document["pushes"] = [asdict(push) for push in row.pushes]
    return json.dumps(document)
