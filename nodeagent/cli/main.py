"""The `nodeagent` command.

Commands are named by dotted path and imported when called: `status` must not wait for a video library, and the daemon's
parent process must not carry what only its children use.
"""

from __future__ import annotations

import click

from nodeagent import __version__
from nodeagent.infra.commands import Commands

#: Command: where it is, and its line in the help.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("nodeagent.cli.run_command:run", "Run the agent in the foreground (what systemd starts)."),
    "demo": ("nodeagent.cli.demo:demo", "Show the whole system on a shipped clip or on your camera."),
    "status": ("nodeagent.cli.status_command:status", "Show what runs and what needs a person, problems first."),
    "cluster": ("nodeagent.cli.cluster_command:cluster", "Show all nodes of the site, problems first."),
    "config": ("nodeagent.cli.config_command:config", "Check or show the configuration."),
    "clips": ("nodeagent.cli.clips_command:clips", "List recorded clips."),
    "backtest": ("nodeagent.cli.backtest_command:backtest", "Try rules on stored clips, faster than real time."),
    "alarms": ("nodeagent.cli.alarms_command:alarms", "List alarms, or show one with its pushes."),
    "rules": ("nodeagent.cli.rules_command:rules", "List rules, and by which versions the judge judges."),
    "pool": ("nodeagent.cli.pool_command:pool", "Prepare disks of the storage pool."),
}


@click.group(
    cls=Commands, table=COMMANDS, user="the agent's user", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="nodeagent")
def main() -> None:
    """Turn this server's cameras into alarms that are delivered exactly once.

    Exit codes: 0 done or all well, 1 problems, 2 faulty configuration or usage, 3 no agent is running or no registry
    answers, 4 another agent is running already.
    """
