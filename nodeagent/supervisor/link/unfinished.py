"""What is left to do with what this node recorded, looked at while it serves no camera: then it ends, and can be waited
for before the node is switched off.

Counted along the way of the data, the beginning first: what moves on meanwhile is met again further on.  What is
between two places at the moment of a look is missed by it, so two looks in a row have to find nothing.  What lies in
queues that all nodes share (`clips.spill`, `detections.late`, `alarms`) is not counted: whose it is is not known there.

Asked in a thread of its own: a broker that hangs keeps no report back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ownership import Unfinished
from nodeagent.contract.report import Kind, NodeReport
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.topology import clips_queue, detections_queue
from nodeagent.infra.journals import untold
from nodeagent.infra.settings.sections import Settings

log = logging.getLogger(__name__)

#: Seconds between two looks: each asks the broker a few questions.
LOOK_S: Final = 1.0
#: What is under way at the end is waited for so long, seconds: one question to a broker that answers.
CLOSE_S: Final = 2.0

_UNKNOWN: Final = Unfinished()


class _Waiting(NamedTuple):
    """Messages that nobody has taken, and those that a consumer has, or had when it was killed."""

    depth: int
    taken: int


class Leftovers:
    """Looks while it is asked by a node that serves no camera."""

    def __init__(self, settings: Settings, board: Callable[[], NodeReport]) -> None:
        """`board` reads the status board; nothing is done before the first question."""
        self._settings = settings
        self._board = board
        self._changed = threading.Condition()
        self._idle = self._closing = False
        #: Tells the times apart for which the node serves no camera: a look that began in another one says nothing.
        self._time = 0
        self._looks: tuple[Unfinished, ...] = ()
        self._bus: Bus | None = None
        self._thread: threading.Thread | None = None

    def left(self, *, serves: bool) -> Unfinished | None:
        """What is left; None while the node serves cameras, for more comes.  Returns at once."""
        with self._changed:
            if serves:
                self._idle = False
                return None
            if not self._idle:
                self._idle, self._looks, self._time = True, (), self._time + 1
                self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="leftovers", daemon=True)
                self._thread.start()
            return worse(*self._looks) if len(self._looks) == 2 else _UNKNOWN

    def close(self) -> None:
        """Look no more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while True:
            if not self._idle:
                # Not under the condition: a broker that hangs keeps this for seconds, and no report may wait for it.
                self._disconnect()
            with self._changed:
                self._changed.wait_for(lambda: self._idle or self._closing)
                if self._closing:
                    break
                time = self._time
            try:
                seen = self._look()
            except Exception:
                # The outermost line of the thread: one look that fails must not end all that follow.
                log.exception("what is left to do cannot be counted; goes on", extra={"event": "leftovers_error"})
                seen = _UNKNOWN
            with self._changed:
                if time == self._time:
                    self._looks = (*self._looks[-1:], seen)
                self._changed.wait_for(lambda: self._closing, LOOK_S)
        self._disconnect()

    def _disconnect(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def _look(self) -> Unfinished:
        node, shards = self._settings.node, self._settings.judge.shards
        running = captured(self._board())
        cameras = len(running | untold(node.state_dir))
        clips = self._waiting([clips_queue(node.node_id)])
        inferring = counted(self._board(), Kind.INFERENCE, "in_hand")
        detections = self._waiting([detections_queue(node.node_id, shard) for shard in range(shards)])
        last = self._board()
        judging, put_off = counted(last, Kind.JUDGE, "in_hand"), counted(last, Kind.JUDGE, "put_off")
        return Unfinished(
            cameras=cameras,
            clips=None if clips is None else clips.depth + max(clips.taken, inferring),
            detections=None if detections is None else detections.depth + max(detections.taken, judging) + put_off,
            alarms=counted(last, Kind.ALARM, "waiting_own"),
        )

    def _waiting(self, queues: Sequence[str]) -> _Waiting | None:
        """What waits in queues; None while the broker is away."""
        if self._bus is None:
            self._bus = open_bus(self._settings)
        bus = self._bus
        try:
            return _Waiting(sum(map(bus.depth, queues)), sum(map(bus.taken, queues)))
        except Unavailable as exc:
            log.debug("%s: %s", queues, exc)
            return None


def captured(board: NodeReport) -> frozenset[str]:
    """Cameras that have a capture, whatever it does."""
    return frozenset(row.name.partition(":")[2] for row in board.rows if row.kind is Kind.CAPTURE)


def counted(board: NodeReport, kind: Kind, counter: str) -> int:
    """A counter of all children of a kind together."""
    return sum(max(0, row.counters.get(counter, 0)) for row in board.rows if row.kind is kind)


def worse(one: Unfinished, other: Unfinished) -> Unfinished:
    """The higher counts of two looks; not known where either does not know."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in Unfinished.model_fields}
    return Unfinished(**{name: None if None in pair else max(pair) for name, pair in pairs.items()})
