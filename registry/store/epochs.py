"""The highest epoch of each camera: in memory for who grants, and in the database, written behind, for a new start.

Nothing here ever lowers an epoch.  An older database that is restored under a running registry is brought up to what
the registry knows at the next `load`; a registry that starts on one learns from Redis, reports and names of clips.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from typing import Final

from sqlalchemy import Connection, Engine, select

from nodeagent.contract.ids import CameraId
from nodeagent.infra.database import reading, write
from nodeagent.infra.registry_tables import camera_epoch
from registry.store.statements import larger, upserting

#: Epochs that one transaction writes: short enough that nobody waits long for its rows.
SAVE_ROWS: Final = 5000


class Epochs:
    """Highest epochs.  Any thread may call any method."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._known: dict[CameraId, int] = {}
        self._unsaved: dict[CameraId, int] = {}

    def highest(self, camera_id: str) -> int:
        """The highest epoch of the camera that this registry has heard of; 0: none."""
        return self._known.get(camera_id, 0)

    def learn(self, seen: Mapping[CameraId, int]) -> None:
        """Hear of epochs, wherever they were seen.  The database learns of them at the next `save`."""
        with self._lock:
            for camera_id, epoch in seen.items():
                if epoch > self._known.get(camera_id, 0):
                    self._known[camera_id] = self._unsaved[camera_id] = epoch

    def load(self) -> None:
        """Hear what the database has.  What it has too low, or not at all, is saved again.

        Raises:
            Unavailable: the database is away; nothing is forgotten.
        """
        with reading(self._engine, "epochs") as connection:
            stored = {row.camera_id: row.epoch for row in connection.execute(select(camera_epoch))}
        with self._lock:
            self._unsaved |= {name: epoch for name, epoch in self._known.items() if epoch > stored.get(name, 0)}
            self._known |= {name: epoch for name, epoch in stored.items() if epoch > self._known.get(name, 0)}

    def save(self) -> int:
        """Write what is not written yet; returns how many.

        Raises:
            Unavailable: the database is away; the next `save` tries again.
        """
        with self._lock:
            due = sorted(self._unsaved.items())
        for at in range(0, len(due), SAVE_ROWS):
            part = dict(due[at : at + SAVE_ROWS])
            write(self._engine, "epochs", partial(raise_epochs, seen=part))
            with self._lock:
                for camera_id, epoch in part.items():
                    # Perhaps a higher one was heard of meanwhile.
                    if self._unsaved.get(camera_id) == epoch:
                        del self._unsaved[camera_id]
        return len(due)


def raise_epochs(connection: Connection, seen: Mapping[CameraId, int]) -> None:
    """Raise what the database has to at least this; locks these rows, in their order, until the transaction ends."""
    if seen:
        raised = upserting(connection, camera_epoch, lambda new: {"epoch": larger(camera_epoch.c.epoch, new.epoch)})
        connection.execute(raised, [{"camera_id": name, "epoch": epoch} for name, epoch in sorted(seen.items())])
