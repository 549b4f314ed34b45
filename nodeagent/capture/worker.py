"""The process of one camera: connect, record, announce, for ever.

The work loop takes packets from the source's thread, so it beats also while a camera hangs; it never waits for the bus,
whose thread reads the journal.  What goes wrong is a state on the board and a line in the log; only the configuration's
end of this camera, or a newer owner of its ring, ends the process.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from pathlib import Path

from nodeagent.capture.closing import Closer
from nodeagent.capture.journal import Journal, journals_folder
from nodeagent.capture.journal_lock import take_lock
from nodeagent.capture.ledger import Ledger
from nodeagent.capture.link import Link, Phase
from nodeagent.capture.publisher import Publisher
from nodeagent.capture.recorder import Books, Camera, Recorder
from nodeagent.capture.recovery import Plan, epoch_for, recover
from nodeagent.capture.samples import RingPlace, Samples
from nodeagent.capture.source import Arrived, Ended, Event, Opened, Session
from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import ConfigError, DecodeError, Fenced, Unavailable
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.gaps import GapReason
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.storage import open_storage
from nodeagent.infra.wanted import WantedFile
from nodeagent.infra.worker import EXIT_FAILED, EXIT_FATAL, EXIT_OK, WorkerContext
from nodeagent.ring.writer import forget_rings

log = logging.getLogger(__name__)

#: Longest the loop waits for a packet, seconds: the beat must come once a second.
WAIT_S = 0.2
#: How often counters, the wanted set and the gap account are looked at, seconds.
HOUSEKEEPING_S = 1.0
#: Repairing what a predecessor left decodes a clip or two; the next beat may take this long, seconds.
REPAIR_ALLOW_S = 60.0
#: Opening has time-outs of its own, but looking up a name has none; then its thread is left behind, seconds.
OPEN_PATIENCE_S = 30.0
#: How long TERM waits for announcements; what is not confirmed by then waits in the journal, seconds.
DRAIN_S = 3.0


def main(ctx: WorkerContext, camera_id: str) -> int:
    """Serve one camera until told to stop, or until it is not wanted any more."""
    wanted = WantedFile(ctx.wanted_path)
    spec = _wanted(wanted, camera_id)
    if spec is None:
        return EXIT_OK
    ctx.cell.state(State.CONNECTING)
    ctx.cell.beat(allow_s=REPAIR_ALLOW_S)
    try:
        bus = open_bus(ctx.settings)
    except ConfigError as exc:
        ctx.cell.state(State.BUS_DOWN, str(exc))
        return EXIT_FATAL
    try:
        # Held until the process ends.
        if not _take_journal(ctx, camera_id):
            return EXIT_OK
        return Capture(ctx, spec, bus, wanted).run()
    except OSError as exc:
        where = exc.filename or "state folder"
        log.exception("camera %s: %s cannot be used", camera_id, where, extra={"event": "state_folder"})
        ctx.cell.state(State.STORAGE_FULL, f"{where}: {exc.strerror}")
        return EXIT_FAILED
    finally:
        bus.close()


def _journal_path(ctx: WorkerContext, camera_id: str) -> Path:
    return journals_folder(ctx.settings.node.state_dir) / f"{camera_id}.jsonl"


def _take_journal(ctx: WorkerContext, camera_id: str) -> bool:
    """Wait for whoever finishes what this camera left when it was removed (`orphans`); False when told to stop."""
    path = _journal_path(ctx, camera_id)
    while take_lock(path) is None:
        ctx.cell.state(State.CONNECTING, "waits for the end of what it left when it was removed")
        ctx.cell.beat()
        if ctx.stop.wait(WAIT_S):
            return False
    ctx.cell.beat(allow_s=REPAIR_ALLOW_S)
    return True


def _wanted(file: WantedFile, camera_id: str) -> CameraSpec | None:
    try:
        file.refresh()
    except DecodeError as exc:
        log.warning("%s", exc, extra={"event": "wanted_broken"})
    return file.current.camera(camera_id)


def _trouble(state: State, detail: str) -> tuple[State, str]:
    return (state, detail) if detail else (State.CAPTURING, "")


def plan_of(settings: Settings, spec: CameraSpec) -> Camera:
    """What recorder and recovery must know of a camera."""
    plan = Plan(settings.node.node_id, spec.sample_fps, spec.sample_width)
    return Camera(spec.camera_id, round(settings.capture.clip_s * NS_PER_S), plan)


class Capture:
    """Everything of one camera, tied together."""

    def __init__(self, ctx: WorkerContext, spec: CameraSpec, bus: Bus, wanted: WantedFile) -> None:
        self._ctx = ctx
        self._spec = spec
        settings, camera_id = ctx.settings, spec.camera_id
        state_dir = settings.node.state_dir
        self._wanted = wanted
        self._counts: Counter[str] = Counter()
        storage = open_storage(settings)
        self._journal = Journal(_journal_path(ctx, camera_id))
        last = self._journal.last
        last_end_ns = last.task.end_ns if last is not None else None
        ledger = Ledger(state_dir, camera_id, last_end_ns, ctx.clock.wall_ns())
        camera = plan_of(settings, spec)
        # The epoch of a part without a journal is adopted by the recovery, so it comes before the choice of one.
        self._closer = Closer(self._journal)
        self._counts["repaired"] += recover(storage, camera.plan, (self._closer, ledger), camera_id, ctx.clock)
        epoch = epoch_for(storage, self._journal, camera_id, ctx.clock.wall_ns())
        slots = max(2, round(settings.capture.ring_s * spec.sample_fps))
        self._samples = Samples(
            RingPlace(ctx.memory_dir, camera_id, slots), spec.sample_fps, spec.sample_width, self._counts
        )
        books = Books(storage, self._closer, ledger)
        self._ledger = ledger
        self._recorder = Recorder(camera, books, self._samples, epoch, ctx.clock, self._counts)
        self._publisher = Publisher(bus, camera_id, self._journal, ctx.clock)
        self._link = Link(settings.capture.reconnect_min_s, settings.capture.reconnect_max_s, random.random)
        self._session: Session | None = None
        self._last_packet_s = 0.0
        self._housekeeping_at_s = 0.0
        self._gone = False

    def run(self) -> int:
        """The work loop."""
        self._publisher.start()
        self._ctx.cell.ready()
        try:
            while not self._ctx.stop.requested and not self._gone:
                self._ctx.cell.beat()
                self._step()
                self._housekeep()
        except Fenced as exc:
            log.warning("camera %s: %s", self._spec.camera_id, exc, extra={"event": "fenced"})
            return EXIT_FAILED
        finally:
            self._drain()
        return EXIT_OK

    def _step(self) -> None:
        now_s = self._ctx.clock.monotonic_s()
        if self._session is None:
            self._open_when_due(now_s)
            return
        made = self._counts["clips_made"]
        event = self._session.get(WAIT_S)
        if event is not None:
            self._handle(event)
        else:
            self._watch_for_stall()
        if self._counts["clips_made"] != made:
            self._publisher.wake()

    def _open_when_due(self, now_s: float) -> None:
        if not self._link.due(now_s):
            self._ctx.stop.wait(WAIT_S)
            return
        self._link.open()
        timeout_s = self._ctx.settings.capture.stall_timeout_s
        self._session = Session(self._spec.record, timeout_s, self._ctx.clock)
        self._session.start()
        self._last_packet_s = now_s

    def _handle(self, event: Event) -> None:
        match event:
            case Arrived():
                self._last_packet_s = self._ctx.clock.monotonic_s()
                self._recorder.feed(event)
            case Opened(stream):
                log.info(
                    "camera %s: %s %dx%d",
                    self._spec.camera_id,
                    stream.codec_context.name,
                    stream.width,
                    stream.height,
                    extra={"event": "source_opened", "camera": self._spec.camera_id},
                )
                self._last_packet_s = self._ctx.clock.monotonic_s()
                self._link.opened(self._last_packet_s)
                self._recorder.begin_session(stream)
            case Ended(state, detail):
                self._end_session(state, detail)

    def _watch_for_stall(self) -> None:
        silent_s = self._ctx.clock.monotonic_s() - self._last_packet_s
        if self._link.phase is Phase.OPENING:
            if silent_s >= OPEN_PATIENCE_S:
                self._end_session(State.SOURCE_DOWN, f"opening hangs for {silent_s:.0f} s")
            return
        # A file's next packet comes when its time has come, and a slow one is no camera to be opened anew.
        if silent_s >= self._ctx.settings.capture.stall_timeout_s and not self._spec.record.is_file:
            self._end_session(State.STALLED, f"no packet for {silent_s:.1f} s")

    def _end_session(self, state: State, detail: str) -> None:
        if state is State.SOURCE_ENDED:
            self._link.finished()
        else:
            if state is not self._link.state:
                log.warning(
                    "camera %s: %s (%s)",
                    self._spec.camera_id,
                    state.value,
                    detail,
                    extra={"event": "source_lost", "camera": self._spec.camera_id},
                )
            self._link.failed(state, detail, self._ctx.clock.monotonic_s())
            self._counts["reconnects"] += 1
        self._recorder.end_session(GapReason(state.value), detail)
        if self._session is not None:
            self._session.close()
            self._session = None

    def _housekeep(self) -> None:
        now_s = self._ctx.clock.monotonic_s()
        if now_s < self._housekeeping_at_s:
            return
        self._housekeeping_at_s = now_s + HOUSEKEEPING_S
        self._recorder.tick()
        self._show()
        self._gone = _wanted(self._wanted, self._spec.camera_id) is None

    def _show(self) -> None:
        cell = self._ctx.cell
        for name, value in self._counts.items():
            if value:
                cell.add(name, value)
        self._counts.clear()
        cell.add("clips_announced", self._publisher.take_announced())
        cell.set("clips_unconfirmed", self._journal.unconfirmed)
        if self._samples.last_ns:
            cell.set("last_sample_ns", self._samples.last_ns)
        gap_ms = self._ledger.gap_ns // 1_000_000
        self._ledger.gap_ns -= gap_ms * 1_000_000
        cell.add("gap_ms", gap_ms)
        cell.state(*self._state())

    def _state(self) -> tuple[State, str]:
        """What a person must know first: a source that is away, then the disk, then what only costs time."""
        rows = (
            (self._link.state, self._link.detail),
            self._recorder.problem or (State.CAPTURING, ""),
            _trouble(State.STORAGE_FULL, self._closer.trouble),
            _trouble(State.BAD_STREAM, self._recorder.stream_trouble),
            _trouble(State.RING_FULL, self._samples.ring_trouble),
            _trouble(State.BUS_DOWN, self._publisher.trouble),
        )
        return next((row for row in rows if row[0] is not State.CAPTURING), (State.CAPTURING, ""))

    def _drain(self) -> None:
        """Close what is open, tell what can be told in a few seconds; the rest waits in the journal."""
        self._ctx.cell.state(State.DRAINING)
        self._ctx.cell.beat(allow_s=REPAIR_ALLOW_S)
        self._recorder.close()
        self._ledger.close(self._ctx.clock.wall_ns())
        if _wanted(self._wanted, self._spec.camera_id) is None:
            self._forget_rings()
        if self._session is not None:
            self._session.close()
        self._publisher.drain(DRAIN_S)
        self._show()
        self._ctx.cell.state(State.DRAINING)
        self._journal.close()

    def _forget_rings(self) -> None:
        """The camera is served here no more: readers that still come find its samples in the clips."""
        try:
            forget_rings(self._ctx.memory_dir, self._spec.camera_id)
        except Unavailable as exc:
            log.warning("%s", exc, extra={"event": "ring_not_removed"})
