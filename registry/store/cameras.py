"""Cameras in the database: what is wanted of each, who changed it, and every version of it.

Every change of one camera names the version that its writer saw, so two who change it at once cannot overwrite each
other: the second one is told `Stale`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, Select, select, update

from nodeagent.contract.errors import Fault
from nodeagent.contract.ids import CameraId, RuleId
from nodeagent.contract.rule import Rule
from nodeagent.infra.database import reading, write
from nodeagent.infra.registry_tables import camera, camera_history, camera_label
from registry.secrets import Unreadable, Vault
from registry.store.camera_record import (
    CameraDraft,
    CameraFilter,
    CameraPage,
    CameraRow,
    CameraVersion,
    camera_row,
    camera_version,
    stored_spec,
)
from registry.store.camera_writes import (
    Writer,
    lock_cameras,
    write_deleted,
    write_draft,
    write_drafts,
    write_version_above,
)
from registry.store.counters import CAMERAS_VERSION, value
from registry.store.errors import Invalid, Stale, Unknown
from registry.store.rules import newest_versions
from registry.store.statements import chunks
from registry.store.stream_secrets import put_together, sealed_anew

#: Rows of a part of the list when nobody says how many.
PAGE_ROWS: Final = 100
#: Cameras whose credentials are encrypted anew in one transaction.
REKEY_ROWS: Final = 200


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    Attributes:
        made: cameras that were not there.
        changed: cameras that were there and differed.
        same: cameras that were there as they are in the file.
    """

    made: tuple[CameraId, ...]
    changed: tuple[CameraId, ...]
    same: tuple[CameraId, ...]


