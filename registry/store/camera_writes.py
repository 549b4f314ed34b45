"""How cameras are written: many or one, always the same way and within the caller's transaction.

Order of locks, everywhere: the rows of `camera` by their id, then the counter.  A transaction that is killed leaves
nothing behind; one that was committed without the caller hearing of it is found out by its version.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import Fault
from nodeagent.contract.kept import why_no_name
from nodeagent.infra.registry_tables import camera, camera_history, camera_label
from registry.secrets import Vault
from registry.store.camera_record import CameraDraft, stored_labels, stored_spec
from registry.store.counters import CAMERAS_VERSION, grow
from registry.store.errors import Invalid
from registry.store.rules import record_rules
from registry.store.statements import chunks, upserting
from registry.store.stream_secrets import Apart, known_urls, take_apart

#: Longest text of a history's `what`, characters.
WHAT_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Writer:
    """Who changes something, and when.

    Attributes:
        by: name of the token, or of the command.
        now_ns: wall clock, UTC ns.
    """

    by: str
    now_ns: int


@dataclass(frozen=True, slots=True)
class _Write:
    """One row of `camera` as it shall be."""

    camera_id: str
    what: str
    old: Row[Any] | None
    columns: Mapping[str, Any]
    #: Before and after, as far as their rules count; none: there is no camera.
    before: CameraSpec | None
    after: CameraSpec | None


def lock_cameras(connection: Connection, camera_ids: Iterable[str]) -> dict[str, Row[Any]]:
    """Lock the rows of these cameras, deleted ones included, and return them by id; missing ones are left out."""
    found: dict[str, Row[Any]] = {}
    for part in chunks(sorted(set(camera_ids))):
        query = select(camera).where(camera.c.camera_id.in_(part)).order_by(camera.c.camera_id).with_for_update()
        found |= {row.camera_id: row for row in connection.execute(query)}
    return found


def write_draft(connection: Connection, draft: CameraDraft, row: Row[Any] | None, vault: Vault, writer: Writer) -> None:
    """Write one camera whose row, if there is one, is locked.

    Raises:
        Invalid: the draft cannot be kept.
    """
    write = _planned(draft, row, vault)
    _store(connection, [] if write is None else [write], writer)


def write_drafts(
    connection: Connection, drafts: Iterable[CameraDraft], rows: Mapping[str, Row[Any]], vault: Vault, writer: Writer
) -> list[str]:
    """Write many cameras whose rows are locked; returns the ids of those that differed from what was there.

    Raises:
        Invalid: some drafts cannot be kept; each path begins with the camera's id.
    """
    writes, faults = [], []
    for draft in sorted(drafts, key=lambda draft: draft.camera_id):
        try:
            write = _planned(draft, rows.get(draft.camera_id), vault)
        except Invalid as exc:
            faults += [Fault(f"{draft.camera_id}.{fault.path}", fault.message, fault.value) for fault in exc.faults]
        else:
            writes += [write] if write is not None else []
    if faults:
        raise Invalid(faults)
    _store(connection, writes, writer)
    return [write.camera_id for write in writes]


def differs(draft: CameraDraft, row: Row[Any], vault: Vault) -> bool:
    """Whether writing this draft over a row would change anything; one that cannot be written does not go with it."""
    try:
        return _planned(draft, row, vault) is not None
    except Invalid:
        return True


def write_deleted(connection: Connection, row: Row[Any], writer: Writer) -> None:
    """Mark a camera whose row is locked as deleted.  Its stream credentials are gone for good."""
    columns = {**_kept(row), "sealed": None, "key_id": None, "deleted": True}
    _store(connection, [_Write(row.camera_id, "deleted", row, columns, stored_spec(row), None)], writer)


def write_version_above(connection: Connection, row: Row[Any], version: int, writer: Writer) -> None:
    """Give a camera whose row is locked a version above this one, and change nothing else."""
    write = _Write(row.camera_id, f"version {version} was seen elsewhere", row, _kept(row), None, None)
    _store(connection, [write], writer, least=version + 1)


def _kept(row: Row[Any]) -> dict[str, Any]:
    names = ("name", "spec", "sealed", "key_id", "enabled", "group_path", "labels", "deleted")
    return {name: row._mapping[name] for name in names}


def _planned(draft: CameraDraft, row: Row[Any] | None, vault: Vault) -> _Write | None:
    """How to write a draft; None when nothing would change."""
    if why := why_no_name(draft.spec.name):
        raise Invalid([Fault("name", why)])
    # Of a deleted camera nothing is taken over but its version.
    old = row if row is not None and not row.deleted else None
    before = None if old is None else stored_spec(old)
    known = {} if old is None or before is None else known_urls(old, before, vault)
    apart = take_apart(draft.spec, known, vault)
    columns = {
        "name": draft.spec.name,
        "spec": apart.spec,
        "sealed": apart.sealed,
        "key_id": apart.key_id,
        "enabled": draft.enabled,
        "group_path": draft.group,
        "labels": json.dumps(dict(draft.labels), sort_keys=True),
        "deleted": False,
    }
    what = "made" if old is None or before is None else _difference(old, before, draft, apart)
    return _Write(draft.camera_id, what[:WHAT_MAX], row, columns, before, draft.spec) if what else None


def _difference(old: Row[Any], before: CameraSpec, draft: CameraDraft, apart: Apart) -> str:
    """In words, what a draft changes; empty: nothing."""
    was, becomes = before.model_dump(mode="json"), draft.spec.model_dump(mode="json")
    changed = [name for name in becomes if was[name] != becomes[name]]
    changed += ["stream credentials"] * apart.secrets_changed
    changed += ["enabled"] * (bool(old.enabled) != draft.enabled) + ["group"] * (old.group_path != draft.group)
    changed += ["labels"] * (stored_labels(old) != dict(draft.labels))
    return f"changed: {', '.join(changed)}" if changed else ""


def _store(connection: Connection, writes: Sequence[_Write], writer: Writer, least: int = 1) -> None:
    if not writes:
        return
    change_no = grow(connection, CAMERAS_VERSION, writer.now_ns)
    common = {"changed_by": writer.by, "changed_ns": writer.now_ns, "change_no": change_no}
    made = {"created_by": writer.by, "created_ns": writer.now_ns}
    new, changed, history = [], [], []
    for write in writes:
        version = max(least, write.old.version + 1 if write.old is not None else 1)
        values = {**write.columns, **common, "camera_id": write.camera_id, "version": version}
        if write.old is None:
            new.append({**values, **made})
        else:
            again = write.old.deleted and not write.columns["deleted"]
            kept = {"created_by": write.old.created_by, "created_ns": write.old.created_ns}
            changed.append({**values, **(made if again else kept)})
        history.append({**values, "what": write.what})
    if new:
        connection.execute(insert(camera), new)
    if changed:
        # All in one statement on MySQL, where an UPDATE is one round trip a row.  The rows are there, and locked.
        columns = [column.name for column in camera.c if column.name != "camera_id"]
        query = upserting(connection, camera, lambda row: {name: row[name] for name in columns})
        connection.execute(query, changed)
    wanted = set(camera_history.c.keys())
    connection.execute(
        insert(camera_history), [{name: line[name] for name in line if name in wanted} for line in history]
    )
    _store_labels(connection, writes)
    rules = {write.camera_id: (write.before, write.after) for write in writes}
    record_rules(connection, rules, writer.by, writer.now_ns)


def _store_labels(connection: Connection, writes: Sequence[_Write]) -> None:
    for part in chunks([write.camera_id for write in writes if write.old is not None]):
        connection.execute(delete(camera_label).where(camera_label.c.camera_id.in_(part)))
    lines = [
        {"camera_id": write.camera_id, "name": name, "value": value}
        for write in writes
        if not write.columns["deleted"]
        for name, value in json.loads(write.columns["labels"]).items()
    ]
    if lines:
        connection.execute(insert(camera_label), lines)
