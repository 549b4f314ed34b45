"""The `registry` command.

Subcommands are named by dotted path and imported when called: `token create` must not wait for the web server's parts.
"""

from __future__ import annotations

from importlib import import_module

import click

from nodeagent import __version__
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


class _Commands(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{name} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="registry")
def main() -> None:
    """Know nodes and cameras, and decide which node serves which camera.

    Exit codes: 0 done, 1 not done, 2 faulty configuration or usage, 3 no registry answers, 4 another registry is
    running already.
    """
