"""Named sets of parameters, such as those of a tracker.  Every version stays; the highest one counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, func, insert, select

from nodeagent.contract.errors import DecodeError, Fault
from nodeagent.contract.ids import ModelName
from nodeagent.infra.database import reading, write
from nodeagent.infra.registry_tables import algorithm
from registry.store.errors import Invalid, Stale, Unknown

#: Rows of a list when nobody says how many.
PAGE_ROWS: Final = 100
#: Largest set of parameters, characters of JSON: it is sent to every node.
PARAMETERS_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmVersion:
    """One version of a set of parameters.

    Attributes:
        parameters: none: with this version it was taken out.
        created_ns: wall clock, UTC ns.
    """

    name: ModelName
    version: int
    parameters: Mapping[str, Any] | None
    author: str
    created_ns: int


class Algorithms:
    """The sets of parameters of one database.  Every method raises Unavailable when the database is away, and
    DecodeError when somebody else wrote into a row.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, name: str) -> AlgorithmVersion:
        """The version that counts.

        Raises:
            Unknown: there is none, or it was taken out.
        """
        found = self.history(name, limit=1)
        if not found or found[0].parameters is None:
            raise Unknown(f"algorithm {name}")
        return found[0]

    def page(self, after: str | None = None, limit: int = PAGE_ROWS) -> tuple[list[AlgorithmVersion], ModelName | None]:
        """A part of the list of those that count, ordered by name, and what to give as `after` for the next one; none:
        it is the last.
        """
        newest = (
            select(algorithm.c.name, func.max(algorithm.c.version).label("top")).group_by(algorithm.c.name).subquery()
        )
        same = (algorithm.c.name == newest.c.name) & (algorithm.c.version == newest.c.top)
        query = select(algorithm).join(newest, same).where(algorithm.c.parameters.is_not(None))
        if after is not None:
            query = query.where(algorithm.c.name > after)
        with reading(self._engine, "list algorithms") as connection:
            rows = connection.execute(query.order_by(algorithm.c.name).limit(limit + 1)).all()
        return [_version(row) for row in rows[:limit]], rows[limit - 1].name if len(rows) > limit else None

    def history(self, name: str, below: int | None = None, limit: int = PAGE_ROWS) -> list[AlgorithmVersion]:
        """Versions, newest first, with `below` only those before this version."""
        query = select(algorithm).where(algorithm.c.name == name)
        if below is not None:
            query = query.where(algorithm.c.version < below)
        with reading(self._engine, "history of algorithm") as connection:
            rows = connection.execute(query.order_by(algorithm.c.version.desc()).limit(limit)).all()
        return [_version(row) for row in rows]

    def put(self, name: str, parameters: Mapping[str, Any], version: int, author: str, now_ns: int) -> AlgorithmVersion:
        """Make a set of parameters (`version` 0) or replace it.

        Raises:
            Stale: it has another version; 0 as well when it was taken out.
            Invalid: the parameters are no JSON object, or too large.
        """
        return self._add(name, parameters, version, author, now_ns)

    def take_out(self, name: str, version: int, author: str, now_ns: int) -> None:
        """Let a set of parameters count no more; its versions stay.

        Raises:
            Unknown: there is none.
            Stale: it has another version.
        """
        self._add(name, None, version, author, now_ns)

    def _add(
        self, name: str, parameters: Mapping[str, Any] | None, version: int, author: str, now_ns: int
    ) -> AlgorithmVersion:
        text = None if parameters is None else _checked(parameters)

        def change(connection: Connection) -> int:
            query = select(algorithm).where(algorithm.c.name == name).order_by(algorithm.c.version.desc()).limit(1)
            row = connection.execute(query).first()
            newest = 0 if row is None else row.version
            found = 0 if row is None or row.parameters is None else newest
            if text is None and not found:
                raise Unknown(f"algorithm {name}")
            if found != version:
                raise Stale(f"algorithm {name}", version, found)
            # Two who write at once make the same version; the key lets one in, and the other one starts again.
            values = {"name": name, "version": newest + 1, "parameters": text, "author": author, "created_ns": now_ns}
            connection.execute(insert(algorithm).values(values))
            return newest + 1

        made = write(self._engine, "put algorithm", change)
        return AlgorithmVersion(name=name, version=made, parameters=parameters, author=author, created_ns=now_ns)


def _checked(parameters: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(dict(parameters), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise Invalid([Fault("parameters", "expected an object of JSON, without NaN or infinity")]) from None
    if len(text) > PARAMETERS_MAX:
        raise Invalid([Fault("parameters", f"expected at most {PARAMETERS_MAX} characters", str(len(text)))])
    return text


def _version(row: Row[Any]) -> AlgorithmVersion:
    try:
        found = None if row.parameters is None else json.loads(row.parameters)
    except ValueError:
        raise DecodeError(f"table algorithm, {row.name}, version {row.version}: parameters: not JSON") from None
    return AlgorithmVersion(
        name=row.name, version=row.version, parameters=found, author=row.author, created_ns=row.created_ns
    )
