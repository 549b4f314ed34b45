"""Every camera's configuration, in memory, so that cameras can be placed and served while the database is away.

The clerk refreshes it; any thread reads it.  Rows hold stream credentials in clear: they are for the node that owns the
camera, and never for a log.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from nodeagent.contract.ids import CameraId
from registry.store.camera_record import CameraRow
from registry.store.camera_writes import Writer

#: Name under which versions that an older database lost are outgrown, in the history of cameras.
OUTGROWN_BY = "registry"


class CameraStore(Protocol):
    """What is asked of `store.cameras.Cameras`, which says what each call does and raises."""

    def version(self) -> int:
        """`cameras_version`."""
        ...

    def changed_since(self, change_no: int) -> list[CameraRow]:
        """Cameras that changed."""
        ...

    def knows(self, row: CameraRow) -> bool:
        """Whether the database has the change that made this row."""
        ...

    def get_many(self, camera_ids: Iterable[str], reveal: bool) -> dict[CameraId, CameraRow]:
        """Those of these cameras that there are."""
        ...

    def outgrow(self, seen: dict[CameraId, int], writer: Writer) -> list[CameraId]:
        """Give cameras a version above this one."""
        ...


class Catalogue:
    """All cameras that are not deleted.

    Attributes:
        restorations: how often the database was found to be an older one than before.
    """

    def __init__(self, store: CameraStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._rows: dict[CameraId, CameraRow] = {}
        self._wanted: frozenset[CameraId] = frozenset()
        self._version = 0
        #: The newest change that is known.
        self._newest: CameraRow | None = None
        self._is_loaded = False
        self.restorations = 0

    @property
    def is_loaded(self) -> bool:
        """Whether the database was read: before, no camera can be said to be unknown."""
        return self._is_loaded

    @property
    def version(self) -> int:
        """`cameras_version` up to which the rows are known."""
        return self._version

    @property
    def wanted(self) -> frozenset[CameraId]:
        """Cameras that a node is to serve."""
        return self._wanted

    def get(self, camera_id: str) -> CameraRow | None:
        """One camera; none: there is none, as far as is known."""
        return self._rows.get(camera_id)

    def version_of(self, camera_ids: Iterable[CameraId]) -> int:
        """A number that is another one after one of these cameras changed, and mostly after another's did not.

        It is the newest change of theirs.  Of a camera that is not known the newest of all counts: it may be deleted.
        """
        rows, version = self._rows, self._version
        found = (rows.get(camera_id) for camera_id in camera_ids)
        return max((version if row is None else row.change_no for row in found), default=0)

    def refresh(self, seen: dict[CameraId, int], now_ns: int) -> dict[CameraId, int]:
        """Read what changed; returns the new version of each camera that did, 0 of a deleted one.

        Args:
            seen: versions of configurations that agents serve.  A higher one than the database has was lost when an
                older database was restored; the camera gets one above it.
            now_ns: wall clock, UTC ns.

        Raises:
            Unavailable: the database is away; what is known stays.
        """
        version = self._store.version()
        if version < self._version or (self._newest is not None and not self._store.knows(self._newest)):
            # An older database was restored; its counter may be ahead of ours, for changes since count by the clock.
            # What we know of versions counts like what agents know.
            seen = {row.camera_id: row.version for row in self._rows.values()} | seen
            changed = self._load(0)
            if self._newest is not None and not self._store.knows(self._newest):
                # Changed between the restoring of its table and of the history: it would look restored for ever.
                self._newest = None
            self.restorations += 1
        else:
            changed = self._load(self._version) if version > self._version or not self._is_loaded else {}
        behind = {
            camera_id: number
            for camera_id, number in seen.items()
            if camera_id in self._rows and number > self._rows[camera_id].version
        }
        if behind and self._store.outgrow(behind, Writer(OUTGROWN_BY, now_ns)):
            changed |= self._load(self._version)
        return changed

    def _load(self, since: int) -> dict[CameraId, int]:
        """Read all that changed after a `cameras_version`; 0: everything."""
        rows: dict[CameraId, CameraRow] = {} if since == 0 else dict(self._rows)
        changed: dict[CameraId, int] = {}
        version, newest = since, self._newest if since else None
        while found := self._store.changed_since(version):
            # Asked for once more, in clear; one that changed in between comes again in the next part.
            clear = self._store.get_many([row.camera_id for row in found if not row.deleted], reveal=True)
            for row in found:
                rows.pop(row.camera_id, None)
                changed[row.camera_id] = 0
            rows |= clear
            changed |= {camera_id: row.version for camera_id, row in clear.items()}
            version, newest = found[-1].change_no, found[-1]
        if since == 0:
            changed |= dict.fromkeys(self._rows.keys() - rows.keys(), 0)
        with self._lock:
            self._rows, self._version, self._newest, self._is_loaded = rows, version, newest, True
            self._wanted = frozenset(camera_id for camera_id, row in rows.items() if row.enabled)
        return changed
