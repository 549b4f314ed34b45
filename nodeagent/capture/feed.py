"""One stream of a camera, from its source to its recorder: opens it, watches it, opens it anew."""

from __future__ import annotations

import logging
import random
from collections import Counter

import av

from nodeagent.capture.link import Link, Phase
from nodeagent.capture.recorder import Recorder
from nodeagent.capture.sender_clock import SenderClock
from nodeagent.capture.sound import Heard
from nodeagent.capture.source import Arrived, Ended, Event, Opened, Session
from nodeagent.contract.camera import StreamSpec
from nodeagent.contract.clip import StreamName
from nodeagent.contract.states import State
from nodeagent.infra.clock import Clock
from nodeagent.infra.gaps import GapReason
from nodeagent.infra.settings.sections import CaptureSettings

log = logging.getLogger(__name__)

#: Opening has time-outs of its own, but looking up a name has none; then its thread is left behind, seconds.
OPEN_PATIENCE_S = 30.0
#: Sessions that were given up and still hang in a read; no other is opened while there are so many.
LEFT_MOST = 8
#: Packets that are taken in one go before the loop looks at anything else.
TAKEN_AT_ONCE = 50

Row = tuple[State, str]


def trouble(state: State, detail: str) -> Row:
    """The state, if there is something to say."""
    return (state, detail) if detail else (State.CAPTURING, "")


def _shape(stream: av.VideoStream) -> str:
    """Codec, and size where it is known yet."""
    size = f" {stream.width}x{stream.height}" if stream.width else ""
    return f"{stream.codec_context.name}{size}"


class Feed:
    """The source of one stream.

    `sender` is the clock that it shares with the camera's other stream.

    Attributes:
        recorder: takes its packets.
        counts: what happened since the worker last took it over to the status board.
    """

    def __init__(
        self,
        who: tuple[str, StreamName],
        spec: StreamSpec,
        recorder: Recorder,
        settings: CaptureSettings,
        clock: Clock,
        sender: SenderClock | None = None,
    ) -> None:
        self._camera_id, self._stream = who
        self._sender = sender
        self._spec = spec
        self._settings = settings
        self._clock = clock
        self._link = Link(settings.reconnect_min_s, settings.reconnect_max_s, random.random)
        self._session: Session | None = None
        self._left: list[Session] = []
        self._last_packet_s = 0.0
        #: Why its source cannot be opened briefly; empty while nobody knows better.
        self._look = ""
        self.recorder = recorder
        self.counts: Counter[str] = Counter()

    @property
    def delivers(self) -> bool:
        """Whether pictures arrive."""
        return self._link.phase is Phase.STREAMING and not self.recorder.stream_trouble

    @property
    def row(self) -> Row:
        """What a person must know first: a source that is away, then the disk, then what only costs time."""
        rows = (
            (self._link.state, self._link.detail),
            self.recorder.problem or (State.CAPTURING, ""),
            trouble(State.BAD_STREAM, self.recorder.stream_trouble),
            trouble(State.SPARSE_KEYFRAMES, self.recorder.sparse_keys),
        )
        return next((row for row in rows if row[0] is not State.CAPTURING), (State.CAPTURING, ""))

    def step(self) -> bool:
        """Do what is due; whether there may be more to do at once."""
        if self._session is None:
            self._open_when_due()
            return False
        return self._take()

    def _take(self) -> bool:
        for _ in range(TAKEN_AT_ONCE):
            session = self._session
            event = session.get(0) if session is not None else None
            if event is None:
                self._watch_for_stall()
                return False
            self._handle(event)
        return True

    def close(self) -> None:
        """Close what is open, and let go of the source."""
        self.recorder.close()
        if self._session is not None:
            self._session.close()

    def _open_when_due(self) -> None:
        now_s = self._clock.monotonic_s()
        if not self._link.due(now_s):
            return
        self._left = [session for session in self._left if session.reads]
        if len(self._left) >= LEFT_MOST:
            return
        self._link.open()
        self._session = Session(
            self._spec,
            self._settings.stall_timeout_s,
            self._clock,
            camera_times=self._sender is not None,
            look=self._look,
        )
        self._session.start()
        self._last_packet_s = now_s

    def _handle(self, event: Event) -> None:
        match event:
            case Arrived():
                self._last_packet_s = self._clock.monotonic_s()
                self.recorder.feed(self._by_sender(event))
            case Heard():
                self.recorder.hear(event)
            case Opened(stream, sound, looked_at):
                self._look = looked_at
                self._say(logging.INFO, "source_opened", _shape(stream) + (f" ({self._look})" if self._look else ""))
                self._last_packet_s = self._clock.monotonic_s()
                self._link.opened(self._last_packet_s)
                self.recorder.begin_session(stream, sound)
            case Ended(state, detail, look):
                self._look = detail if look else self._look
                self._end_session(state, detail)

    def _by_sender(self, arrived: Arrived) -> Arrived:
        if self._sender is None or arrived.camera_ns is None:
            return arrived
        arrival_ns = self._sender.arrival_ns(arrived.camera_ns, arrived.arrival_ns)
        return Arrived(arrived.packet, arrival_ns, arrived.stamp_ns, arrived.camera_ns)

    def _watch_for_stall(self) -> None:
        if self._session is None:
            return
        silent_s = self._clock.monotonic_s() - self._last_packet_s
        if self._link.phase is Phase.OPENING:
            if silent_s >= OPEN_PATIENCE_S:
                self._end_session(State.SOURCE_DOWN, f"opening hangs for {silent_s:.0f} s")
            return
        # A file's next packet comes when its time has come, and a slow one is no camera to be opened anew.
        if silent_s >= self._session.stall_s and not self._spec.is_file:
            self._end_session(State.STALLED, self._session.silence(silent_s))

    def _end_session(self, state: State, detail: str) -> None:
        if state is State.SOURCE_ENDED:
            self._link.finished()
        else:
            if state is not self._link.state:
                self._say(logging.WARNING, "source_lost", f"{state.value} ({detail})")
            self._link.failed(state, detail, self._clock.monotonic_s())
            self.counts["reconnects"] += 1
        self.recorder.end_session(GapReason(state.value), detail)
        if self._session is not None:
            self._session.close()
            self._left.append(self._session)
            self._session = None

    def _say(self, level: int, event: str, text: str) -> None:
        log.log(
            level,
            "camera %s, stream %s: %s",
            self._camera_id,
            self._stream,
            text,
            extra={"event": event, "camera": self._camera_id, "stream": self._stream},
        )
