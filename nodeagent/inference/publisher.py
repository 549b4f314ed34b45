"""The engine's numbers to detections on the bus: the thread that makes boxes, publishes, and settles the tasks.

Order per clip: detections confirmed by the broker, then the task acknowledged (or put aside).  kill -9 between the two
brings the task again and publishes the clip twice; judges know clips by identity.  kill -9 before: it comes again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from nodeagent.contract.clip import ClipTask, SampleLuma
from nodeagent.contract.codec import Message, encode_detections
from nodeagent.contract.detections import DETECTION_DTYPE, ClipDetections, DetectionsHeader, Rows
from nodeagent.contract.errors import Refused, Unavailable
from nodeagent.inference.outcomes import Outcomes
from nodeagent.inference.tries import Tries
from nodeagent.inference.work import Alien, Cancelled, Channel, Ended, Inferred, Last, Tally
from nodeagent.infra.bus.port import Bus, Delivery
from nodeagent.infra.bus.topology import DETECTIONS
from nodeagent.infra.clock import Clock

log = logging.getLogger(__name__)

#: First and longest delay before a refused or unconfirmed publish is tried again, seconds.
RETRY_MIN_S = 0.2
RETRY_MAX_S = 5.0
#: Delay of a clip of another node's camera whose detections nobody takes, seconds, and how often it is tried: for ten
#: minutes, because each time costs the engine.
UNROUTABLE_S = 30.0
UNROUTABLE_MAX = 20
#: Delay of a message that the dead-letter queue has no room for, seconds: until a person made some.
FULL_S = 300.0

_T = TypeVar("_T")

Results = Channel[Inferred | Ended | Alien | Last]


def detections_of(ended: Ended, rows: Rows, done_ns: int) -> ClipDetections:
    """The message about one clip.

    Args:
        ended: the clip, how it was read and what went wrong.
        rows: its boxes; not looked at when something went wrong.
        done_ns: wall clock when they were ready.
    """
    job, task = ended.job, ended.job.task
    known = not ended.reason
    header = DetectionsHeader(
        node_id=task.node_id,
        camera_id=task.camera_id,
        epoch=task.epoch,
        epoch_started_ns=task.epoch_started_ns,
        clip_seq=task.clip_seq,
        start_ns=task.start_ns,
        duration_ns=task.duration_ns,
        outcome="ok" if known else "unknown",
        reason=ended.reason,
        samples_expected=len(task.sample_ns),
        sample_ns=ended.sample_ns if known else (),
        sample_width=task.sample_width,
        sample_height=task.sample_height,
        luma=_luma(task, ended.sample_ns) if known else None,
        model=job.model.description.name if job.model else "",
        model_version=job.model.version if job.model else "",
        labels=job.model.description.labels if job.model else (),
        path=ended.path if known else "none",
        timings={"closed": task.closed_ns, "inference_started": job.started_ns, "inference_done": done_ns},
    )
    return ClipDetections(header, rows if known else np.empty(0, DETECTION_DTYPE))


def _luma(task: ClipTask, sample_ns: tuple[int, ...]) -> SampleLuma | None:
    """The brightness of the samples that were read."""
    if task.luma is None or sample_ns == task.sample_ns:
        return task.luma
    place = {time_ns: i for i, time_ns in enumerate(task.sample_ns)}
    return task.luma.at([place[time_ns] for time_ns in sample_ns])


class Publisher:
    """Publishes what the engine found.

    Attributes:
        alive_s: monotonic time of its last step.
        trouble: why the broker does not take results; empty when it does.
        newest_ns: capture time at which the newest published clip ends, UTC ns; 0: none was.
        outcomes: which cameras' clips come back unknown.
        done: it will not publish anything more.
        crashed: it ended by an error that nobody foresaw; the worker must start anew.
    """

    def __init__(self, node_id: str, bus: Bus, clock: Clock, over: threading.Event, tally: Tally, tries: Tries) -> None:
        self._node_id = node_id
        self._bus = bus
        self._clock = clock
        self._over = over
        self._tally = tally
        self._tries = tries
        self._rows: list[Rows] = []
        #: Cameras of other nodes whose detections nobody takes.
        self._unrouted: set[str] = set()
        #: The dead-letter queue took nothing the last time.
        self._full = False
        self.alive_s = clock.monotonic_s()
        self.trouble = ""
        self.newest_ns = 0
        self.outcomes = Outcomes()
        self.done = threading.Event()
        self.crashed = False

    def run(self, results: Results) -> None:
        """Serve until `Last` comes, or until the worker ends."""
        try:
            while not isinstance(item := results.take(self.alive), Last):
                match item:
                    case Inferred():
                        self._collect(item)
                    case Ended():
                        self._conclude(item)
                    case Alien():
                        self._put_aside(item)
        except Cancelled:
            log.info("results not published, their clips go back", extra={"event": "clip_given_back"})
        except Exception:
            # The worker ends and starts anew; what was not acknowledged comes again.
            log.exception("publisher failed", extra={"event": "publisher_failed"})
            self.crashed = True
        finally:
            self.done.set()

    def alive(self) -> None:
        """Show that this thread moves."""
        self.alive_s = self._clock.monotonic_s()

    def _collect(self, batch: Inferred) -> None:
        if batch.first == 0:
            self._rows.clear()
        self._rows.append(batch.model.find(batch.raw[0], batch.placement, batch.first))

    def _conclude(self, ended: Ended) -> None:
        rows = np.concatenate(self._rows) if self._rows else np.empty(0, DETECTION_DTYPE)
        self._rows.clear()
        task, delivery = ended.job.task, ended.job.delivery
        found = detections_of(ended, rows, self._clock.wall_ns())
        message = encode_detections(found)
        if not self._insist(lambda: self._offer(task, message)):
            self._put_off(ended)
            return
        if not ended.dead:
            self._bus.ack(delivery)
        elif not self._insist(lambda: self._bury(delivery, ended.reason)):
            return
        self._tries.conclude(task.clip_id)
        self._count(found)
        self._note(ended)

    def _note(self, ended: Ended) -> None:
        """Follow the camera's outcomes; one line when they change, however many clips it concerns."""
        task, reason = ended.job.task, ended.reason
        about = {"camera": task.camera_id, "clip": str(task.clip_id)}
        if not reason:
            # A clip without samples says nothing of whether samples can be looked at.
            if ended.sample_ns and (clips := self.outcomes.known(task.camera_id)):
                log.info(
                    "%s: clips are analysed again; unknown before: %d", task.camera_id, clips,
                    extra={"event": "clips_known"} | about,
                )  # fmt: skip
        elif self.outcomes.unknown(task.camera_id, reason, self._clock.monotonic_s()):
            log.warning("clip %s: unknown: %s", task.clip_id, reason, extra={"event": "clip_unknown"} | about)

    def _offer(self, task: ClipTask, message: Message) -> bool:
        """Publish; False: nobody takes what this camera of another node shows."""
        try:
            self._bus.publish(DETECTIONS, task.camera_id, message)
        except Refused:
            # No route, or a full queue.  A camera of our own was just removed: its route is made anew, and the rest is
            # waited out.  Another node's is not ours to route, and must not hold up all others.
            if task.node_id != self._node_id:
                return False
            self._bus.bind_camera(task.camera_id)
            raise
        self._unrouted.discard(task.camera_id)
        return True

    def _put_off(self, ended: Ended) -> None:
        """Try the clip of another node's camera again later, and put it aside when that was often enough."""
        task, delivery = ended.job.task, ended.job.delivery
        if delivery.attempt > UNROUTABLE_MAX:
            self._insist(lambda: self._bury(delivery, "no judge's queue takes its detections"))
        else:
            self._insist(lambda: self._bus.later(delivery, UNROUTABLE_S))
        self._tries.give_back(task.clip_id)
        if task.camera_id not in self._unrouted:
            self._unrouted.add(task.camera_id)
            log.warning(
                "%s of %s: nobody takes its detections; its clips wait", task.camera_id, task.node_id,
                extra={"event": "clip_unroutable", "camera": task.camera_id},
            )  # fmt: skip

    def _bury(self, delivery: Delivery, reason: str) -> bool:
        """Put a message aside; False: the dead-letter queue is full, so it comes again later.

        Raises:
            Unavailable: the broker is away.
        """
        try:
            self._bus.dead(delivery, reason)
        except Unavailable as exc:
            # The port does not tell a full queue from a broker that is away; the latter refuses this too.
            self._bus.later(delivery, FULL_S)
            if not self._full:
                log.warning("messages cannot be put aside; they wait: %s", exc, extra={"event": "dead_letters_full"})
            self._full = True
            return False
        self._full = False
        return True

    def _put_aside(self, alien: Alien) -> None:
        if not self._insist(lambda: self._bury(alien.delivery, alien.reason)):
            return
        self._tally.add("refused")
        log.warning(
            "message of %s put aside: %s", alien.delivery.queue, alien.reason,
            extra={"event": "message_refused", "queue": alien.delivery.queue},
        )  # fmt: skip

    def _count(self, found: ClipDetections) -> None:
        header = found.header
        self._tally.add("clips")
        self._tally.add("samples", len(header.sample_ns))
        self._tally.add("boxes", len(found.rows))
        if header.outcome == "unknown":
            self._tally.add("unknown")
        elif header.path != "none":
            self._tally.add(f"from_{header.path}")
        self.newest_ns = max(self.newest_ns, header.end_ns)

    def _insist(self, do: Callable[[], _T]) -> _T:
        """Do until the broker confirms; return the result.

        Raises:
            Cancelled: the worker ends first.
        """
        delay_s = RETRY_MIN_S
        while True:
            self.alive()
            try:
                result = do()
            except (Unavailable, Refused) as exc:
                if not self.trouble:
                    log.warning("results wait: %s", exc, extra={"event": "results_wait"})
                self.trouble = str(exc)
            else:
                if self.trouble:
                    log.info("results are taken again", extra={"event": "results_taken"})
                self.trouble = ""
                return result
            if self._over.wait(delay_s):
                raise Cancelled
            delay_s = min(RETRY_MAX_S, delay_s * 2)