class Cameras:
    """The cameras of one database.

    Every method raises Unavailable when the database is away, and DecodeError when somebody else wrote into a row.
    """

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine = engine
        self._vault = vault

    # Reading.

    def version(self) -> int:
        """`cameras_version`: grows with every change of any camera; 0: there never was one."""
        with reading(self._engine, "cameras version") as connection:
            return value(connection, CAMERAS_VERSION)

    def get(self, camera_id: str, reveal: bool = False) -> CameraRow:
        """One camera, with `reveal` its URLs in clear.

        Raises:
            Unknown: there is none.
        """
        found = self.get_many([camera_id], reveal)
        if camera_id not in found:
            raise Unknown(f"camera {camera_id}")
        return found[camera_id]

    def get_many(self, camera_ids: Iterable[str], reveal: bool = False) -> dict[CameraId, CameraRow]:
        """Those of these cameras that there are, by id.  One whose URLs cannot be decrypted has them redacted and says
        so in `trouble`: the others are served none the less.
        """
        found: dict[CameraId, CameraRow] = {}
        with reading(self._engine, "cameras") as connection:
            for part in chunks(sorted(set(camera_ids))):
                query = select(camera).where(camera.c.camera_id.in_(part), camera.c.deleted.is_(False))
                found |= {row.camera_id: self._row(row, reveal) for row in connection.execute(query)}
        return found

    def page(self, after: str | None = None, limit: int = PAGE_ROWS, which: CameraFilter | None = None) -> CameraPage:
        """A part of the list, ordered by id.

        Args:
            after: what the part before it said; none: the first part.
            limit: rows at most.
            which: all, when left out.
        """
        query = _narrowed(which or CameraFilter()).order_by(camera.c.camera_id).limit(limit + 1)
        if after is not None:
            query = query.where(camera.c.camera_id > after)
        with reading(self._engine, "list cameras") as connection:
            rows = [camera_row(row) for row in connection.execute(query)]
        more = len(rows) > limit
        return CameraPage(tuple(rows[:limit]), rows[limit - 1].camera_id if more else None)

    def changed_since(self, change_no: int, limit: int = 1000) -> list[CameraRow]:
        """Cameras, deleted ones included, that changed after this `cameras_version`, the earliest change first.

        One import changes many at the same number, so more than `limit` rows come rather than a part of them.
        """
        query = select(camera).where(camera.c.change_no > change_no).order_by(camera.c.change_no, camera.c.camera_id)
        with reading(self._engine, "changed cameras") as connection:
            rows = list(connection.execute(query.limit(limit)))
            if len(rows) == limit:
                rest = select(camera).where(
                    camera.c.change_no == rows[-1].change_no, camera.c.camera_id > rows[-1].camera_id
                )
                rows += connection.execute(rest.order_by(camera.c.camera_id))
        return [camera_row(row) for row in rows]

    def knows(self, row: CameraRow) -> bool:
        """Whether the history has the change that made this row; a database of before it has none, or another one."""
        made = (camera_history.c.camera_id == row.camera_id) & (camera_history.c.version == row.version)
        query = select(camera_history.c.changed_by, camera_history.c.changed_ns).where(made)
        with reading(self._engine, "camera history") as connection:
            found = connection.execute(query).first()
        return found is not None and (found.changed_by, found.changed_ns) == (row.changed_by, row.changed_ns)

    def history(self, camera_id: str, below: int | None = None, limit: int = PAGE_ROWS) -> list[CameraVersion]:
        """Versions of a camera, deleted or not, newest first; with `below` only those before this version."""
        query = select(camera_history).where(camera_history.c.camera_id == camera_id)
        if below is not None:
            query = query.where(camera_history.c.version < below)
        with reading(self._engine, "camera history") as connection:
            rows = connection.execute(query.order_by(camera_history.c.version.desc()).limit(limit)).all()
        return [camera_version(row) for row in rows]

    def rule_versions(self, camera_id: str) -> dict[RuleId, int]:
        """The version of each rule that the camera has.

        Raises:
            Unknown: there is no such camera.
        """
        has = {rule.rule_id for rule in self.get(camera_id).spec.rules}
        with reading(self._engine, "rule versions") as connection:
            newest = newest_versions(connection, [camera_id])
        return {rule_id: number for (_, rule_id), number in newest.items() if rule_id in has}

    def holds_credentials(self) -> bool:
        """See the function of this name."""
        return holds_credentials(self._engine)

    # Writing.

    def make(self, draft: CameraDraft, writer: Writer) -> CameraRow:
        """Make a camera.  One that was deleted goes on with its versions.

        Raises:
            Stale: there is one.
            Invalid: it cannot be kept.
        """

        def change(connection: Connection) -> CameraRow:
            old = lock_cameras(connection, [draft.camera_id]).get(draft.camera_id)
            if old is not None and not old.deleted:
                raise Stale(f"camera {draft.camera_id}", 0, old.version)
            return self._written(connection, draft, old, writer)

        return write(self._engine, "make camera", change)

    def change(self, draft: CameraDraft, version: int, writer: Writer) -> CameraRow:
        """Replace a camera, rules included; a draft that changes nothing leaves its version as it is.

        Raises:
            Unknown: there is none.
            Stale: it has another version.
            Invalid: the draft cannot be kept.
        """

        def change(connection: Connection) -> CameraRow:
            row = _locked(connection, draft.camera_id, version)
            return self._written(connection, draft, row, writer)

        return write(self._engine, "change camera", change)

    def delete(self, camera_id: str, version: int, writer: Writer) -> None:
        """Delete a camera and, for good, its stream credentials.

        Raises:
            Unknown: there is none.
            Stale: it has another version.
        """

        def change(connection: Connection) -> None:
            write_deleted(connection, _locked(connection, camera_id, version), writer)

        write(self._engine, "delete camera", change)

    def put_rule(self, camera_id: str, rule: Rule, version: int, writer: Writer) -> CameraRow:
        """Make (`version` 0) or replace one rule of a camera.  The version is the rule's own.

        Raises:
            Unknown: there is no such camera.
            Stale: the rule has another version.
            Invalid: the camera cannot be kept.
        """
        return self._change_rules(camera_id, rule.rule_id, rule, version, writer)

    def take_out_rule(self, camera_id: str, rule_id: str, version: int, writer: Writer) -> CameraRow:
        """Take one rule out of a camera.  The version is the rule's own.

        Raises:
            Unknown: there is no such camera or rule.
            Stale: the rule has another version.
            Invalid: the camera cannot be kept.
        """
        return self._change_rules(camera_id, rule_id, None, version, writer)

    def bring_in(self, drafts: Sequence[CameraDraft], overwrite: bool, writer: Writer) -> Imported:
        """Write many cameras in one transaction: all of them or none.

        Args:
            drafts: whatever their order.
            overwrite: replace those that are there and differ.

        Raises:
            Stale: one is there and differs, and `overwrite` is not said.
            Invalid: some cannot be kept; lists every fault of all of them.
        """
        ids = Counter(draft.camera_id for draft in drafts)
        if twice := [camera_id for camera_id, times in ids.items() if times > 1]:
            raise Invalid(Fault(f"{camera_id}.camera_id", "two cameras have this id") for camera_id in twice)

        def change(connection: Connection) -> Imported:
            rows = lock_cameras(connection, [draft.camera_id for draft in drafts])
            there = {camera_id for camera_id, row in rows.items() if not row.deleted}
            written = write_drafts(connection, drafts, rows, self._vault, writer)
            differ = [camera_id for camera_id in written if camera_id in there]
            if differ and not overwrite:
                raise Stale(f"camera {differ[0]}", 0, rows[differ[0]].version)
            return Imported(
                made=tuple(camera_id for camera_id in written if camera_id not in there),
                changed=tuple(differ),
                same=tuple(sorted(there - set(written))),
            )

        return write(self._engine, "import cameras", change)

    def outgrow(self, seen: Mapping[CameraId, int], writer: Writer) -> list[CameraId]:
        """Give cameras of which a higher version was seen elsewhere one above it; returns which.

        An older database was restored: its next versions would be taken for those that agents have already.
        """
        with reading(self._engine, "versions") as connection:
            behind = sorted(
                row.camera_id
                for part in chunks(sorted(seen))
                for row in connection.execute(
                    select(camera.c.camera_id, camera.c.version).where(camera.c.camera_id.in_(part))
                )
                if row.version < seen[row.camera_id]
            )

        def change(connection: Connection) -> list[CameraId]:
            rows = [row for row in lock_cameras(connection, behind).values() if row.version < seen[row.camera_id]]
            for row in rows:
                write_version_above(connection, row, seen[row.camera_id], writer)
            return [row.camera_id for row in rows]

        return write(self._engine, "outgrow versions", change) if behind else []

    def rekey(self, limit: int = REKEY_ROWS) -> int:
        """Encrypt the credentials of some cameras anew with the newest key; returns how many, 0 when all are.

        What cannot be decrypted is left as it is.  No version changes: nobody else notices.
        """

        def change(connection: Connection) -> int:
            other = camera.c.key_id.is_not(None) & (camera.c.key_id != self._vault.newest)
            done, after = 0, ""
            while done < limit:
                query = select(camera).where(other, camera.c.camera_id > after).order_by(camera.c.camera_id)
                rows = connection.execute(query.limit(limit - done).with_for_update()).all()
                for row in rows:
                    done += self._rekeyed(connection, row)
                if not rows:
                    break
                after = rows[-1].camera_id
            return done

        return write(self._engine, "encrypt anew", change)

    def _rekeyed(self, connection: Connection, row: Row[Any]) -> bool:
        try:
            sealed = sealed_anew(row, self._vault)
        except Unreadable:
            return False
        values = {"sealed": sealed, "key_id": self._vault.newest}
        connection.execute(update(camera).where(camera.c.camera_id == row.camera_id).values(values))
        return True

    def _row(self, row: Row[Any], reveal: bool) -> CameraRow:
        if not reveal:
            return camera_row(row)
        try:
            return camera_row(row, put_together(row, self._vault))
        except Unreadable as exc:
            return camera_row(row, trouble=str(exc))

    def _written(self, connection: Connection, draft: CameraDraft, old: Row[Any] | None, writer: Writer) -> CameraRow:
        write_draft(connection, draft, old, self._vault, writer)
        return camera_row(connection.execute(select(camera).where(camera.c.camera_id == draft.camera_id)).one())

    def _change_rules(self, camera_id: str, rule_id: str, rule: Rule | None, version: int, writer: Writer) -> CameraRow:
        def change(connection: Connection) -> CameraRow:
            row = _locked(connection, camera_id)
            spec = stored_spec(row)
            has = {one.rule_id: one for one in spec.rules}
            newest = newest_versions(connection, [camera_id]).get((camera_id, rule_id), 0) if rule_id in has else 0
            if rule is None and not newest:
                raise Unknown(f"camera {camera_id}, rule {rule_id}")
            if newest != version:
                raise Stale(f"camera {camera_id}, rule {rule_id}", version, newest)
            has = {name: one for name, one in has.items() if name != rule_id} if rule is None else has | {rule_id: rule}
            draft = camera_row(row, spec.model_copy(update={"rules": tuple(has.values())})).draft
            return self._written(connection, draft, row, writer)

        return write(self._engine, "change rule", change)


