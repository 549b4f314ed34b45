"""Nodes that ever reported, and the orders to drain them.

That a node lives is not told here: it is known from its reports, a second old at most, and never from the database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, delete, select, update

from nodeagent.contract.ids import NodeId
from nodeagent.infra.database import reading, write
from nodeagent.infra.registry_tables import node
from registry.store.errors import Stale, Unknown
from registry.store.statements import larger, upserting

#: Longest name of a host that is kept, characters.
HOST_MAX: Final = 255
#: Rows of a part of the list when nobody says how many.
PAGE_ROWS: Final = 100


@dataclass(frozen=True, slots=True)
class Seen:
    """What a report told of its node.

    Attributes:
        host: name of the machine.
        incarnation: life of the agent.
        at_ns: wall clock of the registry when it came, UTC ns.
    """

    host: str
    incarnation: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """A person's order that a node's cameras go elsewhere.

    Attributes:
        by: who gave it.
        at_ns: when, wall clock, UTC ns.
        forced: although the others lack capacity.
    """

    by: str
    at_ns: int
    forced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A node as the database has it.

    Attributes:
        version: grows by one with each order.
        incarnation: of the last life that was heard of.
        first_seen_ns, last_seen_ns: wall clock of its reports, UTC ns; the last one may be a minute late.
        drain: none: nobody ordered it.
    """

    node_id: NodeId
    version: int
    host: str
    incarnation: str
    first_seen_ns: int
    last_seen_ns: int
    drain: DrainOrder | None


class Nodes:
    """The nodes of one database.  Every method raises Unavailable when the database is away."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def see(self, seen: Mapping[NodeId, Seen]) -> None:
        """Write down who reported.  Written behind: what is lost comes with the next report."""
        lines = [
            {
                "node_id": node_id,
                "version": 1,
                "host": one.host[:HOST_MAX],
                "incarnation": one.incarnation,
                "first_seen_ns": one.at_ns,
                "last_seen_ns": one.at_ns,
                "drain_ns": 0,
                "drain_forced": False,
            }
            for node_id, one in sorted(seen.items())
        ]

        def change(connection: Connection) -> None:
            connection.execute(
                upserting(
                    connection,
                    node,
                    lambda new: {
                        "host": new.host,
                        "incarnation": new.incarnation,
                        "last_seen_ns": larger(node.c.last_seen_ns, new.last_seen_ns),
                    },
                ),
                lines,
            )

        if lines:
            write(self._engine, "see nodes", change)

    def get(self, node_id: str) -> NodeRow:
        """One node.

        Raises:
            Unknown: it never reported, or was forgotten.
        """
        with reading(self._engine, "node") as connection:
            row = connection.execute(select(node).where(node.c.node_id == node_id)).first()
        if row is None:
            raise Unknown(f"node {node_id}")
        return _node(row)

    def page(self, after: str | None = None, limit: int = PAGE_ROWS) -> tuple[list[NodeRow], NodeId | None]:
        """A part of the nodes, ordered by id, and what to give as `after` for the next one; none: it is the last."""
        query = select(node).order_by(node.c.node_id).limit(limit + 1)
        if after is not None:
            query = query.where(node.c.node_id > after)
        with reading(self._engine, "list nodes") as connection:
            rows = connection.execute(query).all()
        return [_node(row) for row in rows[:limit]], rows[limit - 1].node_id if len(rows) > limit else None

    def drains(self) -> dict[NodeId, DrainOrder]:
        """Every order to drain that holds."""
        with reading(self._engine, "drains") as connection:
            found = [_node(row) for row in connection.execute(select(node).where(node.c.drain_by.is_not(None)))]
        return {one.node_id: one.drain for one in found if one.drain is not None}

    def order_drain(self, node_id: str, version: int, order: DrainOrder) -> NodeRow:
        """Order a node to drain; an order that held before is replaced.

        Raises:
            Unknown: there is no such node.
            Stale: it has another version.
        """
        values = {"drain_by": order.by, "drain_ns": order.at_ns, "drain_forced": order.forced}
        return self._changed(node_id, version, "drain", lambda _row: values)

    def end_drain(self, node_id: str, version: int) -> NodeRow:
        """Take the order to drain back; harmless when there is none.

        Raises:
            Unknown: there is no such node.
            Stale: it has another version.
        """
        values = {"drain_by": None, "drain_ns": 0, "drain_forced": False}
        return self._changed(node_id, version, "undrain", lambda row: values if row.drain_by is not None else {})

    def forget(self, node_id: str, version: int) -> None:
        """Delete a node that is gone for good; when it reports again it is a new one.

        Raises:
            Unknown: there is no such node.
            Stale: it has another version.
        """

        def change(connection: Connection) -> None:
            _locked(connection, node_id, version)
            connection.execute(delete(node).where(node.c.node_id == node_id))

        write(self._engine, "forget node", change)

    def _changed(
        self, node_id: str, version: int, what: str, values_for: Callable[[Row[Any]], dict[str, Any]]
    ) -> NodeRow:
        def change(connection: Connection) -> NodeRow:
            values = values_for(_locked(connection, node_id, version))
            if values:
                values = {**values, "version": version + 1}
                connection.execute(update(node).where(node.c.node_id == node_id).values(values))
            return _node(connection.execute(select(node).where(node.c.node_id == node_id)).one())

        return write(self._engine, what, change)


def _locked(connection: Connection, node_id: str, version: int) -> Row[Any]:
    row = connection.execute(select(node).where(node.c.node_id == node_id).with_for_update()).first()
    if row is None:
        raise Unknown(f"node {node_id}")
    if row.version != version:
        raise Stale(f"node {node_id}", version, row.version)
    return row


def _node(row: Row[Any]) -> NodeRow:
    ordered = row.drain_by is not None
    return NodeRow(
        node_id=row.node_id,
        version=row.version,
        host=row.host,
        incarnation=row.incarnation,
        first_seen_ns=row.first_seen_ns,
        last_seen_ns=row.last_seen_ns,
        drain=DrainOrder(row.drain_by, row.drain_ns, bool(row.drain_forced)) if ordered else None,
    )
