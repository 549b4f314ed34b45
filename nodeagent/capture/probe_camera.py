"""Looks at a camera's streams for a few seconds and tells what they answer: a process of its own, soon gone.

`python -m nodeagent.capture.probe_camera` reads a `ProbeOrder` as JSON from its standard input, so that no credential
stands in a list of processes, and writes a `ProbeResult` to its standard output.  Whatever a camera sends ends this
process at most; so do its alarm clock, and the end of whoever asked.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat

from nodeagent.capture.opening import OPEN_TIMEOUT_S
from nodeagent.capture.source import Arrived, Ended, Opened, Session
from nodeagent.contract.camera import StreamSpec
from nodeagent.contract.clip import StreamName
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.probe import SENTENCE_MOST, ProbeOrder, ProbeResult, StreamAnswer
from nodeagent.contract.states import State
from nodeagent.infra.clock import Clock, SystemClock

#: Seconds of pictures that are looked at, at most: two key frames of most cameras.
LOOK_S = 6.0
#: The same at least, so that the frame rate is none of chance.
LOOK_LEAST_S = 2.0
#: Key frames after which enough is known.
KEY_FRAMES = 3
#: Silence that is borne, seconds.
STALL_S = 4.0
#: Seconds that a stream has in all: it opens, is looked at, and hangs up.
STREAM_S = OPEN_TIMEOUT_S + LOOK_S
#: Seconds after which this process is ended by its alarm clock: all streams are looked at together.
PROCESS_S = round(STREAM_S) + 4
#: Seconds that one wait for a packet takes.
WAIT_S = 0.25
#: Linux's `prctl` option for a signal at the end of the thread that started this process, which waits for it.
PR_SET_PDEATHSIG = 1
#: Least right to a processor, as `nice` counts: recording comes first.
NICENESS = 10


@dataclass(slots=True)
class Seen:
    """When the pictures of one stream were sent, and which of them are key frames, wall clock, ns.

    By arrival: a stream's own stamps may be missing, stand still or jump.
    """

    arrivals: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)

    def take(self, arrived: Arrived) -> None:
        """Count one."""
        self.arrivals.append(arrived.arrival_ns)
        if arrived.packet.is_keyframe:
            self.keys.append(arrived.arrival_ns)

    @property
    def span_s(self) -> float:
        """Seconds that they cover."""
        return (max(self.arrivals) - min(self.arrivals)) / NS_PER_S if self.arrivals else 0.0

    @property
    def fps(self) -> float | None:
        """Pictures per second."""
        return round((len(self.arrivals) - 1) / self.span_s, 2) if self.span_s > 0 else None

    @property
    def keyframe_s(self) -> float | None:
        """Seconds from key frame to key frame."""
        if len(self.keys) < 2:
            return None
        return round((max(self.keys) - min(self.keys)) / NS_PER_S / (len(self.keys) - 1), 2)

    @property
    def enough(self) -> bool:
        """Whether more pictures would tell no more."""
        return len(self.keys) >= KEY_FRAMES and self.span_s >= LOOK_LEAST_S


def look(stream: StreamName, spec: StreamSpec, clock: Clock) -> StreamAnswer:
    """Open one stream and look at it; returns within STREAM_S."""
    # The picture's size is told also of a camera that sends no key frame meanwhile.
    session, seen = Session(spec, STALL_S, clock, look="its size is asked for"), Seen()
    session.start()
    opened: Opened | None = None
    end: Ended | None = None
    until_s = clock.monotonic_s() + STREAM_S
    while end is None and not seen.enough and clock.monotonic_s() < until_s:
        match session.get(WAIT_S):
            case Opened() as opened:
                until_s = min(until_s, clock.monotonic_s() + LOOK_S)
            case Arrived() as arrived:
                seen.take(arrived)
            case Ended() as end:
                break
    try:
        return _answer(stream, opened, seen, end or Ended(State.STALLED, session.silence(STALL_S)))
    finally:
        session.close()


def _answer(stream: StreamName, opened: Opened | None, seen: Seen, end: Ended) -> StreamAnswer:
    if opened is None or not seen.arrivals:
        return StreamAnswer(stream=stream, state=end.state, detail=end.detail[:SENTENCE_MOST])
    context = opened.stream.codec_context
    sparse = len(seen.keys) < 2 and end.state is not State.SOURCE_ENDED
    return StreamAnswer(
        stream=stream,
        state=State.CAPTURING,
        detail=f"fewer than two key frames within {seen.span_s:.1f} s" if sparse else "",
        codec=context.name,
        width=context.width,
        height=context.height,
        fps=seen.fps,
        keyframe_s=seen.keyframe_s,
        sound=opened.sound.codec_context.name if opened.sound is not None else "",
    )


def main() -> None:
    """Carry out the order on standard input, and leave."""
    signal.alarm(PROCESS_S)
    # Of a parent that was killed before this line the alarm clock makes up.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.nice(NICENESS)
    order, clock = ProbeOrder.model_validate_json(sys.stdin.buffer.read()), SystemClock()
    with ThreadPoolExecutor(max(1, len(order.streams))) as pool:
        answers = tuple(pool.map(look, order.streams, order.streams.values(), repeat(clock)))
    sys.stdout.write(ProbeResult(probe_id=order.probe_id, streams=answers).model_dump_json())
    sys.stdout.flush()
    # Not by the interpreter's end, which could wait for a thread that hangs in a read.
    os._exit(0)


if __name__ == "__main__":
    main()
