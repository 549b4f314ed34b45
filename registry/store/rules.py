"""Versions of rules.  What holds now stands in the camera's spec; here is every version, who made it and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, Engine, Row, func, insert, select

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import CameraId, RuleId
from nodeagent.contract.rule import Rule
from nodeagent.infra.database import reading
from nodeagent.infra.registry_tables import rule
from registry.store.statements import chunks

_RULE: TypeAdapter[Rule] = TypeAdapter(Rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleVersion:
    """One version of a rule.

    Attributes:
        rule: none: with this version it was taken out.
        created_ns: wall clock, UTC ns.
    """

    camera_id: CameraId
    rule_id: RuleId
    version: int
    rule: Rule | None
    author: str
    created_ns: int


def record_rules(
    connection: Connection,
    changes: Mapping[str, tuple[CameraSpec | None, CameraSpec | None]],
    author: str,
    now_ns: int,
) -> None:
    """Write a version of each rule that differs between the specs before and after, by camera.

    The rows of these cameras are locked: nobody else writes versions of their rules meanwhile.
    """
    lines = [line for camera_id, specs in changes.items() for line in _changed(camera_id, *specs)]
    if not lines:
        return
    newest = newest_versions(connection, sorted({line["camera_id"] for line in lines}))
    for line in lines:
        line["version"] = newest.get((line["camera_id"], line["rule_id"]), 0) + 1
        line |= {"author": author, "created_ns": now_ns}
    connection.execute(insert(rule), lines)


def newest_versions(connection: Connection, camera_ids: list[str]) -> dict[tuple[str, str], int]:
    """The newest version of every rule that these cameras have or had, by camera and rule."""
    found: dict[tuple[str, str], int] = {}
    for part in chunks(camera_ids):
        query = (
            select(rule.c.camera_id, rule.c.rule_id, func.max(rule.c.version).label("newest"))
            .where(rule.c.camera_id.in_(part))
            .group_by(rule.c.camera_id, rule.c.rule_id)
        )
        found |= {(row.camera_id, row.rule_id): row.newest for row in connection.execute(query)}
    return found


def rule_history(engine: Engine, camera_id: str, rule_id: str, limit: int = 50) -> list[RuleVersion]:
    """Versions of a rule, newest first; none when there never was one.

    Raises:
        Unavailable: the database is away.
        DecodeError: a row that is none of ours.
    """
    query = (
        select(rule)
        .where(rule.c.camera_id == camera_id, rule.c.rule_id == rule_id)
        .order_by(rule.c.version.desc())
        .limit(limit)
    )
    with reading(engine, "rule history") as connection:
        rows = connection.execute(query).all()
    return [_version(row) for row in rows]


def _version(row: Row[Any]) -> RuleVersion:
    try:
        found = None if row.spec is None else _RULE.validate_json(row.spec)
    except ValidationError:
        raise DecodeError(f"table rule, {row.camera_id}, {row.rule_id}, version {row.version}: no rule") from None
    return RuleVersion(
        camera_id=row.camera_id,
        rule_id=row.rule_id,
        version=row.version,
        rule=found,
        author=row.author,
        created_ns=row.created_ns,
    )


def _changed(camera_id: str, before: CameraSpec | None, after: CameraSpec | None) -> Iterator[dict[str, Any]]:
    old = {one.rule_id: one for one in (before.rules if before else ())}
    new = {one.rule_id: one for one in (after.rules if after else ())}
    for rule_id in sorted(old.keys() | new.keys()):
        if old.get(rule_id) != new.get(rule_id):
            spec = new[rule_id].model_dump_json() if rule_id in new else None
            yield {"camera_id": camera_id, "rule_id": rule_id, "spec": spec}
