"""Numbers that only grow."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from nodeagent.contract.ids import NS_PER_MS
from nodeagent.infra.registry_tables import counter
from registry.store.statements import larger, upserting

#: Grows with every change of any camera.
CAMERAS_VERSION: Final = "cameras_version"


def grow(connection: Connection, name: str, now_ns: int) -> int:
    """Make the counter grow, and return it.  Whoever else makes it grow waits for this transaction's end, so that the
    numbers are committed in their order: a reader who sees one has seen all below it.

    It never falls behind the clock in ms: after the database was restored from last night, no number comes twice.
    """
    clock = {"name": name, "value": now_ns // NS_PER_MS}
    connection.execute(
        upserting(connection, counter, lambda new: {"value": larger(counter.c.value + 1, new.value)}), clock
    )
    return value(connection, name)


def value(connection: Connection, name: str) -> int:
    """The counter; 0 when it never grew."""
    found = connection.execute(select(counter.c.value).where(counter.c.name == name)).scalar()
    return int(found or 0)
