"""`nodeagent rules`: the rules of the cameras of this node, and by which of them its judge really judges."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nodeagent.cli.config_option import config_option, read_or_exit
from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import DecodeError
from nodeagent.infra.applied import Applied, applied_path, read_applied, version_of
from nodeagent.infra.bus.topology import shard_of
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.times import local_time
from nodeagent.infra.wanted import read_wanted


@dataclass(frozen=True, slots=True)
class RuleLine:
    """One rule of one camera.

    Attributes:
        version: of the rule as it should be judged; empty: the judge has a rule that should be gone.
        applied: of the rule that the judge judges by; empty: it does not judge by it.
        since_ns: wall clock since when the judge has its rules; none: it never judged.
    """

    camera_id: str
    rule_id: str
    kind: str
    severity: str
    places: tuple[str, ...]
    shadow: bool
    version: str
    applied: str
    since_ns: int | None

    @property
    def is_applied(self) -> bool:
        """Whether the judge judges as it should."""
        return self.version == self.applied


@click.command()
@config_option
@click.option("--camera", default=None, help="Only of this camera.")
@click.option("--applied", is_flag=True, help="Exit code 1 when a judge judges by other rules than it should.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, times in UTC ns.")
def rules(config: Path, camera: str | None, applied: bool, as_json: bool) -> None:
    """List the rules of this node's cameras with the version that is wanted and the one that the judge has."""
    settings = read_or_exit(config)
    try:
        lines = [line for line in _lines(settings) if camera in (None, line.camera_id)]
    except PermissionError as exc:
        click.echo(f"{exc.filename}: only its owner may read it; run as the agent's user or root", err=True)
        sys.exit(ExitCode.PROBLEMS)
    except DecodeError as exc:
        click.echo(exc.why, err=True)
        sys.exit(ExitCode.PROBLEMS)
    if as_json:
        for line in lines:
            click.echo(json.dumps(asdict(line), ensure_ascii=False))
    else:
        Console().print(_table(lines, ZoneInfo(settings.site.time_zone)))
    if applied and not all(line.is_applied for line in lines):
        sys.exit(ExitCode.PROBLEMS)


def _lines(settings: Settings) -> Iterator[RuleLine]:
    """The rules that are wanted, and those that a judge has though they are not."""
    wanted = read_wanted(settings.node.state_dir / "wanted.json")
    # Before the first start there is none, and the file's own cameras are those that will be wanted.
    cameras = wanted.cameras if wanted.version else settings.cameras
    judges = [_applied(settings, shard) for shard in range(settings.judge.shards)]
    for spec in sorted(cameras, key=lambda one: one.camera_id):
        judge = judges[shard_of(spec.camera_id, settings.judge.shards)]
        yield from _of_camera(spec, judge)


def _of_camera(spec: CameraSpec, judge: Applied | None) -> Iterator[RuleLine]:
    has = dict(judge.cameras.get(spec.camera_id, {})) if judge else {}
    since_ns = judge.since_ns if judge else None
    for rule in spec.rules:
        yield RuleLine(
            spec.camera_id,
            rule.rule_id,
            rule.kind,
            rule.severity,
            tuple(place.name for place in rule.places),
            rule.shadow,
            version_of(rule),
            has.pop(rule.rule_id, ""),
            since_ns,
        )
    for rule_id, version in has.items():
        yield RuleLine(spec.camera_id, rule_id, "", "", (), False, "", version, since_ns)


def _applied(settings: Settings, shard: int) -> Applied | None:
    try:
        return read_applied(applied_path(settings.node.state_dir, shard))
    except FileNotFoundError:
        return None


def _table(lines: list[RuleLine], zone: ZoneInfo) -> Table:
    drawn = Table(title=f"{len(lines)} rules, times {zone.key}", title_justify="left")
    for name in ("camera", "rule", "kind", "severity", "places", "version", "the judge has", "since"):
        drawn.add_column(name, overflow="fold")
    for line in lines:
        kind = f"{line.kind}, shadow" if line.shadow else line.kind
        drawn.add_row(
            Text(line.camera_id),
            Text(line.rule_id),
            kind,
            line.severity,
            Text(", ".join(line.places)),
            line.version or "none",
            Text(
                "the same" if line.is_applied else line.applied or "none", style="" if line.is_applied else "bold red"
            ),
            "never" if line.since_ns is None else local_time(line.since_ns, zone),
        )
    return drawn
