"""The demo's tables.  Drawing only: what they show comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from registry.demo.watch import Capture


@dataclass(frozen=True, slots=True)
class Taken:
    """A dead node's camera on another node.

    Attributes:
        capture: who captures it now.
        after_s: seconds from the kill to the look that saw its first new sample.
    """

    camera: str
    capture: Capture
    after_s: float


def nodes_table(nodes: Sequence[Mapping[str, Any]]) -> Table:
    """The nodes as the registry lists them."""
    table = Table("node", "phase", "owns", "agent's pid", title="nodes, as the registry says", title_justify="left")
    for node in nodes:
        table.add_row(node["node_id"], node["phase"], str(node["owns"]), str(node["agent_pid"] or "-"))
    return table


def cameras_table(cameras: Sequence[str], owners: Mapping[str, str], found: Mapping[str, Sequence[Capture]]) -> Table:
    """Each camera with its owner, and who captures it."""
    table = Table("camera", "owner", "captured by", "pid", "epoch", title="cameras", title_justify="left")
    for camera in cameras:
        who = found.get(camera, ())
        table.add_row(
            camera,
            owners.get(camera, "-"),
            ", ".join(one.node for one in who) or "nobody",
            ", ".join(str(one.pid) for one in who),
            ", ".join(str(one.epoch) for one in who),
        )
    return table


def taken_table(taken: Sequence[Taken]) -> Table:
    """Cameras of a dead node, and after how long another had their pictures."""
    table = Table(
        "camera", "captured by", "first new sample after", title="the dead node's cameras", title_justify="left"
    )
    for one in taken:
        table.add_row(one.camera, one.capture.node, f"{one.after_s:.1f} s")
    return table