def holds_credentials(engine: Engine) -> bool:
    """Whether any camera's URLs are encrypted: then a missing key file must not be replaced by a new one.

    Raises:
        Unavailable: the database is away, or was never migrated.
    """
    with reading(engine, "credentials") as connection:
        query = select(camera.c.camera_id).where(camera.c.key_id.is_not(None)).limit(1)
        return connection.execute(query).first() is not None


def _locked(connection: Connection, camera_id: str, version: int | None = None) -> Row[Any]:
    """The row of a camera, locked.

    Raises:
        Unknown: there is none.
        Stale: it has another version than this one.
    """
    row = lock_cameras(connection, [camera_id]).get(camera_id)
    if row is None or row.deleted:
        raise Unknown(f"camera {camera_id}")
    if version is not None and row.version != version:
        raise Stale(f"camera {camera_id}", version, row.version)
    return row


def _narrowed(which: CameraFilter) -> Select[Any]:
    query = select(camera).where(camera.c.deleted.is_(False))
    if which.enabled is not None:
        query = query.where(camera.c.enabled.is_(which.enabled))
    if which.group:
        below = camera.c.group_path.startswith(f"{which.group}/", autoescape=True)
        query = query.where((camera.c.group_path == which.group) | below)
    if which.text:
        part = which.text
        query = query.where(
            camera.c.camera_id.icontains(part, autoescape=True) | camera.c.name.icontains(part, autoescape=True)
        )
    for name, wanted in which.labels.items():
        has = select(camera_label.c.camera_id).where(camera_label.c.name == name, camera_label.c.value == wanted)
        query = query.where(camera.c.camera_id.in_(has))
    return query
