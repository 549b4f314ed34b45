"""`registry explain`: why a camera is where it is, and what else was considered."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from registry.commands.screen import Asked, showing


@click.command()
@click.argument("camera_id")
@showing
def explain(asked: Asked, camera_id: str) -> None:
    """Tell why CAMERA_ID is where it is, and how every other node stands for it.

    Exit code: 0 told, 1 there is no such camera, or no registry answered.
    """
    asked.show(lambda remote: remote.get(f"cameras/{camera_id}/explain", limit=1000), _draw)


def _draw(found: dict[str, Any]) -> RenderableType:
    table = Table("rank", "node", "load", "with it", "of its group", "remarks")
    for node in found["candidates"]:
        remarks = [*node["refusals"]]
        remarks += ["its source was not reached from there"] if node["is_avoided"] else []
        name = Text(node["node_id"], style="bold" if node["node_id"] == found["node_id"] else "")
        table.add_row(
            str(node["rank"] or "-"),
            name,
            f"{node['load']:.3f}",
            f"{node['load_with']:.3f}",
            str(node["group"]),
            "; ".join(remarks),
        )
    return Group(Text(f"{found['camera_id']}: {found['sentence']}"), table)
