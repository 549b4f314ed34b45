"""Draws nodes and a `ClusterView` with rich."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nodeagent.infra.cluster_answers import DEAD, DRAINING, JOINING, LIVE, SUSPECT, Overview
from nodeagent.infra.cluster_view import ClusterProblem, ClusterView, NodeLine

_STYLES: Final[Mapping[str, str]] = {
    LIVE: "green",
    JOINING: "cyan",
    DRAINING: "cyan",
    SUSPECT: "yellow",
    DEAD: "bold red",
}


def draw_cluster(overview: Overview, view: ClusterView) -> RenderableType:
    """The whole page, problems first."""
    parts: list[RenderableType] = [_head(overview, view)]
    if view.problems:
        parts.append(_problems(view.problems))
    return Group(*parts, draw_nodes(view.lines))


def draw_nodes(lines: Sequence[NodeLine]) -> Table:
    """A row for each node."""
    table = Table(title=f"Nodes ({len(lines)})", title_justify="left", title_style="bold")
    for name in ("node", "phase", "host"):
        table.add_column(name, overflow="fold")
    for name in ("cameras", "of mean", "last report"):
        table.add_column(name, justify="right")
    for name in ("version", "labels", "warnings"):
        table.add_column(name, overflow="fold")
    for line in lines:
        node = line.node
        table.add_row(
            Text(node.node_id),
            Text(node.phase, style=_STYLES.get(node.phase, "")),
            Text(node.host),
            str(node.owns),
            "" if line.of_mean is None else f"{line.of_mean:.2f}",
            "never" if node.silent_s is None else f"{node.silent_s:.1f} s ago",
            Text(node.agent_version),
            Text(words(node.labels)),
            Text("; ".join(line.remarks), style="yellow"),
        )
    return table


def words(labels: Mapping[str, str]) -> str:
    """Labels in one line, by name."""
    return " ".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _head(overview: Overview, view: ClusterView) -> Text:
    leader = f"registry {overview.leader} leads" if overview.leader else "no registry leads"
    text = Text(f"{leader}; nodes: {_counts(overview.nodes)}; cameras: {_counts(overview.cameras)}; ")
    number = len(view.problems)
    verdict = f"{number} problem{'s' if number != 1 else ''}" if number else "all well"
    return text.append(verdict, style="bold red" if number else "bold green")


def _counts(phases: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {phase}" for phase, number in phases.items() if number) or "none"


def _problems(problems: Iterable[ClusterProblem]) -> Table:
    table = Table(title="Problems", title_justify="left", title_style="bold red", expand=True)
    for name in ("who", "state"):
        table.add_column(name, overflow="fold")
    table.add_column("cause and hint", overflow="fold", ratio=1)
    for problem in problems:
        why = Text(problem.cause + "\n").append(problem.hint, style="dim")
        table.add_row(Text(problem.name), Text(problem.state, style="red"), why)
    return table
