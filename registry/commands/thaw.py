"""`registry thaw`: end a freeze of evictions, over the API of whichever registry leads."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nodeagent.contract.errors import AgentError
from registry.commands.config_file import ExitCode
from registry.commands.remote import Remote, remote_options


@click.command()
@remote_options
def thaw(urls: tuple[str, ...], token: str | None, token_file: Path | None, ca_file: Path | None) -> None:
    """Let cameras of silent nodes go elsewhere again, at once.

    Evictions are held when many nodes fall silent together, because then it is most likely the registry that cannot
    hear.  Whoever knows that the nodes are really gone ends that with this command.

    Exit code: 0 done, 1 no registry could be asked, or it refused.
    """
    try:
        with Remote(urls, token, token_file, ca_file) as remote:
            answer = remote.post("thaw")
    except AgentError as exc:
        click.echo(str(exc), err=True)
        sys.exit(ExitCode.PROBLEMS)
    reason = str(answer.get("reason", ""))
    click.echo(f"evictions go on; they were held because {reason}" if reason else "evictions were not held")
