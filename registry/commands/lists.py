"""`registry nodes`, `cameras` and `assignments`: what there is, as tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nodeagent.contract.ids import NS_PER_S
from registry.commands.screen import Asked, showing
from registry.member import NodePhase

#: How a phase looks.
STYLES = {
    NodePhase.LIVE.value: "green",
    NodePhase.JOINING.value: "cyan",
    NodePhase.SUSPECT.value: "yellow",
    NodePhase.DRAINING.value: "cyan",
    NodePhase.DEAD.value: "bold red",
}
#: Clocks that differ by more than this are shown, ns.
SKEW_SHOWN_NS = NS_PER_S // 2


@click.command()
@showing
def nodes(asked: Asked) -> None:
    """List nodes: phase, cameras, and what is wrong with them.

    Exit code: 0 listed, 1 no registry answered, or it refused.
    """
    asked.show(
        lambda remote: {"cluster": remote.get("cluster"), "nodes": remote.get_all("nodes", "nodes")}, _draw_nodes
    )


@click.command()
@click.option("--group", default="", help="Only those at this place of the site, or below it.")
@click.option("--text", default="", help="Only those whose id or name holds this.")
@showing
def cameras(asked: Asked, group: str, text: str) -> None:
    """List cameras as they are wanted; stream credentials are not shown.

    Exit code: 0 listed, 1 no registry answered, or it refused.
    """
    asked.show(lambda remote: remote.get_all("cameras", "cameras", group=group, text=text), _draw_cameras)


@click.command()
@click.option("--node", "node_id", help="Only cameras of this node.")
@click.option("--phase", type=click.Choice(["owned", "pooled"]), help="Only cameras in this phase.")
@showing
def assignments(asked: Asked, node_id: str | None, phase: str | None) -> None:
    """List where cameras are, and why.

    Exit code: 0 listed, 1 no registry answered, or it refused.
    """
    which = {name: value for name, value in (("node_id", node_id), ("phase", phase)) if value is not None}
    asked.show(lambda remote: remote.get_all("assignments", "assignments", **which), _draw_assignments)


def _draw_nodes(found: dict[str, Any]) -> RenderableType:
    table = Table("node", "phase", "host", "owns", "serves", "silent", "remarks")
    for node in found["nodes"]:
        phase = str(node["phase"])
        silent = "never heard" if node["silent_s"] is None else f"{node['silent_s']:.1f} s"
        table.add_row(
            node["node_id"],
            Text(phase, style=STYLES.get(phase, "")),
            node["host"],
            str(node["owns"]),
            str(node["serves"]),
            silent,
            "; ".join(_remarks(node)),
        )
    return Group(Text(_headline(found["cluster"])), table)


def _headline(cluster: dict[str, Any]) -> str:
    cameras = cluster["cameras"]
    leader = f"{cluster['leader']} leads" if cluster["leader"] else "no registry leads"
    line = f"{leader}; {cameras['owned']} cameras have a node, {cameras['pooled']} wait for one"
    freeze = cluster.get("freeze")
    return f"{line}\nevictions are held: {freeze['reason']} (registry thaw ends it)" if freeze else line


def _remarks(node: dict[str, Any]) -> list[str]:
    remarks = [str(node["conflict"])] if node["conflict"] else []
    drain = node.get("drain")
    if drain:
        by = f" for {drain['ordered_by']}" if drain["ordered_by"] else ""
        remarks.append(f"drains{by}: {drain['left']} left, {drain['moved']} moved")
        remarks += [str(drain["trouble"])] if drain["trouble"] else []
    if abs(node["skew_ns"]) > SKEW_SHOWN_NS:
        remarks.append(f"clock off by {node['skew_ns'] / NS_PER_S:+.1f} s")
    return remarks


def _draw_cameras(found: list[dict[str, Any]]) -> RenderableType:
    table = Table("camera", "name", "place", "labels", "stream", "rules", "version", "changed")
    for camera in found:
        spec = camera["spec"]
        labels = " ".join(f"{name}={value}" for name, value in sorted(camera["labels"].items()))
        changed = f"{_time(camera['changed_ns'])} by {camera['changed_by']}"
        style = "" if camera["enabled"] else "dim"
        table.add_row(
            camera["camera_id"],
            spec.get("name", ""),
            camera["group"],
            labels,
            spec["record"]["url"],
            str(len(spec.get("rules", []))),
            str(camera["version"]),
            changed if camera["enabled"] else f"disabled; {changed}",
            style=style,
        )
    return table


def _draw_assignments(found: list[dict[str, Any]]) -> RenderableType:
    table = Table("camera", "node", "epoch", "since", "why")
    for place in found:
        owner = place["owner"]
        owned = place["phase"] == "owned" and owner is not None
        node = owner["node_id"] if owned else Text("waits", style="yellow")
        epoch = str(owner["epoch"]) if owner is not None else ""
        since = _time(place["since_ms"] * (NS_PER_S // 1000))
        table.add_row(place["camera_id"], node, epoch, since, place["reason"])
    return table


def _time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // NS_PER_S, UTC).isoformat().replace("+00:00", "Z") if at_ns else ""
