"""The `registry` command.

Subcommands are named by dotted path and imported when called: `token create` must not wait for the web server's parts.
"""

from __future__ import annotations

import click

from nodeagent import __version__
from nodeagent.infra.commands import Commands
from registry.commands.operator import OPERATOR

#: Command: where it is, and its line in the help.
COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("registry.commands.serve:serve", "Run the registry in the foreground (what systemd starts)."),
    "token": ("registry.commands.token:token", "Make, list and revoke tokens of nodes and people."),
    **OPERATOR,
    "demo-cluster": (
        "registry.commands.demo_cluster:demo_cluster",
        "Show two registries and two agents on this machine, one of each killed.",
    ),
}


@click.group(
    cls=Commands, table=COMMANDS, user="the registry's user", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="registry")
def main() -> None:
    """Know nodes and cameras, and decide which node serves which camera.

    Exit codes: 0 done, 1 not done, 2 faulty configuration or usage, 3 no registry answers, 4 another registry is
    running already.
    """
