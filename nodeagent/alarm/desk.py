"""The alarm worker's loop: takes messages, records them, waits, has the slow steps done, settles the messages.

Everything here runs in one thread; only cutting and pushing run in two small pools.  A message stays unacknowledged
until its alarm is final, so whatever dies on the way, it comes again; `steps.STEPS` says what it then finds.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial

from nodeagent.alarm.hand import Job, Trouble, account, retry_after_s
from nodeagent.alarm.merge import check
from nodeagent.alarm.pins import let_go_of_done, pin_window
from nodeagent.alarm.plan import Wait, decide
from nodeagent.alarm.replay import piece_of, window_of
from nodeagent.alarm.settle import Settler
from nodeagent.alarm.states import FINAL, Event
from nodeagent.alarm.steps import Checkpoint
from nodeagent.alarm.store import AlarmStore, RowLost
from nodeagent.alarm.work import AlarmWork, Done, End
from nodeagent.contract.codec import decode_alarm
from nodeagent.contract.errors import DecodeError, StorageUnavailable, Unavailable
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S, NodeId
from nodeagent.infra.alarm_records import AlarmState
from nodeagent.infra.board import BoardCell
from nodeagent.infra.bus.port import Bus, Delivery
from nodeagent.infra.bus.topology import RETRY_DELAYS_S
from nodeagent.infra.clock import Clock
from nodeagent.infra.storage import Listing, Storage

log = logging.getLogger(__name__)

#: Longest time that a message is held unacknowledged, seconds: a replay's second half, a clip's length, the cut; far
#: under the broker's own limit (30 minutes), beyond which it closes the channel.
HOLD_S = 60.0
#: Threads that cut: each decodes a whole replay, and a node's cores belong to inference.
CUTTERS = 2
#: Threads that push: a target that does not answer holds one for its time-out.
PUSHERS = 4
#: Alarms in hand that are pushed or wait for it; more go back into their queue, so that there is room for new ones.
PUSHING_MAX = 64
#: Delay of those, seconds: about what the pool needs for as many.
CROWDED_S = 5.0
#: Pause between two looks at the pool for a waiting alarm, seconds.
LOOK_S = 0.5
#: The same at most while the window lasts by the wall clock, seconds: about once per clip, so that it is pinned.
AHEAD_S = 5.0
#: Pause before what failed for want of a peer is tried again, seconds.
RETRY_S = 1.0
#: Delay of a message whose alarm another worker holds, seconds.
TAKEN_S = 5.0
#: Delay of a message after an error that nobody foresaw, or a full disk, seconds.
TROUBLE_S = 5.0
#: An alarm that is not final and that nobody had in hand for this long is taken up without a message, seconds: longer
#: than the longest delay of a retry and the time that a message is held.
FORGOTTEN_S = 600.0
#: Pause between two looks for such alarms, seconds; the shorter one while there are more than are taken at a time.
SWEEP_S = 180.0
SWEEP_FULL_S = 10.0
#: Alarms taken up at a time: a quarter of what is in hand at most.
SWEEP_MAX = 64
#: Messages taken in one turn of the loop.
TURN = 32
#: A step that still runs this long after its claim expired hangs, seconds: no statement or request takes longer.
STUCK_S = 60.0
#: The loop's next beat may take so long, seconds: a statement that waits for the database, a confirm of the broker.
STEP_S = 40.0


class AlarmDesk:
    """The loop's state.  `turn` is one round of it."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        bus: Bus,
        store: AlarmStore,
        storage: Storage,
        work: AlarmWork,
        pause: Callable[[float], object],
        cell: BoardCell,
        clock: Clock,
        patience_s: float,
        checkpoint: Checkpoint,
    ) -> None:
        """`pause` sleeps for some seconds, less on stop."""
        self._node_id = node_id
        self._bus = bus
        self._store = store
        self._storage = storage
        self._work = work
        self._pause = pause
        self._cell = cell
        self._clock = clock
        self._patience_ns = round(patience_s * NS_PER_S)
        self._checkpoint = checkpoint
        self._cutters = ThreadPoolExecutor(CUTTERS, "cut")
        self._pushers = ThreadPoolExecutor(PUSHERS, "push")
        self._jobs: dict[str, Job] = {}
        #: Taken, not recorded yet: the database is away.
        self._inbox: deque[tuple[Delivery, float]] = deque()
        self._settler = Settler(bus)
        #: What was read of the pool in this turn: alarms of one camera share it.
        self._listing: Listing = {}
        self._trouble = Trouble()
        self._retry_s = 0.0
        self._sweep_s = 0.0
        #: Names of cameras, for people; replaced from outside.
        self.camera_names: Mapping[str, str] = {}

    @property
    def in_hand(self) -> int:
        """Messages that are taken and not settled."""
        return len(self._jobs) + len(self._inbox) + self._settler.owed

    def turn(self, timeout_s: float) -> None:
        """Take what is there, move every alarm that can move, show the state."""
        self._beat()
        now_s = self._clock.monotonic_s()
        if now_s >= self._retry_s:
            self._retry()
        if now_s >= self._sweep_s and not self._trouble.database:
            self._sweep(now_s)
        if self._trouble.database or not self._bus.connected:
            # Without a database nothing more is taken: what could not be recorded would only go round.
            self._pause(timeout_s)
        else:
            self._take(timeout_s)
        self._listing = {}
        for job in list(self._jobs.values()):
            self._move(job)
        self.show()

    def _beat(self) -> None:
        """Beat unless a step hangs: then the supervisor ends this worker, and the step's start stays counted."""
        limit_s = self._work.limit_s + STUCK_S
        now_s = self._clock.monotonic_s()
        if all(job.work is None or job.began_s is None or now_s - job.began_s < limit_s for job in self._jobs.values()):
            self._cell.beat(allow_s=STEP_S)

    def drain(self, until_s: float) -> None:
        """Let running steps end, without taking anything more; what is left is given back by closing the bus."""
        self._cutters.shutdown(wait=False)
        self._pushers.shutdown(wait=False)
        for job in self._jobs.values():
            if job.work is not None and job.work.cancel():
                job.work = None
        while busy := [job for job in self._jobs.values() if job.work is not None or job.row.state in FINAL]:
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0:
                return
            self._beat()
            wait([job.work for job in busy if job.work is not None], min(left_s, LOOK_S), FIRST_COMPLETED)
            for job in busy:
                self._move(job, draining=True)

    def show(self) -> None:
        """Put state and gauges on the board."""
        self._cell.set("waiting", self.in_hand)
        own = sum(job.row.node_id == self._node_id for job in self._jobs.values())
        # What is not recorded yet may be of any node.
        self._cell.set("waiting_own", own + len(self._inbox))
        self._trouble.targets = self._work.targets.failing
        self._cell.state(*self._trouble.state(self._bus.connected, bool(self._jobs)))

    # Taking.

    def _take(self, timeout_s: float) -> None:
        for _ in range(TURN):
            delivery = self._bus.get(timeout_s)
            if delivery is None:
                return
            timeout_s = 0.0
            self._cell.add("received")
            self._beat()
            if not self._accept(delivery, self._clock.monotonic_s()):
                return

    def _accept(self, delivery: Delivery, taken_s: float) -> bool:
        """Record one message; what is no alarm is put aside.  False: the database refused, it waits."""
        try:
            message = decode_alarm(delivery.message)
            check(message)
            recorded = self._store.record(message, self._clock.wall_ns())
        except DecodeError as exc:
            log.warning("put aside, no alarm: %s", exc.why, extra={"event": "alarm_refused"})
            self._cell.add("refused")
            self._settler.dead(delivery, exc.why)
            return True
        except Unavailable as exc:
            self._database_down(exc)
            self._inbox.append((delivery, taken_s))
            return False
        self._checkpoint("recorded")
        row = recorded.row
        account(self._cell, message, recorded)
        if recorded.summary is not None:
            # kill -9 here: it is taken up from its row, after ten minutes.
            self._jobs[recorded.summary.dedup_key] = Job(None, recorded.summary, taken_s)
        if message.stage != "started":
            # The message `started` carries the work; this one only had something to add.
            self._settler.ack(delivery)
        elif row.dedup_key in self._jobs:
            # The newer message is held: the older may be void after a lost connection.
            self._settler.ack(self._jobs[row.dedup_key].hold(delivery))
        else:
            self._jobs[row.dedup_key] = Job(delivery, row, taken_s)
        return True

    def _sweep(self, now_s: float) -> None:
        """Take up alarms that nobody had in hand for long: the broker may have lost their messages.  Let go of pins."""
        now_ns = self._clock.wall_ns()
        try:
            found = self._store.forgotten(now_ns, now_ns - round(FORGOTTEN_S * NS_PER_S), SWEEP_MAX)
            for key in [*found, *self._store.end_storms(now_ns)]:
                self._take_up(key, now_s)
            let_go_of_done(self._storage, self._store)
        except Unavailable as exc:
            self._database_down(exc)
            return
        self._sweep_s = now_s + (SWEEP_S if len(found) < SWEEP_MAX else SWEEP_FULL_S)

    def _take_up(self, key: str, now_s: float) -> None:
        if key in self._jobs:
            return
        try:
            row = self._store.load(key)
        except (DecodeError, RowLost) as exc:
            log.warning("%s; left alone", exc, extra={"event": "alarm_unreadable"})
            return
        log.info("alarm %s: taken up without its message", row.dedup_key, extra={"event": "alarm_taken_up"})
        self._jobs[key] = Job(None, row, now_s)

    # Moving.

    def _move(self, job: Job, draining: bool = False) -> None:
        """One look at one alarm."""
        now_s = self._clock.monotonic_s()
        if job.work is not None:
            if job.work.done():
                self._collect(job, job.work)
        elif job.row.state is AlarmState.QUARANTINED:
            del self._jobs[job.row.dedup_key]
            self._settler.dead(job.delivery, job.row.state_reason or "quarantined")
        elif job.row.state in FINAL:
            self._finish(job)
        elif now_s >= job.due_s and not draining:
            self._start(job, now_s)

    def _start(self, job: Job, now_s: float) -> None:
        """The next step of an alarm that is not final."""
        if now_s - job.taken_s > HOLD_S:
            self._later(job, RETRY_DELAYS_S[2])
        elif self._trouble.database:
            job.due_s = now_s + RETRY_S
        elif job.row.state is AlarmState.REPLAY_READY and self._pushing() >= PUSHING_MAX:
            self._later(job, CROWDED_S)
        elif job.row.state is AlarmState.REPLAY_READY:
            self._submit(self._pushers, job, partial(self._work.push, job.row.dedup_key, job.owed))
        else:
            self._look(job, now_s)

    def _pushing(self) -> int:
        return sum(job.work is not None and job.row.state is AlarmState.REPLAY_READY for job in self._jobs.values())

    def _look(self, job: Job, now_s: float) -> None:
        """Pin what is there of the window; cut when it is complete or never will be."""
        row, window = job.row, window_of(job.row)
        now_ns = self._clock.wall_ns()
        # A clock that was stepped back says that the window lasts when it is over: it is looked at all the same.
        job.due_s = now_s + min(max(LOOK_S, (window.to_ns - now_ns) / NS_PER_S), AHEAD_S)
        clips = pin_window(self._storage, self._listing, row, self._checkpoint)
        if row.state is AlarmState.RECEIVED:
            self._mark_waiting(job, now_ns)
        if isinstance(decide(map(piece_of, clips), window, now_ns, self._patience_ns), Wait):
            return
        name = self.camera_names.get(row.camera_id, "")
        self._submit(self._cutters, job, partial(self._work.cut, row.dedup_key, clips, name, job.owed))

    def _submit(self, pool: ThreadPoolExecutor, job: Job, step: Callable[[], Done]) -> None:
        def timed() -> Done:
            job.began_s = self._clock.monotonic_s()
            return step()

        job.began_s = None
        job.work = pool.submit(timed)

    def _mark_waiting(self, job: Job, now_ns: int) -> None:
        try:
            if self._store.advance(job.row, Event.WAIT, now_ns):
                job.row = replace(job.row, state=AlarmState.WAITING)
        except Unavailable as exc:
            self._database_down(exc)
            return
        self._checkpoint("waiting")

    def _collect(self, job: Job, work: Future[Done]) -> None:
        """Take a step's result."""
        job.work = None
        job.due_s = 0.0
        error = work.exception()
        if isinstance(error, StorageUnavailable):
            self._trouble.storage = str(error)
            self._orderly(job)
            self._later(job, RETRY_DELAYS_S[2])
        elif isinstance(error, Unavailable):
            self._database_down(error)
            job.owed, job.due_s = True, self._clock.monotonic_s() + RETRY_S
        elif isinstance(error, RowLost):
            log.warning("%s; its message is recorded anew", error, extra={"event": "alarm_row_lost"})
            self._later(job, TAKEN_S)
        elif error is not None:
            # Nobody foresaw it: the start stays counted, so that five of them end in quarantine.
            log.error("alarm %s: step failed", job.row.dedup_key, exc_info=error, extra={"event": "alarm_step_failed"})
            self._later(job, TROUBLE_S)
        else:
            self._done(job, work.result())

    def _done(self, job: Job, done: Done) -> None:
        job.owed = False
        job.row = done.row or job.row
        self._cell.add("push_failures", sum(not push.accepted for push in done.pushes))
        if done.made_partial:
            self._cell.add("partial")
        if done.end is End.TAKEN:
            self._later(job, TAKEN_S)
        elif done.end is End.REFUSED:
            self._later(job, retry_after_s(job.row, job.delivery.attempt if job.delivery else 1))
        elif job.row.state is AlarmState.REPLAY_READY:
            self._trouble.storage = ""
        elif job.row.state in (AlarmState.PUSHED, AlarmState.RECORDED):
            self._cell.add("pushed", int(job.row.state is AlarmState.PUSHED))
            if not job.row.summary:
                lag_ns = self._clock.wall_ns() - job.row.confirmed_ns
                self._cell.set("lag_ms", max(0, lag_ns // NS_PER_MS))

    # Settling.

    def _finish(self, job: Job) -> None:
        """The alarm is final: let go of its clips, then of its message."""
        self._storage.unpin(job.row.dedup_key)
        self._checkpoint("unpinned")
        del self._jobs[job.row.dedup_key]
        self._settler.ack(job.delivery)
        self._checkpoint("acked")

    def _later(self, job: Job, delay_s: float) -> None:
        del self._jobs[job.row.dedup_key]
        self._settler.later(job.delivery, delay_s)

    def _orderly(self, job: Job) -> None:
        """Forget the start of a step that ended for a known reason."""
        try:
            self._store.release(job.row.dedup_key, orderly=True)
        except Unavailable as exc:
            self._database_down(exc)

    # Peers that are away.

    def _database_down(self, error: Exception) -> None:
        if not self._trouble.database:
            log.warning("%s", error, extra={"event": "database_down"})
        self._trouble.database = str(error)
        self._retry_s = self._clock.monotonic_s() + RETRY_S

    def _retry(self) -> None:
        """Once a second: settle what is owed, try whether the database takes writes again, record what waits."""
        self._retry_s = self._clock.monotonic_s() + RETRY_S
        self._settler.retry()
        if self._trouble.database and self._writes():
            log.info("database is back", extra={"event": "database_up"})
            self._trouble.database = ""
        if self._trouble.database:
            self._give_back()

    def _writes(self) -> bool:
        """Whether the database takes a small write, and then all messages that wait to be recorded."""
        try:
            self._store.probe()
        except Unavailable as exc:
            self._database_down(exc)
            return False
        return all(self._accept(*self._inbox.popleft()) for _ in range(len(self._inbox)))

    def _give_back(self) -> None:
        """The database stays away: messages that were held for long enough go to the delayed queue."""
        now_s = self._clock.monotonic_s()
        old = [held for held in self._inbox if now_s - held[1] > HOLD_S]
        for held in old:
            self._inbox.remove(held)
            self._settler.later(held[0], RETRY_DELAYS_S[2])
