"""Announces closed clips to the bus from the journal, in a thread that recording never waits for.

The journal is the queue: nothing is announced that is not in it, and nothing leaves it before the broker's confirm.  So
a broker that is away for days costs disk space only.
"""

from __future__ import annotations

import logging
import threading

from nodeagent.capture.journal import Closed, Journal
from nodeagent.contract.codec import encode_clip_task
from nodeagent.contract.errors import ConfigError, Refused, Unavailable
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.topology import CLIPS, CLIPS_SPILL
from nodeagent.infra.clock import Clock

log = logging.getLogger(__name__)

#: Delays between attempts while the broker is away or refuses, seconds; doubled from the first to the last.
RETRY_FIRST_S, RETRY_LONGEST_S = 0.5, 10.0
#: How often the thread looks for new clips when nobody wakes it, seconds.
IDLE_S = 1.0


def announce(bus: Bus, journal: Journal, camera_id: str, closed: Closed) -> None:
    """Hand one clip to the broker and note that it has it.

    Raises:
        Refused: both queues are full, or neither has a route.
        Unavailable: not confirmed.
    """
    message = encode_clip_task(closed.task)
    try:
        bus.publish(CLIPS, camera_id, message)
    except Refused:
        # Full or unroutable: any node with spare inference may serve it; refused there too, it waits here.
        bus.publish(CLIPS_SPILL, camera_id, message)
    # Killed before the next line: announced twice, which readers deduplicate.
    journal.confirm(closed.key)


class Publisher:
    """The thread of one camera.

    Attributes:
        trouble: why nothing can be announced now; empty when all is well.
    """

    def __init__(self, bus: Bus, camera_id: str, journal: Journal, clock: Clock) -> None:
        self._bus = bus
        self._camera_id = camera_id
        self._journal = journal
        self._clock = clock
        self._bound = False
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._count_lock = threading.Lock()
        self._announced = 0
        self.trouble = ""

    def start(self) -> None:
        """Begin with what the journal holds."""
        self._thread.start()

    def wake(self) -> None:
        """A clip was closed."""
        self._wake.set()

    def take_announced(self) -> int:
        """Clips that the broker has confirmed since the last call."""
        with self._count_lock:
            taken, self._announced = self._announced, 0
        return taken

    def drain(self, timeout_s: float) -> None:
        """Announce what can be announced within the time, then stop.  The rest waits in the journal."""
        end_s = self._clock.monotonic_s() + timeout_s
        while self._journal.unconfirmed and not self.trouble and self._clock.monotonic_s() < end_s:
            self._wake.set()
            self._stopping.wait(0.05)
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=max(0.1, end_s - self._clock.monotonic_s()))

    def _run(self) -> None:
        delay_s = RETRY_FIRST_S
        while not self._stopping.is_set():
            try:
                self._announce_all()
            except (Unavailable, Refused, ConfigError) as exc:
                self._say(str(exc))
                self._stopping.wait(delay_s)
                delay_s = min(RETRY_LONGEST_S, delay_s * 2)
                continue
            except Exception:
                log.exception("publisher of camera %s", self._camera_id, extra={"event": "publisher_failed"})
                self.trouble = "internal error, see the log"
                self._stopping.wait(RETRY_LONGEST_S)
                continue
            self._say("")
            delay_s = RETRY_FIRST_S
            self._wake.wait(IDLE_S)
            self._wake.clear()

    def _say(self, trouble: str) -> None:
        if bool(trouble) != bool(self.trouble):
            log.log(
                logging.WARNING if trouble else logging.INFO,
                "camera %s: %s",
                self._camera_id,
                trouble or "clips are announced again",
                extra={"event": "bus_state", "camera": self._camera_id},
            )
        self.trouble = trouble

    def _announce_all(self) -> None:
        if not self._bound:
            self._bus.declare()
            self._bus.bind_camera(self._camera_id)
            self._bound = True
        while not self._stopping.is_set():
            closed = self._journal.first_unconfirmed()
            if closed is None:
                return
            self._announce(closed)

    def _announce(self, closed: Closed) -> None:
        try:
            announce(self._bus, self._journal, self._camera_id, closed)
        except Unavailable:
            # The broker may come back without its bindings.
            self._bound = False
            raise
        with self._count_lock:
            self._announced += 1
