"""Tokens in the database: their hashes, whom they belong to, when they were used last, and which are revoked."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, Row, bindparam, delete, insert, select, update

from nodeagent.contract.errors import DecodeError
from nodeagent.infra.database import reading, write
from nodeagent.infra.registry_tables import token
from registry.store.errors import Unknown
from registry.tokens import ID_BYTES, SECRET_BYTES, Bearer, Presented, Role, token_of

#: Rows of a part of the list when nobody says how many.
PAGE_ROWS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """A token as the database has it.

    Attributes:
        created_ns: wall clock, UTC ns.
        last_used_ns: may be a minute late; 0: never.
        revoked_ns: 0: it is good.
    """

    bearer: Bearer
    created_by: str
    created_ns: int
    last_used_ns: int
    revoked_ns: int
    revoked_by: str


class Tokens:
    """The tokens of one database.  Every method raises Unavailable when the database is away."""

    def __init__(self, engine: Engine, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        """`random` gives so many bytes that nobody can guess."""
        self._engine = engine
        self._random = random

    def make_for_person(self, name: str, role: Role, by: str, now_ns: int) -> tuple[Bearer, SecretStr]:
        """A token of a person, shown here and never again."""
        return self._made({"name": name, "role": role.value, "node_id": None}, by, now_ns)

    def make_for_node(self, name: str, node_id: str, by: str, now_ns: int) -> tuple[Bearer, SecretStr]:
        """A token of a node, shown here and never again.  Those that it has stay good until they are revoked."""
        return self._made({"name": name, "role": None, "node_id": node_id}, by, now_ns)

    def bearer_of(self, presented: Presented) -> Bearer | None:
        """Whom a token belongs to; None when it is none of ours, or revoked."""
        with reading(self._engine, "token") as connection:
            row = connection.execute(select(token).where(token.c.token_id == presented.token_id)).first()
        # Compared also when there is none, so that it takes as long.
        same = presented.matches(row.sha256 if row is not None else "")
        return _bearer(row) if row is not None and same and not row.revoked_ns else None

    def page(self, after: str | None = None, limit: int = PAGE_ROWS) -> tuple[list[TokenRow], str | None]:
        """A part of the tokens, revoked ones included, ordered by id, and what to give as `after` for the next one;
        none: it is the last.

        Raises:
            DecodeError: somebody else wrote into a row.
        """
        query = select(token).order_by(token.c.token_id).limit(limit + 1)
        if after is not None:
            query = query.where(token.c.token_id > after)
        with reading(self._engine, "list tokens") as connection:
            rows = connection.execute(query).all()
        return [_token(row) for row in rows[:limit]], rows[limit - 1].token_id if len(rows) > limit else None

    def revoke(self, token_id: str, by: str, now_ns: int) -> None:
        """Make a token good for nothing, for ever; one that is revoked stays as it is.

        Raises:
            Unknown: there is none.
        """

        def change(connection: Connection) -> None:
            row = connection.execute(select(token).where(token.c.token_id == token_id).with_for_update()).first()
            if row is None:
                raise Unknown(f"token {token_id}")
            if not row.revoked_ns:
                values = {"revoked_ns": now_ns, "revoked_by": by}
                connection.execute(update(token).where(token.c.token_id == token_id).values(values))

        write(self._engine, "revoke token", change)

    def drop_others(self, by: str, but: Collection[str]) -> None:
        """Forget all tokens that `by` made but these: for a program that makes its own anew at each start."""
        query = delete(token).where(token.c.created_by == by, token.c.token_id.not_in(but))
        write(self._engine, "drop tokens", lambda connection: connection.execute(query))

    def used(self, when_ns: Mapping[str, int]) -> None:
        """Write down when tokens were used last, by their ids.  Written behind; an earlier time changes nothing."""
        lines = [{"at": token_id, "since": at_ns, "last_used_ns": at_ns} for token_id, at_ns in sorted(when_ns.items())]
        query = update(token).where(token.c.token_id == bindparam("at"), token.c.last_used_ns < bindparam("since"))
        if lines:
            write(self._engine, "use of tokens", lambda connection: connection.execute(query, lines))

    def _made(self, whose: Mapping[str, str | None], by: str, now_ns: int) -> tuple[Bearer, SecretStr]:
        fresh = token_of(self._random(ID_BYTES + SECRET_BYTES))
        values = {
            **whose,
            "token_id": fresh.token_id,
            "sha256": fresh.sha256,
            "created_by": by,
            "created_ns": now_ns,
            "last_used_ns": 0,
            "revoked_ns": 0,
            "revoked_by": "",
        }

        def change(connection: Connection) -> Bearer:
            connection.execute(insert(token).values(values))
            return _bearer(connection.execute(select(token).where(token.c.token_id == fresh.token_id)).one())

        return write(self._engine, "make token", change), SecretStr(fresh.text)


def _bearer(row: Row[Any]) -> Bearer:
    try:
        role = None if row.role is None else Role(row.role)
    except ValueError:
        raise DecodeError(f"table token, {row.token_id}: no such role") from None
    return Bearer(token_id=row.token_id, name=row.name, role=role, node_id=row.node_id)


def _token(row: Row[Any]) -> TokenRow:
    plain = ("created_by", "created_ns", "last_used_ns", "revoked_ns", "revoked_by")
    return TokenRow(bearer=_bearer(row), **{name: row._mapping[name] for name in plain})
