"""`nodeagent clips`: what is recorded, read from the pool's own directories, and what is not, from the gap ledger."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nodeagent.cli.clips_verify import Wanted, show
from nodeagent.cli.clips_verify import verify as verified
from nodeagent.cli.config_option import config_option, read_or_exit
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.gaps import Gap, read_gaps
from nodeagent.infra.storage import Storage, StoredClip
from nodeagent.infra.times import local_time, parse_time

#: Where a listing begins and ends when nothing is said, as a person would write it.
DEFAULT_FROM, DEFAULT_TO = "1h", "0s"
#: Later than any capture, UTC ns.
LAST_NS = 2**62


@click.command()
@config_option
@click.option("--camera", default=None, help="Only this camera.")
@click.option(
    "--from",
    "start",
    default=None,
    help="`2026-11-24 08:30`, `08:30`, or `10m` ago.  Left out: an hour ago; with --verify from the oldest clip on.",
)
@click.option("--to", "end", default=DEFAULT_TO, help="The same; now when left out.")
@click.option("--gaps", is_flag=True, help="What was not recorded, and why, instead.")
@click.option("--verify", is_flag=True, help="Whether recorded time and gaps add up to wall time; exit code 1 if not.")
@click.option("--decode", is_flag=True, help="With --verify: also decode every clip.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, times in UTC ns.")
def clips(
    config: Path,
    camera: str | None,
    start: str | None,
    end: str,
    gaps: bool,
    verify: bool,
    decode: bool,
    as_json: bool,
) -> None:
    """List recorded clips that overlap a time span, oldest first; times are the site's."""
    if decode and not verify:
        raise click.UsageError("--decode goes with --verify")
    settings = read_or_exit(config)
    zone, now_ns = ZoneInfo(settings.site.time_zone), SystemClock().wall_ns()
    try:
        to_ns = parse_time(end, zone, now_ns)
        from_ns = parse_time(start or DEFAULT_FROM, zone, now_ns)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    _expect_readable([settings.node.state_dir, *(pool.path for pool in settings.pools)])
    storage = Storage(settings.pools)
    cameras = [camera] if camera else sorted({*storage.cameras(), *(c.camera_id for c in settings.cameras)})
    if verify:
        # Capture times run ahead of a clock that was set back: all that is there, unless somebody named an end.
        wanted = Wanted(from_ns if start else None, LAST_NS if end == DEFAULT_TO else to_ns)
        done = list(verified(settings, cameras, wanted, zone, decode=decode))
        show(done, settings, zone, now_ns, as_json=as_json)
        raise click.exceptions.Exit(ExitCode.OK if all(one.well for one in done) else ExitCode.PROBLEMS)
    if gaps:
        lost = [(name, gap) for name in cameras for gap in read_gaps(settings.node.state_dir, name, from_ns, to_ns)]
        _show_gaps(lost, zone, as_json)
        return
    found = [clip for name in cameras for clip in storage.clips(name, from_ns, to_ns)]
    if as_json:
        for clip in found:
            click.echo(json.dumps(_document(clip)))
    else:
        _draw(found, zone)


def _expect_readable(folders: Iterable[Path]) -> None:
    """What may not be looked into must not be taken for empty.

    Raises:
        PermissionError: a folder is another user's.
    """
    for folder in folders:
        try:
            os.scandir(folder).close()
        except PermissionError:
            raise
        except OSError:
            # Not there yet, or a disk that fails: the listing goes on with the others.
            continue


def _show_gaps(lost: list[tuple[str, Gap]], zone: ZoneInfo, as_json: bool) -> None:
    if as_json:
        for camera, gap in lost:
            click.echo(json.dumps({"camera_id": camera, **gap.model_dump(mode="json")}))
        return
    seconds = sum(gap.duration_ns for _, gap in lost) / NS_PER_S
    table = Table(title=f"{seconds:.1f} s not recorded, times {zone.key}", title_justify="left")
    for name in ("camera", "from", "seconds", "reason", "detail"):
        table.add_column(name, overflow="fold")
    for camera, gap in lost:
        length = f"{gap.duration_ns / NS_PER_S:.1f}"
        table.add_row(camera, local_time(gap.from_ns, zone), length, gap.reason, Text(gap.detail))
    Console().print(table)


def _size(clip: StoredClip) -> int:
    """Bytes of the clip; 0 when retention took it since it was listed."""
    try:
        return clip.path.stat().st_size
    except FileNotFoundError:
        return 0


def _document(clip: StoredClip) -> dict[str, object]:
    return {
        "camera_id": clip.clip.camera_id,
        "epoch": clip.clip.epoch,
        "start_ns": clip.clip.start_ns,
        "duration_ns": clip.duration_ns,
        "bytes": _size(clip),
        "path": str(clip.path),
    }


def _draw(found: list[StoredClip], zone: ZoneInfo) -> None:
    table = Table(title=f"{len(found)} clips, times {zone.key}", title_justify="left")
    for name in ("camera", "start"):
        table.add_column(name)
    for name in ("seconds", "MB"):
        table.add_column(name, justify="right")
    table.add_column("file", overflow="fold")
    for clip in found:
        seconds, megabytes = clip.duration_ns / NS_PER_S, _size(clip) / 1e6
        start = local_time(clip.clip.start_ns, zone)
        table.add_row(clip.clip.camera_id, start, f"{seconds:.1f}", f"{megabytes:.2f}", str(clip.path))
    Console().print(table)
