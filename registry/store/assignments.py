"""Who owned which camera, from when to when and why.  Written behind, so in any order and perhaps twice.

A grant is known by its camera and epoch.  Whatever the order in which grants come, only the one with the highest epoch
stays open.  The truth of this second is in Redis (or the registry's memory); here is what outlives both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, bindparam, delete, select, update

from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import CameraId
from nodeagent.contract.ownership import Owner
from nodeagent.infra.database import reading, write
from nodeagent.infra.registry_tables import REASON_MAX, assignment, camera_epoch
from registry.store.epochs import raise_epochs
from registry.store.statements import chunks, upserting

#: Rows of a history or list when nobody says how many.
PAGE_ROWS: Final = 100
#: Grants that are forgotten in one transaction: short enough that nobody waits long for it.
FORGET_ROWS: Final = 1000
#: Why a grant ended that a newer one followed.
FOLLOWED: Final = "a newer grant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A camera given to an owner.

    Attributes:
        reason: in words, why it had to be placed: such as `node rack1 is dead`.
        explanation: why there, and what else was considered; anything that is JSON.
        granted_ns: wall clock, UTC ns.
    """

    camera_id: CameraId
    owner: Owner
    reason: str
    granted_ns: int
    explanation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of a grant that no newer one follows at once.

    Attributes:
        epoch: of the grant.
        reason: in words.
        ended_ns: wall clock, UTC ns.
    """

    camera_id: CameraId
    epoch: int
    reason: str
    ended_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A grant as the database has it.

    Attributes:
        ended_ns: none: it is the current one.
        end_reason: empty while it is.
    """

    grant: Grant
    ended_ns: int | None
    end_reason: str


