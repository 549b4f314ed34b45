"""Cameras of a file for a registry to begin with: it takes those that it never knew, and touches no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import Fault
from nodeagent.contract.ids import CameraId
from nodeagent.infra.database import write
from registry.secrets import Vault
from registry.store.camera_record import CameraDraft, camera_row
from registry.store.camera_writes import Writer, differs, lock_cameras, write_draft
from registry.store.errors import Invalid


@dataclass(frozen=True, slots=True)
class Seeded:
    """What became of the file's cameras; of those that are as in the file nothing is said.

    Attributes:
        made: they were not known.
        differ: they are known, and otherwise than in the file.
        deleted: they were known once.
        faults: why others cannot be kept; each path begins with the camera's id.
    """

    made: tuple[CameraId, ...]
    differ: tuple[CameraId, ...]
    deleted: tuple[CameraId, ...]
    faults: tuple[Fault, ...]


def seed(engine: Engine, vault: Vault, specs: Sequence[CameraSpec], writer: Writer) -> Seeded:
    """Write the cameras of a file that were never known, in one transaction.

    A deleted camera stays deleted: somebody wanted it gone, and the file still names it.

    Raises:
        Unavailable: the database is away; nothing was written.
        DecodeError: somebody else wrote into a row.
    """

    def change(connection: Connection) -> Seeded:
        rows = lock_cameras(connection, [spec.camera_id for spec in specs])
        made, faults = [], []
        for spec in sorted(specs, key=lambda spec: spec.camera_id):
            if spec.camera_id in rows:
                continue
            try:
                write_draft(connection, CameraDraft(spec=spec), None, vault, writer)
            except Invalid as exc:
                # Found before anything of it is written; the others are none the worse for it.
                faults += [Fault(f"{spec.camera_id}.{fault.path}", fault.message, fault.value) for fault in exc.faults]
            else:
                made.append(spec.camera_id)
        there = {spec.camera_id: rows[spec.camera_id] for spec in specs if spec.camera_id in rows}
        drafts = {
            spec.camera_id: camera_row(there[spec.camera_id]).draft.model_copy(update={"spec": spec})
            for spec in specs
            if spec.camera_id in there and not there[spec.camera_id].deleted
        }
        differ = [camera_id for camera_id, draft in drafts.items() if differs(draft, there[camera_id], vault)]
        deleted = [camera_id for camera_id, row in there.items() if row.deleted]
        return Seeded(tuple(made), tuple(sorted(differ)), tuple(sorted(deleted)), tuple(faults))

    return write(engine, "seed cameras", change)
