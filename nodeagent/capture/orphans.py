"""Finishes what the captures of removed cameras left: rings in memory, a clip half written, clips not announced.

A camera that is removed while the broker is away, or whose capture is killed just then, has nobody to do this any more.
So a thread of the node's storage worker looks at the journals of cameras that are not wanted and that no capture holds.
It does what the camera's next capture would have done, and removes the journal when nothing waits in it; while a disk
is away, or the clock was set back, the journal stays and says that all that can be reached is told.  Killed anywhere it
begins anew at the next look, as that capture would; a clip may then be announced twice.

Nothing is bound here: a camera may have moved to another node, whose queues then have its routes.  Without a route a
clip goes the way of a full queue, to any node with spare inference; a judge that does not want its camera counts it.
When the last clip is told, what comes later is another node's: the route of clips to our inference goes, which would
look at each of them a second time, and whoever drains this node waits for it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from nodeagent.capture.closing import Closer
from nodeagent.capture.journal import Journal
from nodeagent.capture.journal_lock import lock_path, take_lock
from nodeagent.capture.ledger import Ledger
from nodeagent.capture.publisher import announce
from nodeagent.capture.recovery import Plan, last_recorded_ns, recover
from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import ConfigError, DecodeError, Refused, Unavailable
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.clip_folders import STREAM_FOLDERS
from nodeagent.infra.clock import Clock
from nodeagent.infra.files import sync_folder
from nodeagent.infra.gaps import LEAST_GAP_NS, GapReason
from nodeagent.infra.journals import journal_path, journaled
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.stop import Stop
from nodeagent.infra.storage import Storage, is_pool, open_storage
from nodeagent.infra.wanted import WantedFile
from nodeagent.infra.worker import WorkerContext
from nodeagent.ring.writer import forget_rings

log = logging.getLogger(__name__)

#: How often journals of cameras that left are looked for, seconds.  When the broker comes back, the judge of a camera
#: that moved waits `judge.reorder.HANDOVER_WAIT_S` for what lies here.
LOOK_S = 5.0
#: How long a camera that was not finished is left alone, seconds: it waits for a disk, and each time reads its hour
#: folders.  One that waits for the broker is finished at the first look that reaches it.
REST_S = 60.0
#: Longest that clips of one camera are announced in one look, seconds: if it comes back, its capture waits so long.
#: Also how long a look waits for the broker, once.
HOLD_S = 3.0
#: Pause before an announcement is tried again within that time, seconds: a connection is made in less.
_RETRY_S = 0.2


def start(ctx: WorkerContext) -> None:
    """Look after orphans in a thread, which ends with the worker."""
    threading.Thread(target=_run, args=(ctx,), name="orphans", daemon=True).start()


def _run(ctx: WorkerContext) -> None:
    orphans = Orphans(ctx.settings, ctx.memory_dir, ctx.clock, ctx.stop)
    while not ctx.stop.wait(LOOK_S):
        try:
            orphans.look()
        except Exception:
            log.exception("what removed cameras left cannot be finished", extra={"event": "orphans_failed"})


class Orphans:
    """The removed cameras of a node; for one thread."""

    def __init__(
        self,
        settings: Settings,
        memory_dir: Path,
        clock: Clock,
        stop: Stop,
        connect: Callable[[Settings], Bus] = open_bus,
    ) -> None:
        self._settings = settings
        self._memory_dir = memory_dir
        self._clock = clock
        self._stop = stop
        self._connect = connect
        self._bus: Bus | None = None
        #: Whether the broker was reached in this look; None before anybody asked.
        self._reached: bool | None = None
        #: By camera that was not finished, until when it rests, monotonic seconds, and those whose clips wait.
        self._rests_s: dict[str, float] = {}
        self._unannounced: set[str] = set()
        self._wanted = WantedFile(settings.node.state_dir / "wanted.json")

    def look(self) -> None:
        """Finish, camera by camera, what can be finished now."""
        try:
            for camera_id in sorted(journaled(self._settings.node.state_dir)):
                if self._stop.requested:
                    return
                if self._is_unwanted(camera_id) and self._is_due(camera_id):
                    self._finish_if_free(journal_path(self._settings.node.state_dir, camera_id))
        finally:
            self._reached = None
            if self._bus is not None:
                self._bus.close()
                self._bus = None

    def _is_due(self, camera_id: str) -> bool:
        """Whether a look at this camera is worth what it costs."""
        if self._clock.monotonic_s() >= self._rests_s.get(camera_id, 0.0):
            return True
        return camera_id in self._unannounced and self._reaches_bus()

    def _reaches_bus(self) -> bool:
        end_s = self._clock.monotonic_s() + HOLD_S
        while self._reached is None:
            try:
                self._open_bus()
                self._reached = True
            except (Unavailable, ConfigError):
                if self._stop.wait(_RETRY_S) or self._clock.monotonic_s() >= end_s:
                    self._reached = False
        return self._reached

    def _is_unwanted(self, camera_id: str) -> bool:
        """Whether the camera is known to be removed; while there is no good snapshot, none is."""
        try:
            self._wanted.refresh()
        except DecodeError:
            return False
        return self._wanted.current.version > 0 and self._wanted.current.camera(camera_id) is None

    def _finish_if_free(self, path: Path) -> None:
        camera_id = path.stem
        try:
            lock = take_lock(path)
            if lock is None:
                # Its capture is still leaving.
                return
            try:
                # It may have come back before the lock was taken; from here on its capture waits.
                if path.exists() and self._is_unwanted(camera_id):
                    self._finish(path, camera_id)
            finally:
                os.close(lock)
        except (OSError, Unavailable) as exc:
            log.warning("camera %s was removed, but: %s", camera_id, exc, extra={"event": "orphan_waits"})

    def _finish(self, path: Path, camera_id: str) -> None:
        forget_rings(self._memory_dir, camera_id)
        storage = open_storage(self._settings)
        journal = Journal(path)
        try:
            if journal.is_told:
                # It stays so while this looks whether a disk came back with more.
                journal.note_told()
            now_ns, end_ns = self._clock.wall_ns(), last_recorded_ns(storage, journal, camera_id)
            ledger = Ledger(self._settings.node.state_dir, camera_id, end_ns, now_ns)
            recover(storage, self._plan(journal), (Closer(journal), ledger), camera_id, self._clock)
            self._announce(journal, camera_id)
            self._rests_s[camera_id] = self._clock.monotonic_s() + REST_S
            is_told = not journal.unconfirmed and self._unbind(camera_id)
            self._unannounced.discard(camera_id)
            if not is_told:
                self._unannounced.add(camera_id)
            if not is_told or _has_parts(storage, camera_id):
                return
            if _has_all_disks(storage) and _account_to(now_ns, ledger):
                # Killed before the lock's name goes too: an empty file, which the next capture of this name takes.
                path.unlink()
                lock_path(path).unlink()
                sync_folder(path.parent)
                del self._rests_s[camera_id]
                log.info("camera %s was removed: all is told", camera_id, extra={"event": "orphan_finished"})
            else:
                journal.note_told()
        finally:
            journal.close()

    def _plan(self, journal: Journal) -> Plan:
        """How to sample a clip whose camera has no configuration any more: as the last one, at the usual rate."""
        fields, last = CameraSpec.model_fields, journal.last
        width = last.task.sample_width if last is not None else fields["sample_width"].default
        return Plan(self._settings.node.node_id, fields["sample_fps"].default, width)

    def _announce(self, journal: Journal, camera_id: str) -> None:
        if journal.unconfirmed and not self._reaches_bus():
            _say_waiting(journal, camera_id, "the broker is away")
            return
        end_s = self._clock.monotonic_s() + HOLD_S
        while (closed := journal.first_unconfirmed()) is not None:
            try:
                announce(self._open_bus(), journal, camera_id, closed)
            except Unavailable as exc:
                if self._stop.wait(_RETRY_S) or self._clock.monotonic_s() >= end_s:
                    _say_waiting(journal, camera_id, str(exc))
                    return
            except (Refused, ConfigError) as exc:
                _say_waiting(journal, camera_id, str(exc))
                return
            if self._clock.monotonic_s() >= end_s:
                return

    def _unbind(self, camera_id: str) -> bool:
        """Have no clip of the camera routed here any more; False while the broker is away.

        The journal is locked: if the camera came back, its capture binds it after this.
        """
        end_s = self._clock.monotonic_s() + HOLD_S
        while self._reached is not False:
            try:
                self._connected().unbind_clips(camera_id)
            except Unavailable:
                if self._stop.wait(_RETRY_S) or self._clock.monotonic_s() >= end_s:
                    self._reached = False
            else:
                return True
        return False

    def _connected(self) -> Bus:
        if self._bus is None:
            self._bus = self._connect(self._settings)
        return self._bus

    def _open_bus(self) -> Bus:
        bus = self._connected()
        bus.declare()
        return bus


def _has_parts(storage: Storage, camera_id: str) -> bool:
    return any(storage.parts(camera_id, stream) for stream in STREAM_FOLDERS)


def _has_all_disks(storage: Storage) -> bool:
    """Whether every disk is there: one that is away may hold a clip that is not finished."""
    return all(is_pool(pool.path) for pool in storage.pools)


def _account_to(now_ns: int, ledger: Ledger) -> bool:
    """Account for the time up to now: the journal, which tells where the last clip ended, goes.

    False when that is not kept: the ledger cannot be written, or the clips run ahead of a clock that was set back.
    """
    ledger.outage(GapReason.RESTART, "the camera was removed", now_ns)
    ledger.close(now_ns)
    return 0 <= now_ns - ledger.accounted_ns < LEAST_GAP_NS


def _say_waiting(journal: Journal, camera_id: str, why: str) -> None:
    log.warning(
        "camera %s was removed; %d of its clips wait: %s", camera_id, journal.unconfirmed, why,
        extra={"event": "orphan_waits"},
    )  # fmt: skip
