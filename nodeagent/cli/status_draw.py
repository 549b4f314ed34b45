"""Draws a `StatusView` with rich."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nodeagent.cli.status_view import StatusView
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.report import NodeReport
from nodeagent.infra.times import local_time, span

#: Cameras named in the line about gaps; the others are counted.
GAPS_SHOWN = 5


def draw(
    report: NodeReport, view: StatusView, zone: ZoneInfo, now_ns: int, rate_over: str, note: str = ""
) -> RenderableType:
    """The whole page; `rate_over` says what time the rates are over, `note` what is no problem and should be known."""
    parts: list[RenderableType] = [_head(report, view, zone, now_ns)]
    if view.problems:
        parts.append(_problems(view, zone, now_ns))
    if note:
        parts.append(Text(note, style="yellow"))
    parts += [Text(line, style="green") for line in view.folded]
    parts.append(_stages(view, rate_over))
    if view.gaps:
        parts.append(_gaps(view))
    return Group(*parts)


def _head(report: NodeReport, view: StatusView, zone: ZoneInfo, now_ns: int) -> Text:
    up = span((now_ns - report.started_ns) / NS_PER_S)
    verdict = f"{len(view.problems)} problem{'s' if len(view.problems) != 1 else ''}" if view.problems else "all well"
    text = Text(
        f"node {report.node_id} on {report.host}, nodeagent {report.version}, pid {report.agent_pid}, up {up}, "
    )
    text.append(verdict, style="bold red" if view.problems else "bold green")
    return text.append(f"  ({local_time(now_ns, zone)} {zone.key})", style="dim")


def _problems(view: StatusView, zone: ZoneInfo, now_ns: int) -> Table:
    table = Table(title="Problems", title_justify="left", title_style="bold red", expand=True)
    for name in ("child", "state", "since"):
        table.add_column(name, overflow="fold")
    table.add_column("cause and hint", overflow="fold", ratio=1)
    for problem in view.problems:
        since = f"{local_time(problem.since_ns, zone)}\n{span((now_ns - problem.since_ns) / NS_PER_S)}"
        if problem.restarts:
            since += f", {problem.restarts} restart{'s' if problem.restarts != 1 else ''}"
        why = Text(problem.cause + "\n" if problem.cause else "").append(problem.hint, style="dim")
        table.add_row(Text(problem.name), Text(problem.state, style="red"), since, why)
    return table


def _stages(view: StatusView, rate_over: str) -> Table:
    table = Table(title=f"Stages (per second: {rate_over})", title_justify="left", title_style="bold")
    table.add_column("stage")
    for name in ("well", "per second", "behind"):
        table.add_column(name, justify="right")
    table.add_column("counted since the node's start", overflow="fold")
    for line in view.stages:
        table.add_row(
            line.kind,
            f"{line.well}/{line.children}",
            "" if line.per_s is None else f"{line.per_s:.1f}",
            "" if line.lag_s is None else f"{line.lag_s:.1f} s",
            line.notes,
        )
    return table


def _gaps(view: StatusView) -> Text:
    named = ", ".join(f"{camera} {seconds:.1f} s" for camera, seconds in view.gaps[:GAPS_SHOWN])
    others = len(view.gaps) - GAPS_SHOWN
    total = sum(seconds for _, seconds in view.gaps)
    more = f" and {others} more" if others > 0 else ""
    return Text(f"not recorded: {total:.1f} s ({named}{more})", style="yellow")
