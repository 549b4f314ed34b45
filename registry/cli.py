"""The `registry` command.  It offers only what exists: `--version` and an honest `--help`."""

from __future__ import annotations

import click

from nodeagent import __version__


@click.group(invoke_without_command=True)
@click.version_option(__version__, prog_name="registry")
@click.pass_context
def main(context: click.Context) -> None:
    """Know nodes and cameras, and place cameras on nodes.

    Not in this version.  Until it is, every node serves the cameras of its own TOML file (`nodeagent run`), and no
    camera moves to another node by itself.

    This package will hold: membership (which nodes live), placement of cameras on the least loaded node, the leader's
    lease, the camera store in MySQL, broadcasts over Redis, an HTTP API and a web page.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
