"""`registry token`: tokens of nodes and people, written straight into the database.

It needs no registry that runs, and no token: whoever can read the configuration file can make one.
"""

from __future__ import annotations

import getpass
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from nodeagent.contract.errors import AgentError
from nodeagent.contract.ids import ID_PATTERN, NS_PER_S
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.exits import ExitCode
from registry.commands.config_file import config_option, read_or_exit
from registry.store.errors import Unknown
from registry.store.tokens import TokenRow, Tokens
from registry.tokens import Role

_CLOCK = SystemClock()


@click.group()
def token() -> None:
    """Make, list and revoke tokens: one for each node, and one for each person with a role."""


@token.command()
@click.argument("name")
@click.option("--node", "node_id", help="Make it for the agent of this node.")
@click.option("--role", type=click.Choice([role.value for role in Role]), help="Make it for a person with this role.")
@config_option
def create(config: Path, name: str, node_id: str | None, role: str | None) -> None:
    """Make a token called NAME, and print it.  It is shown this once: only its hash is kept.

    Exit code: 0 made, 1 the database is away, 2 faulty usage.
    """
    if (node_id is None) == (role is None):
        raise click.UsageError("expected --node or --role, one of them")
    for what, text in (("NAME", name), ("--node", node_id)):
        if text is not None and not re.fullmatch(ID_PATTERN, text):
            raise click.UsageError(f"{what}: expected letters, digits, _, . and -, at most 63")
    with _tokens(config) as tokens:
        if role is not None:
            bearer, secret = tokens.make_for_person(name, Role(role), _who(), _CLOCK.wall_ns())
        else:
            bearer, secret = tokens.make_for_node(name, str(node_id), _who(), _CLOCK.wall_ns())
    # The token alone goes to standard output, so that it can be led into a file.
    click.echo(f"token {bearer.token_id} for {_whose(node_id, role)}; it is shown this once:", err=True)
    click.echo(secret.get_secret_value())


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
def list_tokens(config: Path, as_json: bool) -> None:
    """List all tokens, revoked ones too; what opens the registry is not shown.

    Exit code: 0 listed, 1 the database is away.
    """
    rows: list[TokenRow] = []
    with _tokens(config) as tokens:
        part, after = tokens.page()
        rows += part
        while after is not None:
            part, after = tokens.page(after)
            rows += part
    if as_json:
        click.echo(json.dumps([_row(row) for row in rows], indent=2))
        return
    table = Table("id", "name", "for", "made", "last used", "revoked")
    for row in sorted(rows, key=lambda row: (row.revoked_ns > 0, row.bearer.name)):
        shown = _row(row)
        whose = _whose(row.bearer.node_id, row.bearer.role.value if row.bearer.role else None)
        made = f"{shown['created']} by {row.created_by}"
        revoked = f"{shown['revoked']} by {row.revoked_by}" if row.revoked_ns else ""
        table.add_row(row.bearer.token_id, row.bearer.name, whose, made, shown["last_used"] or "never", revoked)
    Console(highlight=False, soft_wrap=True).print(table)


@token.command()
@click.argument("token_id")
@config_option
def revoke(config: Path, token_id: str) -> None:
    """Make the token with this id good for nothing, for ever.  Registries that remember it refuse it within 90 s.

    Exit code: 0 revoked, 1 there is none, or the database is away.
    """
    with _tokens(config) as tokens:
        tokens.revoke(token_id, _who(), _CLOCK.wall_ns())
    click.echo(f"token {token_id} is revoked")


@contextmanager
def _tokens(config: Path) -> Iterator[Tokens]:
    settings = read_or_exit(config)
    try:
        engine = open_database(settings.database_url)
        try:
            migrate(engine)
            yield Tokens(engine)
        finally:
            engine.dispose()
    except Unknown as exc:
        click.echo(str(exc), err=True)
        sys.exit(ExitCode.PROBLEMS)
    except AgentError as exc:
        click.echo(f"not done: {exc}", err=True)
        sys.exit(ExitCode.PROBLEMS)


def _who() -> str:
    return f"{getpass.getuser()} (command)"


def _whose(node_id: str | None, role: str | None) -> str:
    return f"node {node_id}" if node_id is not None else f"a person, {role}"


def _row(row: TokenRow) -> dict[str, str | None]:
    return {
        "token_id": row.bearer.token_id,
        "name": row.bearer.name,
        "role": row.bearer.role.value if row.bearer.role is not None else None,
        "node_id": row.bearer.node_id,
        "created": _time(row.created_ns),
        "created_by": row.created_by,
        "last_used": _time(row.last_used_ns),
        "revoked": _time(row.revoked_ns),
        "revoked_by": row.revoked_by,
    }


def _time(at_ns: int) -> str | None:
    return datetime.fromtimestamp(at_ns // NS_PER_S, UTC).isoformat().replace("+00:00", "Z") if at_ns else None
