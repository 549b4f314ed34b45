"""Statements that are written differently for each database, and how much one of them may name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, Insert, Table, case
from sqlalchemy.dialects import mysql, sqlite

#: Rows named in one statement: well within what both databases take.
CHUNK: Final = 500

_Item = TypeVar("_Item")


def chunks(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """The items in parts that one statement can name."""
    return (items[at : at + CHUNK] for at in range(0, len(items), CHUNK))


def upserting(connection: Connection, table: Table, changed: Callable[[Any], Mapping[str, Any]]) -> Insert:
    """An INSERT; where there is a row with the same primary key, that one is changed instead.

    Args:
        connection: of the database that the statement is for.
        table: where to; it has no unique key but its primary key.
        changed: given the columns of the new row, the columns of the old one that change, and to what.
    """
    if connection.dialect.name == "mysql":
        made = mysql.insert(table)
        return made.on_duplicate_key_update(dict(changed(made.inserted)))
    lite = sqlite.insert(table)
    return lite.on_conflict_do_update(index_elements=list(table.primary_key), set_=dict(changed(lite.excluded)))


def larger(one: ColumnElement[int], other: ColumnElement[int]) -> ColumnElement[int]:
    """The larger of two numbers."""
    return case((one > other, one), else_=other)
