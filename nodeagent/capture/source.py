"""Reads packets from a camera or file in a thread of its own, so that the work loop never stands still in a read.

FFmpeg's errors stop here: a session ends with a `State` and one sentence.  The queue is bounded; when the work loop
lags, the thread waits and TCP holds back the sender.

What is easy to get wrong: a container must not be closed while somebody uses its streams.  The work loop closes a
session that ended; a session that it abandons (the thread hangs in a read) is closed by its thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, cast

import av

from nodeagent.capture.brief import Doubt
from nodeagent.capture.camera_times import CameraTimes
from nodeagent.capture.handover import Handover
from nodeagent.capture.opening import NO_UDP, Source, cause_of, demuxed, open_told, pick_video
from nodeagent.capture.pacer import Pacer
from nodeagent.capture.sound import Heard
from nodeagent.capture.stamps import STILL_NS
from nodeagent.contract.camera import StreamSpec
from nodeagent.contract.errors import BadMedia
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.clock import Clock
from nodeagent.infra.video import ns_of

log = logging.getLogger(__name__)

#: Packets between the thread and the work loop: ten seconds at 25 frames/s while a clip is closed on a slow disk,
#: with the sound of those seconds.
QUEUE_PACKETS = 768
#: A camera that sends no key frame for this long is opened anew, seconds: most begin a session with one, and only there
#: can a clip be closed and analysed.  Longer than the longest spacing that cameras offer.
KEYLESS_MOST_S = 300.0
#: The first packets are held until the buffer of the opening is empty, at most so many: the longest segment of HLS.
HELD_PACKETS = 600
#: First packets without a stamp that are held until one has a stamp: FFmpeg learns an RTSP stream's clock from its
#: second packet on.
UNSTAMPED_HELD = 8
#: Packets of sound that wait for their picture, at most: the sound of the longest segment of HLS.
HEARD_PACKETS = 1000
#: Sound that comes sooner than its picture waits for it, up to so much, ns.
SOUND_AHEAD_NS = NS_PER_S
#: A file that lags behind its own pace by more than this goes on from now instead of catching up, ns.
PACE_SLACK_NS = NS_PER_S
#: Spacing of frames of a stream that does not tell it, ns: that of 25 frames/s.
UNKNOWN_LENGTH_NS = 40 * NS_PER_MS
#: How long a wait may last before the thread looks whether it was abandoned, seconds.
_LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Opened:
    """The source delivers video, and sound that is to be recorded, if there is some.

    `looked_at` says why that took longer, of a kind of source that is opened briefly else.
    """

    stream: av.VideoStream
    sound: av.AudioStream | None = None
    looked_at: str = ""


@dataclass(frozen=True, slots=True)
class Arrived:
    """One packet.

    Attributes:
        packet: as it came.
        arrival_ns: wall clock when the camera sent it, as well as it can be known.
        stamp_ns: its own time by the stream's clock; None when it has none.
        camera_ns: when the camera took the picture by its own clock, where its sender reports tell it.
    """

    packet: av.Packet[av.VideoStream]
    arrival_ns: int
    stamp_ns: int | None
    camera_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over; `State.SOURCE_ENDED` for a file at its end.

    With `look` the next one must not be opened briefly.
    """

    state: State
    detail: str
    look: bool = False


Event = Opened | Arrived | Heard | Ended


def time_of(packet: av.Packet[av.VideoStream] | av.Packet[av.AudioStream], time_base: Fraction) -> int | None:
    """The packet's presentation time by the stream's own clock, ns; by its decoding time when it has none."""
    stamp = packet.pts if packet.pts is not None else packet.dts
    return None if stamp is None else ns_of(stamp, time_base)


