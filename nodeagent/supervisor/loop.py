"""The supervisor's one loop: collect, decide, act.

It has no threads, no broker, no database and no network, so nothing outside can hold it up; what it waits for are
signals, ends of processes, and the next turn, in which beats are looked at.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from typing import Final

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import ConfigError, DecodeError
from nodeagent.contract.report import Kind
from nodeagent.infra.clock import Clock
from nodeagent.infra.pool_list import write_pools
from nodeagent.infra.sd_notify import Notifier
from nodeagent.infra.settings.sections import PoolSettings, Settings
from nodeagent.infra.wanted import Wanted, read_wanted, write_wanted
from nodeagent.infra.worker import EXIT_FAILED, EXIT_OK
from nodeagent.supervisor.cameras import CameraSource
from nodeagent.supervisor.children import Children
from nodeagent.supervisor.decide import View, alive_kinds, decide
from nodeagent.supervisor.forkserver import Starter
from nodeagent.supervisor.inbox import Inbox
from nodeagent.supervisor.kinds import KindRow
from nodeagent.supervisor.orders import OrderMaker
from nodeagent.supervisor.reload_note import NOTE, ReloadNote, write_note
from nodeagent.supervisor.roster import drain_step, full_roster, kept
from nodeagent.supervisor.sentence import sentence, workers_ready

log = logging.getLogger(__name__)

#: Longest time between two looks at the beats, seconds.
TURN_S: Final = 0.2
#: Systemd is told that the service is up after this long even when a worker still waits for a peer, seconds: a broker
#: that is away must not have the unit killed as "did not start".
READY_PATIENCE_S: Final = 45.0
#: Part of `node.stop_timeout_s` in which other nodes may take this one's cameras before its captures stop.
HAND_OVER_SHARE: Final = 0.5


class Loop:
    """Runs until a TERM or INT has been carried out."""

    def __init__(
        self,
        settings: Settings,
        cameras: CameraSource,
        children: Children,
        starter: Starter,
        orders: OrderMaker,
        kinds: Mapping[Kind, KindRow],
        inbox: Inbox,
        notifier: Notifier,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._source = cameras
        self._children = children
        self._starter = starter
        self._orders = orders
        self._kinds = kinds
        self._inbox = inbox
        self._notifier = notifier
        self._clock = clock
        self._wanted_path = settings.node.state_dir / "wanted.json"
        self._cameras: tuple[CameraSpec, ...] = ()
        self._pools: tuple[PoolSettings, ...] = ()
        self._started_s = clock.monotonic_s()
        self._said_ready = False
        #: When a stop was asked for, and when the drain began: once others have our cameras.  None before.
        self._leaving_s: float | None = None
        self._draining_s: float | None = None
        #: A second request came.
        self._hurry = False

    def run(self) -> int:
        """Serve; return the agent's exit code.

        Raises:
            OSError: the wanted cameras cannot be written into the state folder.
        """
        self._take_cameras(self._source.initial())
        self._note(())
        while True:
            self._act()
            if self._draining_s is not None and not self._children.running():
                return EXIT_FAILED if self._children.killed else EXIT_OK
            self._collect()

    def _act(self) -> None:
        """Decide and act on what is known now."""
        now_s = self._clock.monotonic_s()
        self._end_hand_over(now_s)
        views = self._children.views()
        self._children.apply(decide(self._view(now_s), self._kinds, now_s))
        if not self._said_ready and (workers_ready(views) or now_s - self._started_s > READY_PATIENCE_S):
            self._said_ready = True
            self._notifier.ready()
            log.info("ready: %s", sentence(views, draining=False), extra={"event": "ready"})
        self._notifier.status(sentence(views, self._leaving_s is not None))
        self._notifier.alive(now_s)

    def _view(self, now_s: float) -> View:
        """What should be, beside what is."""
        views = self._children.views()
        roster = full_roster(self._settings, self._cameras)
        total_s = self._settings.node.stop_timeout_s
        if self._hurry:
            return View({}, views, dict.fromkeys(self._kinds, now_s))
        if self._leaving_s is None or self._draining_s is None:
            return View(roster, views, dict.fromkeys(self._kinds, now_s + total_s))
        left_s = self._leaving_s + total_s - self._draining_s
        at = drain_step(self._kinds, alive_kinds(views), self._draining_s, left_s, now_s)
        return View(kept(roster, at.keep), views, at.stop_by_s)

    def _end_hand_over(self, now_s: float) -> None:
        """Begin the drain when others capture our cameras, or have had the time to, or nobody is there to do so."""
        if self._leaving_s is None or self._draining_s is not None:
            return
        until_s = self._leaving_s + HAND_OVER_SHARE * self._settings.node.stop_timeout_s
        if not self._cameras or now_s >= until_s or self._source.nobody_takes:
            log.info("draining; %d cameras not handed over", len(self._cameras), extra={"event": "handed_over"})
            self._draining_s = now_s

    def _collect(self) -> None:
        """Wait for something to happen and take it in."""
        waited: list[int] = [self._inbox.fileno(), *(running.pidfd for running in self._children.running())]
        # In a drain nobody reads the source any more: waited for, what lies in it would wake us without end.
        server, source = self._starter.server_pidfd, self._source.fileno() if self._draining_s is None else None
        waited += [fd for fd in (server, source) if fd is not None]
        happened = {fd for fd in wait(waited, TURN_S) if isinstance(fd, int)}
        # The fork server first: children that end because of it are then reported with their cause.
        if server is not None and server in happened:
            self._fork_server_died()
        self._children.reap(happened)
        for number in self._inbox.drain():
            self._on_signal(number)
        if source is not None and source in happened and self._draining_s is None:
            self._reload(self._source.read)

    def _on_signal(self, number: signal.Signals) -> None:
        if number is signal.SIGHUP:
            if self._leaving_s is None:
                self._reload(self._source.reload)
        elif self._leaving_s is None:
            self._leave(number)
        else:
            log.warning("%s again: ending at once", number.name, extra={"event": "drain_hurry"})
            self._draining_s = self._draining_s or self._clock.monotonic_s()
            self._hurry = True

    def _leave(self, number: signal.Signals) -> None:
        self._leaving_s = self._clock.monotonic_s()
        self._children.killed = 0
        self._notifier.stopping()
        if self._source.leave():
            log.info("%s: handing cameras over", number.name, extra={"event": "hand_over"})
        else:
            log.info("%s: draining", number.name, extra={"event": "drain"})
            self._draining_s = self._leaving_s

    def _reload(self, read: Callable[[], tuple[CameraSpec, ...]]) -> None:
        """Take the cameras that are wanted now; anything wrong with them changes nothing."""
        # Before the first "ready" there is nothing that systemd could see being reloaded, nor after "stopping".
        tell = self._said_ready and self._leaving_s is None
        if tell:
            self._notifier.reloading(self._clock.monotonic_s())
        try:
            self._take_cameras(read())
        except ConfigError as exc:
            for fault in exc.faults:
                log.error("not reloaded: %s", fault, extra={"event": "reload_fault", "path": fault.path})  # noqa: TRY400
            self._note(tuple(map(str, exc.faults)))
        except OSError as exc:
            log.error("not reloaded: %s: %s", exc.filename, exc.strerror, extra={"event": "reload_fault"})  # noqa: TRY400
            self._note((f"{exc.filename}: {exc.strerror}",))
        else:
            self._note(())
            later = self._source.needs_restart
            if later:
                log.warning(
                    "changed, but in effect only after a restart: %s",
                    ", ".join(later),
                    extra={"event": "needs_restart"},
                )
        if tell:
            self._notifier.ready()

    def _note(self, refused: tuple[str, ...]) -> None:
        """Leave for `status` what the log says now."""
        note = ReloadNote(at_ns=self._clock.wall_ns(), refused=refused, needs_restart=self._source.needs_restart)
        try:
            write_note(self._settings.node.state_dir, note)
        except OSError as exc:
            log.warning("%s cannot be written: %s", NOTE, exc.strerror, extra={"event": "reload_note"})

    def _take_cameras(self, cameras: tuple[CameraSpec, ...]) -> None:
        # Snapshot first: a capture that starts must find its camera in it, and a kill here changes nothing else.
        self._take_pools(self._source.pools)
        write_wanted(self._wanted_path, Wanted(self._last_version() + 1, cameras, self._source.grants))
        added, gone = set(cameras) - set(self._cameras), set(self._cameras) - set(cameras)
        self._cameras = cameras
        self._orders.set_cameras(cameras)
        log.info(
            "cameras: %d wanted, %d new or changed, %d gone or changed",
            len(cameras),
            len(added),
            len(gone),
            extra={"event": "cameras"},
        )

    def _take_pools(self, pools: tuple[PoolSettings, ...]) -> None:
        """Have all workers use these disks; also those that run."""
        write_pools(self._settings.node.state_dir, pools)
        self._orders.set_pools(pools)
        if self._pools and pools != self._pools:
            log.info("disks: %s", ", ".join(str(pool.path) for pool in pools), extra={"event": "pools"})
        self._pools = pools

    def _last_version(self) -> int:
        try:
            return read_wanted(self._wanted_path).version
        except DecodeError as exc:
            log.warning("%s; it is replaced", exc, extra={"event": "wanted_unreadable"})
            return 0

    def _fork_server_died(self) -> None:
        """Its children live on, but nobody learns how they end and no new one joins them: all start anew together."""
        log.error("the fork server died; all children are started again", extra={"event": "fork_server_died"})
        self._starter.server_died()
        self._children.kill_all("the fork server died")
