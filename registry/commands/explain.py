"""`registry explain`: why a camera is where it is, and what else was considered."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nodeagent.infra.registry_door import ANSWER_S
from registry.commands.showing import Showing, name, read_as, showing
from registry.http.answers_live import Considered, Why


@click.command()
@click.argument("camera", callback=name)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="Nodes at most.")
@showing
def explain(showing: Showing, camera: str, limit: int) -> None:
    """Tell why CAMERA is where it is, and how other nodes stand for it."""
    path = f"cameras/{camera}/explain"
    showing.show(lambda api: api.document("GET", path, params={"limit": str(limit)}, read_s=ANSWER_S), draw_explanation)


def draw_explanation(document: dict[str, Any]) -> RenderableType:
    """The sentence, then the nodes in the order in which the camera would be placed on them."""
    why = read_as(Why, document)
    table = Table()
    for title in ("rank", "node", "load", "with it", "of its group", "remarks"):
        table.add_column(title, justify="left" if title in ("node", "remarks") else "right", overflow="fold")
    for node in why.candidates:
        table.add_row(
            str(node.rank or "-"),
            Text(node.node_id, style="bold" if node.node_id == why.node_id else ""),
            f"{node.load:.3f}",
            f"{node.load_with:.3f}",
            str(node.group),
            Text("; ".join(_remarks(node, why.node_id))),
        )
    more = why.considered - len(why.candidates)
    rest = [Text(f"and {more} more", style="dim")] if more > 0 else []
    return Group(Text(f"camera {why.camera_id}{' is' if why.node_id else ''} {why.sentence}"), table, *rest)


def _remarks(node: Considered, owner: str) -> list[str]:
    remarks = ["owns it"] if node.node_id == owner else []
    remarks += ["its source could not be reached from there"] if node.is_avoided else []
    return [*remarks, *node.refusals]