class Session:
    """One attempt to read a source, from opening to its end.

    `pace=False` delivers a file as fast as it is taken, with arrival times as if it were paced (for benchmarks).
    `camera_times` has the stamps of the camera's sender reports read.  `look` says why the source cannot be opened
    briefly; empty when it can, or nobody knows.

    Attributes:
        stall_s: so long without a packet is a stall, seconds; longer than asked for where packets come in bursts.
    """

    def __init__(
        self,
        spec: StreamSpec,
        stall_timeout_s: float,
        clock: Clock,
        *,
        pace: bool = True,
        camera_times: bool = False,
        look: str = "",
    ) -> None:
        self._camera_times = camera_times
        self._look = look
        self._spec = spec
        self.stall_s = stall_timeout_s
        self._streaming = self._sound_known = False
        self._clock = clock
        self._pace = pace
        self._events: Handover[Event] = Handover(QUEUE_PACKETS)
        self._abandoned = threading.Event()
        self._sound: av.AudioStream | None = None
        #: Sound, each with the number of pictures that were read before it.
        self._heard: deque[tuple[int, Heard]] = deque(maxlen=HEARD_PACKETS)
        self._read_pictures = self._given = 0
        self._container: av.container.InputContainer | None = None
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)

    def start(self) -> None:
        """Begin to open the source."""
        self._thread.start()

    @property
    def reads(self) -> bool:
        """Whether its thread runs, though it may have been closed."""
        return self._thread.is_alive()

    def get(self, timeout_s: float) -> Event | None:
        """The next event; None after `timeout_s`."""
        return self._events.get(timeout_s)

    def silence(self, silent_s: float) -> str:
        """One sentence on packets that do not come any more, or never came."""
        never = self._spec.over_udp and not self._read_pictures
        return f"no packet for {silent_s:.1f} s" + (f"; {NO_UDP}" if never else "")

    def close(self) -> None:
        """The work loop uses no stream of this session any more.  Does not wait for a read that hangs."""
        self._abandoned.set()

    def _put(self, event: Event) -> bool:
        while not self._abandoned.is_set():
            if self._events.put(event, _LOOK_S):
                return True
        return False

    def _run(self) -> None:
        try:
            end = self._read()
        except (av.FFmpegError, OSError, ValueError) as exc:
            end = self._end_of(exc)
        except BadMedia as exc:
            end = Ended(State.BAD_STREAM, str(exc))
        except Exception:
            # A thread that ends without a word would look like a camera that is silent.
            log.exception("reading a source", extra={"event": "source_failed"})
            end = Ended(State.BAD_STREAM, "internal error, see the log")
        self._put(end)
        # The work loop may still use the streams of packets in the queue.
        self._abandoned.wait()
        if self._container is not None:
            self._container.close()

    def _end_of(self, exc: Exception) -> Ended:
        # While it streams, the time-out of a read and the one of whoever waits for packets come at about one time.
        if self._streaming and isinstance(exc, av.ExitError | TimeoutError):
            return Ended(State.STALLED, self.silence(self.stall_s))
        return Ended(*cause_of(exc, self._spec))

    def _read(self) -> Ended:
        source, self._look = open_told(self._spec, self.stall_s, self._look)
        self._container, self.stall_s = source.container, source.stall_s
        if source.ends and not self._spec.is_file:
            return Ended(State.SOURCE_DOWN, "a recording that ends, not a live stream; fetch it and name its path")
        stream = pick_video(source.container)
        if stream is None:
            return Ended(State.NO_VIDEO, "the source carries no video track")
        if cast("av.VideoCodecContext | None", stream.codec_context) is None:
            return Ended(State.BAD_STREAM, "FFmpeg knows no decoder for this video")
        self._sound = source.container.streams.audio[0] if self._spec.audio and source.container.streams.audio else None
        if not self._put(Opened(stream, self._sound, self._look)):
            return Ended(State.SOURCE_DOWN, "abandoned")
        self._streaming = True
        if self._spec.is_file:
            return self._read_file(source.container, stream)
        return self._read_live(source, stream)

    def _read_live(self, source: Source, stream: av.VideoStream) -> Ended:
        key_s = self._clock.monotonic_s()
        context = stream.codec_context
        doubt = Doubt(context.name, context.extradata or b"") if source.brief else None
        for arrived in but_last(settled(self._timed(source, stream))):
            if doubt is not None and (why := doubt.about(arrived.packet)):
                return Ended(State.BAD_STREAM, why, look=True)
            keyless_s = self._clock.monotonic_s() - key_s
            if arrived.packet.is_keyframe:
                key_s += keyless_s
            elif keyless_s >= KEYLESS_MOST_S:
                return Ended(State.BAD_STREAM, f"no key frame for {keyless_s:.0f} s")
            self._put_heard(arrived)
            if not self._put(arrived):
                break
        return Ended(State.SOURCE_DOWN, "the source closed the connection")

    def _put_heard(self, arrived: Arrived) -> None:
        """Hand out the sound that comes before this picture; the very first at once: its parameters may be in it."""
        until_ns = arrived.stamp_ns
        while self._heard:
            pictures, heard = self._heard[0]
            stamp_ns = time_of(heard.packet, heard.packet.time_base)
            ahead_ns = 0 if until_ns is None or stamp_ns is None else stamp_ns - until_ns
            # Stamps that jumped say nothing of order.
            if self._sound_known and (pictures > self._given or 0 < ahead_ns < SOUND_AHEAD_NS):
                break
            self._sound_known = True
            self._heard.popleft()
            self._put(heard)
        self._given += 1

    def _timed(self, source: Source, stream: av.VideoStream) -> Iterator[tuple[Arrived, bool]]:
        """Packets as they arrive, and whether each came out of a buffer.  An empty packet ends a stream.

        All tracks are asked for: while only sound goes on, a read for video alone would never come back to look
        whether the session was abandoned.
        """
        # Asked once: each time it is asked PyAV makes a fraction of it.
        time_base, stamped, buffered_s = cast("Fraction", stream.time_base), source.stamped, source.buffered_s
        times = CameraTimes()
        asked_s = self._clock.monotonic_s()
        for packet in self._pictures(source.container, stream):
            if packet.size == 0:
                return
            buffered = self._clock.monotonic_s() - asked_s < buffered_s
            arrival_ns = self._clock.wall_ns()
            stamp_ns = time_of(packet, time_base) if stamped else arrival_ns
            camera_ns = times.of(packet, stamp_ns) if self._camera_times else None
            yield Arrived(packet, arrival_ns, stamp_ns, camera_ns), buffered
            asked_s = self._clock.monotonic_s()

    def _pictures(
        self, container: av.container.InputContainer, stream: av.VideoStream, *tracks: av.VideoStream | av.AudioStream
    ) -> Iterator[av.Packet[av.VideoStream]]:
        """Packets of video; the sound among them waits for its picture."""
        sound = -1 if self._sound is None else self._sound.index
        for packet in demuxed(container, *tracks):
            if self._abandoned.is_set():
                return
            if packet.stream.index == stream.index:
                self._read_pictures += 1
                yield packet
            elif packet.stream.index == sound and packet.size:
                heard = Heard(cast("av.Packet[Any]", packet), self._clock.wall_ns())
                self._heard.append((self._read_pictures, heard))

    def _read_file(self, container: av.container.InputContainer, stream: av.VideoStream) -> Ended:
        # By the monotonic clock: a wall clock that is set back would hold the file still for as long.
        pacer = Pacer(self._monotonic_ns())
        tracks = (stream,) if self._sound is None else (stream, self._sound)
        while True:
            delivered = 0
            for packet in self._pictures(container, stream, *tracks):
                if packet.size == 0:
                    continue
                stamp_ns = time_of(packet, packet.time_base)
                due_ns = pacer.due_ns(stamp_ns, _length_ns(packet))
                if self._pace:
                    self._sleep_until(due_ns, pacer)
                arrived = Arrived(packet, due_ns + self._clock.wall_ns() - self._monotonic_ns(), stamp_ns)
                self._put_heard(arrived)
                if not self._put(arrived):
                    return Ended(State.SOURCE_DOWN, "abandoned")
                delivered += 1
            if not delivered:
                return Ended(State.BAD_STREAM, "the file holds no packets of video")
            if not self._spec.loop:
                return Ended(State.SOURCE_ENDED, "the file is at its end")
            container.seek(0)
            pacer.again()

    def _monotonic_ns(self) -> int:
        return round(self._clock.monotonic_s() * NS_PER_S)

    def _sleep_until(self, due_ns: int, pacer: Pacer) -> None:
        while not self._abandoned.is_set():
            left_ns = due_ns - self._monotonic_ns()
            if left_ns < -PACE_SLACK_NS:
                pacer.late(-left_ns)
            if left_ns <= 0:
                return
            time.sleep(min(left_ns / NS_PER_S, _LOOK_S))


