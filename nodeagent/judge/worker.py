"""The judge process: detections from the bus, alarms to the bus, snapshots to Redis and disk.

What kill -9 does between the three steps of a batch, which are always taken in this order:
1. alarms confirmed: killed before or within, the detections come again and the old snapshot makes the same alarms with
   the same keys; the alarm stage amends its rows with what it already knows;
2. snapshot stored: killed after, the detections come again, lie behind the watermark, and are counted as duplicates;
3. detections acknowledged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from nodeagent.contract.alarm import AlarmMessage
from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.codec import decode_detections, encode_alarm
from nodeagent.contract.errors import ConfigError, DecodeError, Refused, Unavailable
from nodeagent.contract.states import State
from nodeagent.infra.applied import applied_path, write_applied
from nodeagent.infra.bus.aside import watch_aside
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.port import Bus, Delivery
from nodeagent.infra.bus.topology import ALARMS, DETECTIONS, DETECTIONS_LATE, detections_queue, shard_of
from nodeagent.infra.drain import Drain
from nodeagent.infra.redis import connect_redis
from nodeagent.infra.wanted import WantedFile
from nodeagent.infra.worker import EXIT_FAILED, EXIT_FATAL, EXIT_OK, WorkerContext
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.evidence import Author
from nodeagent.judge.hand_on import HandOn
from nodeagent.judge.leavers import Leavers
from nodeagent.judge.reorder import ServedClock
from nodeagent.judge.shard import Batch, Shard
from nodeagent.judge.snapshot import unpack
from nodeagent.judge.store import JudgeStore, Saved

log = logging.getLogger(__name__)

#: Clips of one camera that may wait unsettled: those that a missing one holds back for the reorder wait, and one more.
PREFETCH_PER_CAMERA: Final = 6
#: Cameras that a start reckons with at least, so that adding some needs no new consumer.
CAMERAS_MIN: Final = 64
#: Deliveries judged together: one snapshot for all of a camera's.
BATCH_MAX: Final = 64
#: Seconds to wait for the first delivery of a batch; beats come that often.
IDLE_S: Final = 0.25
#: Part of the node's stop_timeout_s for which detections that are still coming are judged.
TAKE_SHARE: Final = 0.1
#: Seconds between looks at the wanted cameras.
WANTED_EVERY_S: Final = 1.0
#: Seconds between two tries while the bus or both homes of the snapshots are away.
RETRY_S: Final = 0.5
#: Seconds that one step to a peer may take: its time-outs, and the one try more that it makes.
STEP_S: Final = 30.0


class _Stopping(Exception):
    """Told to stop while a peer was away: leave the batch; the bus delivers it again."""


@dataclass(slots=True)
class _Peers:
    bus: Bus
    store: JudgeStore


def main(ctx: WorkerContext, arg: str) -> int:
    """Serve shard number `arg` until told to stop."""
    ctx.cell.state(State.STARTING)
    own = detections_queue(ctx.settings.node.node_id, int(arg))
    ctx.cell.set("in_hand", 0)
    bus = open_bus(ctx.settings, lambda queue, count: ctx.cell.set("in_hand", count) if queue == own else None)
    watch_aside(ctx, bus, DETECTIONS)
    store = JudgeStore(connect_redis(ctx.settings.redis_url), ctx.settings.node.state_dir, ctx.clock)
    try:
        return JudgeWorker(ctx, int(arg), _Peers(bus, store)).run()
    except _Stopping:
        return EXIT_OK
    except ConfigError as exc:
        log.error("%s", exc, extra={"event": "config_fault"})  # noqa: TRY400  (the text says it all)
        ctx.cell.state(State.BUS_DOWN, str(exc))
        return EXIT_FATAL
    finally:
        ctx.cell.beat(allow_s=STEP_S)
        bus.close()


class JudgeWorker:
    """The work loop of one shard."""

    def __init__(self, ctx: WorkerContext, number: int, peers: _Peers) -> None:
        self._ctx = ctx
        self._number = number
        self._bus, self._store = peers.bus, peers.store
        self._shard: Shard[Delivery] = Shard(self._load, ctx.settings.judge.reorder_wait_s)
        self._wanted = WantedFile(ctx.wanted_path)
        self._wanted_at_s = 0.0
        self._served = ServedClock()
        self._leavers = Leavers()
        self._queue = detections_queue(ctx.settings.node.node_id, number)
        self._hand_on = HandOn(self._bus, self._queue, ctx.cell, self._insist, ctx.clock)
        self._prefetch = 0
        #: Cameras whose newest snapshot is on disk only.
        self._owed: set[str] = set()
        #: Counters of each camera as the board was told.
        self._told: dict[str, dict[str, int]] = {}

    def run(self) -> int:
        """Judge until told to stop."""
        ctx = self._ctx
        self._follow_wanted()
        ctx.cell.ready()
        self._insist(self._bus.declare, "declare")
        self._prefetch = PREFETCH_PER_CAMERA * max(CAMERAS_MIN, 2 * len(self._shard))
        self._bus.consume(self._queue, self._prefetch)
        # Most of what is late is our own, and waits in hand for its turn as the rest does.
        self._bus.consume(DETECTIONS_LATE, self._prefetch)
        drain = Drain(ctx.stop, ctx.clock, ctx.settings.node.stop_timeout_s * TAKE_SHARE)
        took = False
        while not drain.over(took):
            ctx.cell.beat()
            self._follow_wanted()
            if PREFETCH_PER_CAMERA * len(self._shard) > self._prefetch:
                log.warning("judge: many more cameras; starting anew to take more", extra={"event": "judge_prefetch"})
                return EXIT_FAILED
            took = self._round()
            self._pay_redis()
            self._unbind_leaver()
            self._hand_on.show()
            self._show_state()
        return EXIT_OK

    # --- what comes in

    def _round(self) -> bool:
        """Judge what is there; return whether anything was."""
        deliveries = self._collect()
        if any(delivery.key not in self._shard.specs for delivery in deliveries):
            # The camera may be newer than our last look at the wanted ones.
            self._follow_wanted(at_once=True)
        served_s = self._served.tick(self._ctx.clock.monotonic_s(), self._bus.connected)
        batch: Batch[Delivery] = Batch()
        for delivery in deliveries:
            if delivery.key in self._shard.specs or self._has_left(delivery):
                self._take(delivery, served_s, batch)
            else:
                self._hand_on.send_home(delivery)
        self._shard.judge_due(served_s, batch)
        self._carry_out(batch)
        return bool(deliveries)

    def _collect(self) -> list[Delivery]:
        first = self._bus.get(IDLE_S)
        found = [] if first is None else [first]
        while found and len(found) < BATCH_MAX:
            more = self._bus.get(0.0)
            if more is None:
                break
            found.append(more)
        return found

    def _has_left(self, delivery: Delivery) -> bool:
        """Whether its camera is bound here though this node does not serve it; else another judge has it."""
        # In our own queue but of another shard: it was bound when there were more or fewer of us.
        return delivery.queue == self._queue and self._wanted.current.camera(delivery.key) is None

    def _take(self, delivery: Delivery, served_s: float, batch: Batch[Delivery]) -> None:
        try:
            clip = decode_detections(delivery.message)
            times = clip.header.sample_ns
            if any(later <= earlier for earlier, later in pairwise(times)):
                raise DecodeError("detections: sample_ns must grow")
        except DecodeError as exc:
            self._hand_on.put_aside(delivery, exc.why)
            return
        if delivery.key in self._shard.specs:
            self._shard.take(clip, delivery, served_s, batch)
            return
        self._leavers.note(delivery.key, self._ctx.clock.monotonic_s())
        settings = self._ctx.settings
        # Without a registry there is no other node that might have it.
        is_own = settings.registry is not None and clip.header.node_id == settings.node.node_id
        self._hand_on.refuse_or_send(delivery, is_own=is_own)

    # --- what goes out

    def _carry_out(self, batch: Batch[Delivery]) -> None:
        if not batch:
            return
        overtaken = {name for name in {alarm.camera_id for alarm, _ in batch.alarms} if self._is_overtaken(name)}
        for alarm, timings in batch.alarms:
            if alarm.camera_id not in overtaken:
                self._publish(alarm, timings)
        for camera_id, judge in batch.judges.items():
            if camera_id in overtaken or not self._save(camera_id, judge):
                overtaken.add(camera_id)
                self._start_over(camera_id)
        self._settle(batch, overtaken)
        self._count(batch)

    def _settle(self, batch: Batch[Delivery], overtaken: set[str]) -> None:
        for delivery in batch.settled:
            # What was judged on a state that is not the newest is not judged yet.
            if delivery.key in overtaken:
                self._bus.nack(delivery)
            else:
                self._bus.ack(delivery)
        for delivery in batch.strays:
            self._hand_on.send_home(delivery)

    def _is_overtaken(self, camera_id: str) -> bool:
        """Whether another judge went on with this camera: what ours makes of it is not to be told."""
        self._ctx.cell.beat(allow_s=STEP_S)
        return self._store.is_overtaken(camera_id)

    def _start_over(self, camera_id: str) -> None:
        log.warning(
            "%s: another judge is further on; going on from its state", camera_id, extra={"event": "judge_stale"}
        )
        self._shard.forget(camera_id)
        self._told.pop(camera_id, None)

    def _publish(self, alarm: AlarmMessage, timings: dict[str, int]) -> None:
        judged = alarm.model_copy(update={"timings": {**timings, "judged": self._ctx.clock.wall_ns()}})
        message = encode_alarm(judged)
        while True:
            try:
                self._insist(lambda: self._bus.publish(ALARMS, alarm.camera_id, message), "publish an alarm")
            except Refused as exc:
                # A full queue must not cost an alarm: everything behind it waits.
                self._pause(State.BUS_DOWN, f"alarm refused: {exc}")
            else:
                break
        log.info(
            "%s: %s %s in %s (%s)", alarm.camera_id, alarm.rule_id, alarm.stage, alarm.zone, alarm.dedup_key,
            extra={"event": "episode", "camera": alarm.camera_id, "stage": alarm.stage, "key": alarm.dedup_key},
        )  # fmt: skip

    def _save(self, camera_id: str, judge: CameraJudge) -> bool:
        """Store a state; False when another judge's is further on."""
        while True:
            self._ctx.cell.beat(allow_s=STEP_S)
            try:
                saved = self._store.save(judge)
            except OSError as exc:
                self._pause(State.REDIS_DOWN, f"neither Redis nor the disk keeps the judge's state: {exc.strerror}")
            else:
                break
        self._owed.discard(camera_id)
        if saved is Saved.DISK:
            self._owed.add(camera_id)
        return saved is not Saved.STALE

    def _pay_redis(self) -> None:
        """Bring Redis up to date after it was away."""
        if self._owed and self._store.may_try:
            for camera_id in sorted(self._owed):
                judge = self._shard.judges.get(camera_id)
                if judge is None:
                    self._owed.discard(camera_id)
                elif not self._save(camera_id, judge):
                    self._start_over(camera_id)
                if self._store.redis_fault:
                    return

    def _insist(self, action: Callable[[], None], what: str) -> None:
        """Do it, again and again while the bus is away.

        Raises:
            Refused: the bus is there and refuses.
            _Stopping: told to stop meanwhile.
        """
        while True:
            self._ctx.cell.beat(allow_s=STEP_S)
            try:
                action()
            except Unavailable as exc:
                self._pause(State.BUS_DOWN, f"{what}: {exc}")
            else:
                return

    def _pause(self, state: State, detail: str) -> None:
        self._ctx.cell.state(state, detail)
        self._ctx.cell.beat()
        # The reorder wait stands still meanwhile: what is missing cannot arrive.
        self._served.tick(self._ctx.clock.monotonic_s(), connected=False)
        if self._ctx.stop.wait(RETRY_S):
            raise _Stopping

    # --- surroundings

    def _follow_wanted(self, *, at_once: bool = False) -> None:
        now_s = self._ctx.clock.monotonic_s()
        if now_s < self._wanted_at_s and not at_once:
            return
        self._wanted_at_s = now_s + WANTED_EVERY_S
        try:
            if not self._wanted.refresh():
                return
        except DecodeError as exc:
            log.warning("judge: %s; going on with the cameras known", exc, extra={"event": "wanted_unreadable"})
            return
        shards = self._ctx.settings.judge.shards
        mine = [cam for cam in self._wanted.current.cameras if shard_of(cam.camera_id, shards) == self._number]
        self._ctx.cell.set("cameras", len(mine))
        ids = {spec.camera_id for spec in mine}
        self._leavers.forget(ids)
        for camera_id in sorted(set(self._shard.specs) - ids):
            self._leavers.note(camera_id, now_s)
        self._carry_out(self._shard.want(mine))
        try:
            write_applied(
                applied_path(self._ctx.settings.node.state_dir, self._number), mine, self._ctx.clock.wall_ns()
            )
        except OSError as exc:
            log.warning("judge: cannot say which rules hold: %s", exc.strerror, extra={"event": "applied_unwritten"})

    def _unbind_leaver(self) -> None:
        """Have the broker route nothing of a camera here that left long enough ago; one a turn."""
        camera_id = self._leavers.due(self._ctx.clock.monotonic_s())
        if camera_id is None or not self._bus.connected:
            return
        if not self._wants(camera_id):
            self._ctx.cell.beat(allow_s=STEP_S)
            try:
                self._bus.unbind_camera(camera_id)
            except Unavailable as exc:
                log.debug("judge: unbind: %s", exc)
                return
            log.info("%s: not served here any more; unbound", camera_id, extra={"event": "camera_unbound"})
            # It may have come back, and its capture have bound it, right before: it was wanted then, which shows now.
            if self._wants(camera_id):
                self._insist(lambda: self._bus.bind_camera(camera_id), "bind a camera that came back")
        self._leavers.forget([camera_id])

    def _wants(self, camera_id: str) -> bool:
        """Whether this node wants the camera, by what is written now."""
        self._follow_wanted(at_once=True)
        return self._wanted.current.camera(camera_id) is not None

    def _load(self, spec: CameraSpec) -> CameraJudge:
        settings = self._ctx.settings
        author = Author(
            settings.node.node_id, spec.camera_id, settings.alarm.replay_before_s, settings.alarm.replay_after_s
        )
        self._ctx.cell.beat(allow_s=STEP_S)
        body = self._store.load(spec.camera_id)
        judge = None
        if body is not None:
            try:
                judge = unpack(body, author, spec.sample_fps)
            except DecodeError as exc:
                log.warning("%s: starting fresh: %s", spec.camera_id, exc, extra={"event": "judge_state_bad"})
        judge = judge or CameraJudge(author, spec.rules, spec.sample_fps)
        self._told[spec.camera_id] = dict(judge.ledger.counters.items())
        return judge

    def _count(self, batch: Batch[Delivery]) -> None:
        """Add to the board what the batch added to the cameras' counters."""
        cell = self._ctx.cell
        cell.add("refused", batch.refused)
        for camera_id, judge in batch.judges.items():
            now = dict(judge.ledger.counters.items())
            before = self._told.get(camera_id, now)
            self._told[camera_id] = now
            for shown, counter in _SHOWN:
                cell.add(shown, now[counter] - before[counter])
        if batch.end_ns:
            cell.set("last_clip_ns", max(batch.end_ns, cell.get("last_clip_ns")))

    def _show_state(self) -> None:
        cell = self._ctx.cell
        if not self._bus.connected:
            cell.state(State.BUS_DOWN, "detections wait in their queue")
        elif self._store.redis_fault:
            cell.state(State.REDIS_DOWN, f"snapshots go to disk: {self._store.redis_fault}")
        elif self._shard.specs:
            cell.state(State.RUNNING)
        else:
            cell.state(State.IDLE, "no camera")


#: Counters of the board with those of the ledger that they add up.
_SHOWN: Final = (
    ("clips", "clips_judged"),
    ("samples", "samples_judged"),
    ("duplicates", "duplicates"),
    ("fenced", "fenced"),
    ("gaps", "gaps"),
    ("refused", "late"),
    ("alarms", "alarms"),
)
