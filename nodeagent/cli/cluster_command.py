"""`nodeagent cluster`: all nodes of the site, as the registries know them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
from rich.console import Console, RenderableType

from nodeagent.cli.config_option import DEFAULT_PATH
from nodeagent.infra.cluster_answers import Overview, node_seen, overview
from nodeagent.infra.cluster_draw import draw_cluster
from nodeagent.infra.cluster_view import ClusterView, cluster_view
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.registry_api import RegistryApi
from nodeagent.infra.registry_door import ANSWER_S, Door, door_options
from nodeagent.infra.watching import watch


@dataclass(frozen=True, slots=True)
class _Seen:
    """One look: what was answered, and what it means."""

    document: dict[str, Any]
    rows: list[dict[str, Any]]
    overview: Overview
    view: ClusterView


@click.command()
@partial(door_options, usual=DEFAULT_PATH)
@click.option("--watch", "again", is_flag=True, help="Draw anew every second until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print what the registry answers as one JSON object.")
def cluster(door: Door, again: bool, as_json: bool) -> None:
    """Show every node of the site and what needs a person, problems first.

    The registries are those of [registry] in the agent's TOML, unless --url names others.  Their token there is the
    node's, which may not look at other nodes: give a viewer's with --token-file.  A registry inside needs none.

    Exit code: 0 all well, 1 problems exist or the registry refuses, 2 faulty configuration or usage, 3 no registry
    answers.
    """
    if again and as_json:
        raise click.UsageError("--watch and --json exclude each other")
    with door.opened() as api:
        seen = _look(api)
        if as_json:
            click.echo(json.dumps({"cluster": seen.document, "nodes": seen.rows}, indent=2))
        elif not again:
            Console(highlight=False).print(draw_cluster(seen.overview, seen.view))
        else:

            def page() -> RenderableType:
                nonlocal seen
                seen = _look(api)
                return draw_cluster(seen.overview, seen.view)

            watch(page)
    sys.exit(ExitCode.PROBLEMS if seen.view.problems else ExitCode.OK)


def _look(api: RegistryApi) -> _Seen:
    document = api.document("GET", "cluster", read_s=ANSWER_S)
    rows = list(api.rows("nodes", read_s=ANSWER_S))
    whole = overview(document)
    return _Seen(document, rows, whole, cluster_view(whole, [node_seen(row) for row in rows]))