def settled(timed: Iterator[tuple[Arrived, bool]], held_most: int = HELD_PACKETS) -> Iterator[Arrived]:
    """Correct the arrival times of the packets that opening had buffered.

    They came all at once; the least difference between arrival and time stamp says when each of them was really sent.
    What has no stamp yet is held until one has, which says where it stands.
    """
    held: list[Arrived] = []
    for arrived, buffered in timed:
        held.append(arrived)
        known = _is_placed(held) or len(held) >= UNSTAMPED_HELD
        if (not buffered and known) or len(held) >= held_most:
            break
    yield from _spread(held)
    yield from (arrived for arrived, _ in timed)


def _is_placed(held: list[Arrived]) -> bool:
    """Whether it is known when the last and the first of them are shown."""
    last = held[-1]
    # Only a picture that is shown as soon as it is decoded comes before all others that are out of order.
    return last.stamp_ns is not None and (held[0].stamp_ns is not None or last.packet.pts == last.packet.dts)


def but_last(arriving: Iterator[Arrived]) -> Iterator[Arrived]:
    """All but the last one: FFmpeg hands out what it has of a frame when a connection breaks off in it.

    Such a frame does not decode, and nothing tells it from a whole one.
    """
    held: Arrived | None = None
    for arrived in arriving:
        if held is not None:
            yield held
        held = arrived


def _spread(held: list[Arrived]) -> Iterator[Arrived]:
    times = [arrived.stamp_ns for arrived in held]
    offsets = [arrived.arrival_ns - t for arrived, t in zip(held, times, strict=True) if t is not None]
    if not offsets:
        yield from held
        return
    offset_ns = min(offsets)
    known = [None if t is None else t + offset_ns for t in times]
    first_ns = min(t for t in known if t is not None)
    early = next(n for n, t in enumerate(known) if t is not None)
    for n, (arrived, time_ns) in enumerate(zip(held, known, strict=True)):
        if time_ns is None:
            # FFmpeg learns an RTSP stream's clock from the second packet on: the first stands a frame before that.
            time_ns = first_ns - max(0, early - n) * _length_ns(arrived.packet)
        yield replace(arrived, arrival_ns=time_ns)


def _length_ns(packet: av.Packet[av.VideoStream]) -> int:
    """How long the packet's picture is shown, as well as it is known."""
    length_ns = ns_of(packet.duration, packet.time_base) if packet.duration else 0
    # Without parameter sets FFmpeg has picture follow picture within a microsecond.
    return length_ns if length_ns >= STILL_NS else UNKNOWN_LENGTH_NS
