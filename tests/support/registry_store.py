"""Cameras, keys and whole copies of the database for tests of the registry's store."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, delete, insert, select

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.rule import Rule
from nodeagent.infra import registry_tables
from registry.secrets import Key, Vault
from registry.store.camera_record import CameraDraft
from registry.store.camera_writes import Writer

#: 2026-01-01, UTC ns.
T0 = 1_767_225_600_000_000_000
#: What must be nowhere in clear.
PASSWORD = "hunter2"
OLD_KEY, NEW_KEY = Key("0000000a", bytes(range(32))), Key("0000000b", bytes(range(1, 33)))
TABLES = [
    getattr(registry_tables, name)
    for name in (
        "camera", "camera_label", "camera_history", "rule", "algorithm",
        "assignment", "camera_epoch", "node", "token", "counter",
    )
]  # fmt: skip


def vault(*keys: Key) -> Vault:
    return Vault(keys or (OLD_KEY,))


def writer(seconds: float = 0, by: str = "anna") -> Writer:
    return Writer(by, T0 + int(seconds * 1e9))


def url(camera_id: str = "gate-1", password: str = PASSWORD, path: str = "main") -> str:
    return f"rtsp://viewer:{password}@{camera_id}.example:554/{path}"


def rule(rule_id: str = "no-entry", **values: Any) -> Rule:
    zone = {"name": "lane", "polygon": [[0, 0], [0.5, 0], [0.5, 1]]}
    spec = {"camera_id": "x", "record": {"url": "a.mp4"}, "rules": [{"rule_id": rule_id, "zones": [zone], **values}]}
    spec["rules"][0].setdefault("kind", "intrusion")  # type: ignore[index]
    return CameraSpec.model_validate(spec).rules[0]


def draft(camera_id: str = "gate-1", **values: Any) -> CameraDraft:
    """A camera with a password in its URL; `values` are of the spec, or `enabled`, `group` and `labels`."""
    outer = {name: values.pop(name) for name in ("enabled", "group", "labels") if name in values}
    spec = {"camera_id": camera_id, "record": {"url": url(camera_id)}, **values}
    return CameraDraft(spec=CameraSpec.model_validate(spec), **outer)


def copy_of(engine: Engine) -> dict[Any, list[dict[str, Any]]]:
    """All rows of the registry, as a backup has them."""
    with engine.connect() as connection:
        return {table: [dict(row._mapping) for row in connection.execute(select(table))] for table in TABLES}


def restore(engine: Engine, backup: dict[Any, list[dict[str, Any]]]) -> None:
    with engine.begin() as connection:
        for table, rows in backup.items():
            connection.execute(delete(table))
            if rows:
                connection.execute(insert(table), rows)


def in_clear(engine: Engine) -> str:
    """Everything that the registry's tables hold."""
    return repr([list(rows) for rows in copy_of(engine).values()])