class Assignments:
    """Assignments and their history.  Every method raises Unavailable when the database is away, and DecodeError when
    somebody else wrote into a row.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, grants: Sequence[Grant], now_ns: int) -> None:
        """Write grants down, and end those that they follow.  Harmless when repeated: a grant that is known stays."""
        for part in chunks(sorted(grants, key=lambda grant: (grant.camera_id, grant.owner.epoch))):
            write(self._engine, "record grants", partial(_record, grants=part, now_ns=now_ns))

    def end(self, ends: Sequence[End]) -> None:
        """Write down that grants ended; those that had ended, and unknown ones, are left as they are."""
        lines = [
            {"at": end.camera_id, "number": end.epoch, "ended_ns": end.ended_ns, "end_reason": end.reason[:REASON_MAX]}
            for end in sorted(ends, key=lambda end: end.camera_id)
        ]
        for part in chunks(lines):
            write(self._engine, "end grants", partial(_end, lines=part))

    def current(self, camera_ids: Iterable[str]) -> dict[CameraId, Assignment]:
        """The open grant of each of these cameras that has one."""
        found: dict[CameraId, Assignment] = {}
        with reading(self._engine, "current grants") as connection:
            for part in chunks(sorted(set(camera_ids))):
                query = select(assignment).where(assignment.c.camera_id.in_(part), assignment.c.ended_ns.is_(None))
                found |= {row.camera_id: _assignment(row) for row in connection.execute(query)}
        return found

    def owners(self) -> dict[CameraId, Owner]:
        """Who owns which camera, as far as the database knows: to rebuild a Redis that lost all."""
        columns = ("camera_id", "node_id", "incarnation", "epoch")
        query = select(*(assignment.c[name] for name in columns)).where(assignment.c.ended_ns.is_(None))
        with reading(self._engine, "owners") as connection:
            rows = connection.execute(query).all()
        return {row.camera_id: _owner(row) for row in rows}

    def page(
        self, after: str | None = None, limit: int = PAGE_ROWS, node_id: str | None = None
    ) -> tuple[list[Assignment], CameraId | None]:
        """A part of the open grants, ordered by camera, and what to give as `after` for the next one; none: it is the
        last.  With `node_id` only those of this node.
        """
        query = select(assignment).where(assignment.c.ended_ns.is_(None))
        if after is not None:
            query = query.where(assignment.c.camera_id > after)
        if node_id is not None:
            query = query.where(assignment.c.node_id == node_id)
        with reading(self._engine, "list grants") as connection:
            rows = connection.execute(query.order_by(assignment.c.camera_id).limit(limit + 1)).all()
        return [_assignment(row) for row in rows[:limit]], rows[limit - 1].camera_id if len(rows) > limit else None

    def history(self, camera_id: str, below: int | None = None, limit: int = PAGE_ROWS) -> list[Assignment]:
        """Grants of a camera, newest first, with `below` only those of a lower epoch."""
        query = select(assignment).where(assignment.c.camera_id == camera_id)
        if below is not None:
            query = query.where(assignment.c.epoch < below)
        with reading(self._engine, "history of grants") as connection:
            rows = connection.execute(query.order_by(assignment.c.epoch.desc()).limit(limit)).all()
        return [_assignment(row) for row in rows]

    def forget(self, before_ns: int) -> int:
        """Delete some grants that ended before this time; returns how many, 0 when there are none left."""
        over = assignment.c.ended_ns < before_ns

        def change(connection: Connection) -> int:
            query = select(assignment.c.camera_id, assignment.c.epoch).where(over).limit(FORGET_ROWS)
            keys = connection.execute(query).all()
            for part in chunks(keys):
                lines = [{"at": row.camera_id, "number": row.epoch} for row in part]
                known = (assignment.c.camera_id == bindparam("at")) & (assignment.c.epoch == bindparam("number"))
                connection.execute(delete(assignment).where(known, over), lines)
            return len(keys)

        return write(self._engine, "forget grants", change)


def _end(connection: Connection, lines: Sequence[dict[str, Any]]) -> None:
    known = (assignment.c.camera_id == bindparam("at")) & (assignment.c.epoch == bindparam("number"))
    connection.execute(update(assignment).where(known, assignment.c.ended_ns.is_(None)), list(lines))


def _record(connection: Connection, grants: Sequence[Grant], now_ns: int) -> None:
    highest: dict[CameraId, int] = {}
    for grant in grants:
        highest[grant.camera_id] = max(grant.owner.epoch, highest.get(grant.camera_id, 0))
    # First, because it locks: whoever else records a grant of these cameras waits, so only one grant stays open.
    raise_epochs(connection, highest)
    kept = upserting(connection, assignment, lambda _new: {"epoch": assignment.c.epoch})
    connection.execute(kept, [_line(grant) for grant in grants])
    newest = select(camera_epoch.c.epoch).where(camera_epoch.c.camera_id == assignment.c.camera_id).scalar_subquery()
    connection.execute(
        update(assignment)
        .where(
            assignment.c.camera_id.in_(sorted(highest)),
            assignment.c.ended_ns.is_(None),
            assignment.c.epoch < newest,
        )
        .values(ended_ns=now_ns, end_reason=FOLLOWED)
    )


def _line(grant: Grant) -> dict[str, Any]:
    return {
        "camera_id": grant.camera_id,
        "epoch": grant.owner.epoch,
        "node_id": grant.owner.node_id,
        "incarnation": grant.owner.incarnation,
        "reason": grant.reason[:REASON_MAX],
        "explanation": json.dumps(dict(grant.explanation), sort_keys=True),
        "granted_ns": grant.granted_ns,
        "end_reason": "",
    }


def _owner(row: Row[Any]) -> Owner:
    return Owner.model_construct(node_id=row.node_id, incarnation=row.incarnation, epoch=row.epoch)


def _assignment(row: Row[Any]) -> Assignment:
    try:
        explanation = json.loads(row.explanation)
    except ValueError:
        raise DecodeError(f"table assignment, {row.camera_id}, epoch {row.epoch}: explanation: not JSON") from None
    grant = Grant(
        camera_id=row.camera_id,
        owner=_owner(row),
        reason=row.reason,
        granted_ns=row.granted_ns,
        explanation=explanation,
    )
    return Assignment(grant=grant, ended_ns=row.ended_ns, end_reason=row.end_reason)
