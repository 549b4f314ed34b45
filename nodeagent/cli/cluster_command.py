"""`nodeagent cluster`: all nodes of the site, as the registries know them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console, RenderableType

from nodeagent.cli.config_option import config_option, read_or_exit
from nodeagent.infra.cluster_answers import Overview, node_seen, overview
from nodeagent.infra.cluster_draw import draw_cluster
from nodeagent.infra.cluster_view import ClusterView, cluster_view
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.registry_api import RegistryApi
from nodeagent.infra.registry_door import ANSWER_S, Door, door_options
from nodeagent.infra.settings.registry import RegistrySettings
from nodeagent.infra.watching import watch


@dataclass(frozen=True, slots=True)
class _Seen:
    """One look: what was answered, and what it means."""

    document: dict[str, Any]
    rows: list[dict[str, Any]]
    overview: Overview
    view: ClusterView


@click.command()
@config_option
@door_options
@click.option("--watch", "again", is_flag=True, help="Draw anew every second until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print what the registry answers as one JSON object.")
def cluster(config: Path, door: Door, again: bool, as_json: bool) -> None:
    """Show every node of the site and what needs a person, problems first.

    The registries are those of [registry] in the agent's TOML, unless --url names others.  Their token there is the
    node's, which may not look at other nodes: give a viewer's with --token-file.

    Exit code: 0 all well, 1 problems exist or the registry refuses, 2 faulty configuration or usage, 3 no registry
    answers.
    """
    if again and as_json:
        raise click.UsageError("--watch and --json exclude each other")
    with door.opened(_configured(config, door)) as api:
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


def _configured(config: Path, door: Door) -> RegistrySettings | None:
    """The agent's `[registry]`; none: the options say it all.  The file is not read then, it may belong to others."""
    if door.urls and door.token_file is not None:
        return None
    configured = read_or_exit(config).registry
    if configured is None and not door.urls:
        click.echo(f"{config}: there is no [registry], so this node is alone; --url names a registry", err=True)
        sys.exit(ExitCode.USAGE)
    return configured


def _look(api: RegistryApi) -> _Seen:
    document = api.document("GET", "cluster", read_s=ANSWER_S)
    rows = list(api.rows("nodes", read_s=ANSWER_S))
    whole = overview(document)
    return _Seen(document, rows, whole, cluster_view(whole, [node_seen(row) for row in rows]))
