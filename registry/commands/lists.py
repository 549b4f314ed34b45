"""`registry nodes`, `cameras`, `assignments` and `rules`: lists, followed to their end."""

from __future__ import annotations

from typing import Any, Final

import click

from nodeagent.infra.cluster_answers import node_seen
from nodeagent.infra.cluster_draw import draw_nodes
from nodeagent.infra.cluster_view import node_lines
from nodeagent.infra.registry_api import RegistryApi
from nodeagent.infra.registry_door import ANSWER_S
from registry.commands.lists_draw import draw_assignments, draw_cameras, draw_past, draw_rules
from registry.commands.showing import Showing, name, read_as, showing
from registry.http.answers_kept import Camera, Rules
from registry.member import NodePhase

Listed = list[dict[str, Any]]

#: Phases of a camera, in the words of the API.
CAMERA_PHASES: Final = ("owned", "pooled")


@click.command()
@click.option("--phase", type=click.Choice([phase.value for phase in NodePhase]), help="Only nodes in this phase.")
@showing
def nodes(showing: Showing, phase: str | None) -> None:
    """List nodes: phase, cameras, last report, and what is wrong with them."""
    which = [("phase", phase)] if phase is not None else []
    showing.show(
        lambda api: _rows(api, "nodes", which), lambda rows: draw_nodes(node_lines(list(map(node_seen, rows))))
    )


@click.command()
@click.option("--group", help="Only cameras at this place of the site's tree, or below it.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only those with this label; again: all.")
@click.option("--text", help="Only cameras whose id or name holds this.")
@click.option("--enabled/--disabled", default=None, help="Only cameras that are, or are not, served.")
@showing
def cameras(
    showing: Showing, group: str | None, labels: tuple[str, ...], text: str | None, enabled: bool | None
) -> None:
    """List cameras as they are wanted; what is secret in a stream's URL is not shown."""
    which = [(key, value) for key, value in (("group", group), ("text", text)) if value is not None]
    which += [("label", label) for label in labels]
    which += [("enabled", str(enabled).lower())] if enabled is not None else []
    showing.show(lambda api: _rows(api, "cameras", which), draw_cameras)


@click.command()
@click.option("--node", callback=name, help="Only cameras of this node.")
@click.option("--phase", type=click.Choice(CAMERA_PHASES), help="Only cameras in this phase.")
@click.option("--camera", callback=name, help="The owners that this camera has and had, newest first.")
@showing
def assignments(showing: Showing, node: str | None, phase: str | None, camera: str | None) -> None:
    """List which node has which camera, since when and why."""
    if camera is not None:
        if node is not None or phase is not None:
            raise click.UsageError("--camera excludes --node and --phase")
        path = f"cameras/{camera}/assignments"
        showing.show(lambda api: _rows(api, path), lambda rows: draw_past(camera, rows))
        return
    which = [(key, value) for key, value in (("node_id", node), ("phase", phase)) if value is not None]
    showing.show(lambda api: _rows(api, "assignments", which), draw_assignments)


@click.command()
@click.argument("camera", callback=name, required=False)
@showing
def rules(showing: Showing, camera: str | None) -> None:
    """List the rules of CAMERA, with their versions; without it those of all cameras."""
    showing.show(lambda api: _rules(api, camera), draw_rules)


def _rules(api: RegistryApi, camera: str | None) -> Listed:
    """Rules with their camera; versions are known of one camera's only."""
    if camera is not None:
        kept = read_as(Rules, api.document("GET", f"cameras/{camera}/rules", read_s=ANSWER_S))
        return [{"camera_id": camera, **one.model_dump(mode="json")} for one in kept.rules]
    return [
        {"camera_id": row["camera_id"], "version": None, "rule": rule.model_dump(mode="json")}
        for row in _rows(api, "cameras")
        for rule in read_as(Camera, row).spec.rules
    ]


def _rows(api: RegistryApi, path: str, which: list[tuple[str, str]] | None = None) -> Listed:
    return list(api.rows(path, params=which or (), read_s=ANSWER_S))
