"""The process of one camera: connect, record, announce, for ever.

The work loop takes packets from the sources' threads, so it beats also while a camera hangs; it never waits for the
bus, whose thread reads the journal.  A camera with a sub-stream has two sources and two recorders; the samples belong
to one of them at a time.  What goes wrong is a state on the board and a line in the log; only the configuration's end
of this camera, or a newer owner of its ring, ends the process.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from nodeagent.capture.account import Account, Unkept
from nodeagent.capture.books import Books, Camera
from nodeagent.capture.chooser import Chooser
from nodeagent.capture.closing import Closer
from nodeagent.capture.feed import Feed, trouble
from nodeagent.capture.journal import Journal
from nodeagent.capture.journal_lock import take_lock
from nodeagent.capture.ledger import Ledger
from nodeagent.capture.publisher import Publisher
from nodeagent.capture.recorder import Recorder
from nodeagent.capture.recovery import Plan, epoch_for, last_recorded_ns, recover
from nodeagent.capture.samples import RingPlace, SamplePlan, Samples
from nodeagent.capture.sender_clock import SenderClock
from nodeagent.contract.camera import CameraSpec, StreamSpec
from nodeagent.contract.clip import StreamName
from nodeagent.contract.errors import ConfigError, DecodeError, Fenced, Unavailable
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.files import syncs
from nodeagent.infra.journals import journal_path
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.storage import open_storage
from nodeagent.infra.wanted import WantedFile
from nodeagent.infra.worker import EXIT_FAILED, EXIT_FATAL, EXIT_OK, WorkerContext
from nodeagent.ring.writer import forget_rings

log = logging.getLogger(__name__)

#: How often the loop takes what the sources have brought, seconds: the beat must come once a second, and to be woken
#: for each packet would cost as much as copying it.
POLL_S = 0.2
#: Between two looks whether the camera's journal is free, seconds.
WAIT_S = 0.2
#: How often counters, the wanted set and the gap account are looked at, seconds.
HOUSEKEEPING_S = 1.0
#: Repairing what a predecessor left decodes a clip or two; the next beat may take this long, seconds.
REPAIR_ALLOW_S = 60.0
#: How long TERM waits for announcements; what is not confirmed by then waits in the journal, seconds.
DRAIN_S = 3.0
#: A sub-stream's recorder counts under these names on the board.
SUB_COUNTS = {"clips_made": "analyse_clips", "bytes": "analyse_bytes"}


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
    return journal_path(ctx.settings.node.state_dir, camera_id)


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


def plan_of(settings: Settings, spec: CameraSpec) -> Camera:
    """What recorder and recovery must know of a camera."""
    plan = Plan(settings.node.node_id, spec.sample_fps, spec.sample_width, spec.sample_mode)
    return Camera(spec.camera_id, round(settings.capture.clip_s * NS_PER_S), plan)


class Capture:
    """Everything of one camera, tied together."""

    def __init__(self, ctx: WorkerContext, spec: CameraSpec, bus: Bus, wanted: WantedFile) -> None:
        self._ctx = ctx
        self._spec = spec
        settings, camera_id, clock = ctx.settings, spec.camera_id, ctx.clock
        self._wanted = wanted
        self._counts: Counter[str] = Counter()
        self._storage = storage = open_storage(settings)
        self._journal = journal = Journal(_journal_path(ctx, camera_id))
        last_end_ns = last_recorded_ns(storage, journal, camera_id)
        self._ledger = Ledger(settings.node.state_dir, camera_id, last_end_ns, clock.wall_ns())
        self._camera = plan_of(settings, spec)
        # The epoch of a part without a journal is adopted by the recovery, so it comes before the choice of one.
        self._closer = Closer(journal)
        self._counts["repaired"] += recover(storage, self._camera.plan, (self._closer, self._ledger), camera_id, clock)
        granted = wanted.current.epoch(camera_id)
        self._epoch = epoch_for(storage, journal, camera_id, clock.wall_ns(), granted)
        self._samples = self._make_samples()
        self._publisher = Publisher(bus, camera_id, journal, clock)
        self._feeds = self._make_feeds()
        self._chooser = Chooser(clock.monotonic_s())
        self._told = journal.last
        self._housekeeping_at_s = 0.0
        self._synced = 0
        self._gone = False

    def _make_samples(self) -> Samples:
        spec, capture = self._spec, self._ctx.settings.capture
        slots = max(2, round(capture.ring_s * spec.sample_fps))
        place = RingPlace(self._ctx.memory_dir, spec.camera_id, slots)
        plan = SamplePlan(spec.sample_fps, spec.sample_width, spec.sample_mode, capture.hardware_decode)
        samples = Samples(place, plan, self._counts)
        last = self._closer.last
        samples.resume_after(last.last_frame_ns if last is not None else None)
        return samples

    def _make_feeds(self) -> dict[StreamName, Feed]:
        """The main stream's and, if there is one, the sub-stream's, which is analysed then."""
        spec = self._spec
        if spec.analyse is None:
            return {"record": self._make_feed("record", spec.record, self._ledger, self._samples, None)}
        sender = SenderClock()
        newest_ns = self._storage.newest_end(spec.camera_id, "analyse") or 0
        return {
            "record": self._make_feed("record", spec.record, self._ledger, None, sender),
            "analyse": self._make_feed("analyse", spec.analyse, Unkept(newest_ns), self._samples, sender),
        }

    def _make_feed(
        self,
        stream: StreamName,
        spec: StreamSpec,
        account: Account,
        samples: Samples | None,
        sender: SenderClock | None,
    ) -> Feed:
        settings, clock = self._ctx.settings, self._ctx.clock
        counts = self._counts if stream == "record" else Counter()
        books = Books(self._storage, self._closer, account)
        recorder = Recorder(self._camera, books, samples, self._epoch, clock, counts, stream)
        who = (self._spec.camera_id, stream)
        return Feed(who, spec, recorder, settings.capture, clock, sender)

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
        busy = [feed.step() for feed in self._feeds.values()]
        if self._journal.last is not self._told:
            self._told = self._journal.last
            self._publisher.wake()
        if not any(busy):
            self._ctx.stop.wait(POLL_S)

    def _choose(self) -> None:
        """Give the samples to the stream that is to be analysed; the other one lets go of them at a key frame."""
        sub = self._feeds.get("analyse")
        if sub is None:
            return
        main_delivers, now_s = self._feeds["record"].delivers, self._ctx.clock.monotonic_s()
        choice = self._chooser.look(delivers=sub.delivers, now_s=now_s, main_delivers=main_delivers)
        for stream, feed in self._feeds.items():
            if stream != choice:
                feed.recorder.analyse(None)
        if all(feed.recorder.samples is None for stream, feed in self._feeds.items() if stream != choice):
            self._feeds[choice].recorder.analyse(self._samples)

    def _housekeep(self) -> None:
        now_s = self._ctx.clock.monotonic_s()
        if now_s < self._housekeeping_at_s:
            return
        self._housekeeping_at_s = now_s + HOUSEKEEPING_S
        self._choose()
        for feed in self._feeds.values():
            feed.recorder.tick()
        self._show()
        self._gone = _wanted(self._wanted, self._spec.camera_id) is None
        self._follow_grant()

    def _follow_grant(self) -> None:
        """Record on with the epoch of a later grant, if there is one: the source stays open, no picture is lost."""
        granted = self._wanted.current.epoch(self._spec.camera_id)
        if granted <= self._epoch:
            return
        log.info(
            "camera %s: granted again, epoch %d", self._spec.camera_id, granted,
            extra={"event": "epoch", "camera": self._spec.camera_id, "epoch": granted},
        )  # fmt: skip
        self._epoch = granted
        for feed in self._feeds.values():
            feed.recorder.next_epoch = granted

    def _show(self) -> None:
        cell = self._ctx.cell
        for name, value in self._taken_counts().items():
            if value:
                cell.add(name, value)
        synced = syncs()
        cell.add("fsyncs", synced - self._synced)
        self._synced = synced
        cell.add("clips_announced", self._publisher.take_announced())
        cell.set("clips_unconfirmed", self._journal.unconfirmed)
        cell.set("epoch", max(feed.recorder.epoch for feed in self._feeds.values()))
        if self._samples.last_ns:
            cell.set("last_sample_ns", self._samples.last_ns)
        gap_ms = self._ledger.gap_ns // 1_000_000
        self._ledger.gap_ns -= gap_ms * 1_000_000
        cell.add("gap_ms", gap_ms)
        if (offset_ns := self._offset_ns()) is not None:
            cell.set("stream_offset_ms", round(offset_ns / NS_PER_MS))
        cell.state(*self._state())

    def _taken_counts(self) -> Counter[str]:
        """What was counted since the last call; what a sub-stream recorded is counted under names of its own."""
        taken = Counter(self._counts)
        self._counts.clear()
        for feed in self._feeds.values():
            taken += feed.counts
            feed.counts.clear()
        if (sub := self._feeds.get("analyse")) is not None:
            taken += Counter({SUB_COUNTS.get(name, name): n for name, n in sub.recorder.counts.items()})
            sub.recorder.counts.clear()
        return taken

    def _offset_ns(self) -> int | None:
        """How far the sub-stream's time is ahead of the main stream's, by the camera's clock; None: not known."""
        ahead = [feed.recorder.ahead_ns for feed in self._feeds.values()]
        return ahead[1] - ahead[0] if len(ahead) > 1 and ahead[0] is not None and ahead[1] is not None else None

    def _state(self) -> tuple[State, str]:
        """What a person must know first: a source that is away, then the disk, then what only costs time."""
        rows = [self._feeds["record"].row, trouble(State.STORAGE_FULL, self._closer.trouble)]
        sub = self._feeds.get("analyse")
        if sub is not None and self._chooser.choice == "record":
            state, detail = sub.row
            rows.append((State.ANALYSE_DOWN, f"{state.value}: {detail}" if detail else state.value))
        elif sub is not None:
            rows.append(sub.row)
        rows += [
            trouble(State.RING_FULL, self._samples.ring_trouble),
            trouble(State.BUS_DOWN, self._publisher.trouble),
            trouble(State.SOFTWARE_DECODE, self._samples.software_because),
        ]
        return next((row for row in rows if row[0] is not State.CAPTURING), (State.CAPTURING, self._aside()))

    def _aside(self) -> str:
        """What is good to know while all is well."""
        dropped = self._feeds["record"].recorder.sound.dropped
        sound = f"sound is not recorded: {dropped}" if dropped else ""
        return "; ".join(part for part in (self._alignment(), sound) if part)

    def _alignment(self) -> str:
        if len(self._feeds) < 2:
            return ""
        offset_ns = self._offset_ns()
        if offset_ns is None:
            return "streams aligned by arrival"
        return f"streams aligned by sender reports, {offset_ns / NS_PER_MS:+.0f} ms apart"

    def _drain(self) -> None:
        """Close what is open, tell what can be told in a few seconds; the rest waits in the journal."""
        self._ctx.cell.state(State.DRAINING)
        self._ctx.cell.beat(allow_s=REPAIR_ALLOW_S)
        for feed in self._feeds.values():
            feed.close()
        self._samples.close()
        self._ledger.close(self._ctx.clock.wall_ns())
        if _wanted(self._wanted, self._spec.camera_id) is None:
            self._forget_rings()
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
