"""`nodeagent status`: what runs on this node, read from the status board; works while any peer is away."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections import deque
from pathlib import Path
from zoneinfo import ZoneInfo

import click
from rich.console import Console, RenderableType
from rich.live import Live

from nodeagent import __version__
from nodeagent.cli.config_option import config_option
from nodeagent.cli.status_draw import draw
from nodeagent.cli.status_reload import restart_line, with_reload
from nodeagent.cli.status_view import status_view
from nodeagent.contract.errors import AgentError, ConfigError
from nodeagent.contract.report import NodeReport
from nodeagent.infra.board import Board
from nodeagent.infra.clock import Clock, SystemClock
from nodeagent.infra.commands import print_faults
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.incarnation import live_board_path
from nodeagent.infra.settings.loader import load_settings, state_dir_of
from nodeagent.supervisor.reload_note import read_note

#: Seconds between two pages of `--watch`.
WATCH_EVERY_S = 1.0
#: Pages that a rate of `--watch` looks back: clips come every 5 s, so less would jump.
WATCH_WINDOW = 10


@click.command()
@config_option
@click.option("--watch", is_flag=True, help="Draw anew every second until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def status(config: Path, watch: bool, as_json: bool) -> None:
    """Show what runs and what needs a person: problems first, healthy cameras in one line.

    Exit code: 0 all well, 1 problems exist, 2 faulty configuration (its faults and what runs are shown) or usage, 3 no
    agent is running.
    """
    if watch and as_json:
        raise click.UsageError("--watch and --json exclude each other")
    state_dir, zone, sound = _place(config)
    clock = SystemClock()
    if watch:
        code = _watch(state_dir, zone, clock)
        sys.exit(code if sound else ExitCode.USAGE)
    report = _report(state_dir, clock)
    now_ns = clock.wall_ns()
    note = read_note(state_dir)
    view = with_reload(status_view(report, now_ns), note)
    if as_json:
        reload = note.model_dump(mode="json") if note else None
        click.echo(json.dumps(report.model_dump(mode="json") | {"reload": reload}, indent=2))
    else:
        Console().print(draw(report, view, zone, now_ns, "since the node's start", restart_line(note)))
    code = ExitCode.PROBLEMS if view.problems else ExitCode.OK
    sys.exit(code if sound else ExitCode.USAGE)


def _place(config: Path) -> tuple[Path, ZoneInfo, bool]:
    """State folder, time zone, and whether the file is sound: a faulty one does not hide the agent that still runs."""
    try:
        settings = load_settings(config)
    except ConfigError as exc:
        print_faults(config, exc)
        state_dir = state_dir_of(config)
        try:
            if state_dir is not None and live_board_path(state_dir) is not None:
                return state_dir, ZoneInfo("UTC"), False
        except (AgentError, OSError) as hidden:
            click.echo(f"the agent on {state_dir} cannot be seen: {hidden}", err=True)
        sys.exit(ExitCode.USAGE)
    return settings.node.state_dir, ZoneInfo(settings.site.time_zone), True


def _report(state_dir: Path, clock: Clock) -> NodeReport:
    """The live board's report; says why and exits with NOT_RUNNING when there is none."""
    try:
        path = live_board_path(state_dir)
        if path is not None:
            return Board.open(path).report(clock.monotonic_s(), __version__, socket.gethostname())
        click.echo(f"no agent is running on {state_dir}", err=True)
    except (AgentError, OSError) as exc:
        # Another user's agent: its folders may not be looked into.
        click.echo(f"the agent on {state_dir} cannot be seen: {exc}", err=True)
    sys.exit(ExitCode.NOT_RUNNING)


def _watch(state_dir: Path, zone: ZoneInfo, clock: Clock) -> ExitCode:
    """Draw until Ctrl-C or until the agent is gone; the exit code is that of the last page."""
    pages: deque[tuple[float, NodeReport]] = deque(maxlen=WATCH_WINDOW + 1)
    code = ExitCode.OK

    def page() -> RenderableType:
        nonlocal code
        report, now_ns = _report(state_dir, clock), clock.wall_ns()
        pages.append((clock.monotonic_s(), report))
        over_s = pages[-1][0] - pages[0][0]
        same = pages[0][1].started_ns == report.started_ns and over_s > 0
        note = read_note(state_dir)
        view = with_reload(status_view(report, now_ns, pages[0][1] if same else None, over_s), note)
        code = ExitCode.PROBLEMS if view.problems else ExitCode.OK
        rate_over = f"last {over_s:.0f} s" if same else "since the node's start"
        return draw(report, view, zone, now_ns, rate_over, restart_line(note))

    try:
        with Live(page(), auto_refresh=False, vertical_overflow="visible") as live:
            while True:
                time.sleep(WATCH_EVERY_S)
                live.update(page(), refresh=True)
    except KeyboardInterrupt:
        return code
