"""Makes a stream's own time stamps continuous, whatever the camera does with them.  Pure.

What comes out moves as the stamps do, but: the wrap of a counter is no step; a jump becomes one frame's spacing; stamps
that are missing or stand still are filled in; and a stream whose stamps do not run as fast as time does (a wrong clock
rate, or nonsense) loses their trust and gets even spacing by arrival until they run right again.
"""

from __future__ import annotations

from collections import deque

from nodeagent.capture.frame_rate import LEAST, FrameRate
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S

#: Stamps that move this much more or less than arrival did have jumped (reboot, end of a looped file), ns.
JUMP_NS = 2 * NS_PER_S
#: Arrival may be late by this much without a pause in the stream, ns.
JITTER_NS = NS_PER_S // 2
#: Where counters begin anew, ns: 33 bits of 90 kHz (MPEG-TS), 32 bits of 90 kHz (RTP), 32 bits of milliseconds (FLV).
WRAPS_NS = tuple((1 << bits) * NS_PER_S // rate for bits, rate in ((33, 90_000), (32, 90_000), (32, 1_000)))
#: Stamps that move by less do not move, ns: no camera makes 5,000 frames/s.
STILL_NS = NS_PER_S // 5_000
#: Spacing of frames before two of them are known, ns.
FIRST_STEP_NS = 40 * NS_PER_MS
#: Stamps and arrival are compared over stretches of this length, ns.
STRETCH_NS = 10 * NS_PER_S
#: Stamps run right while they are not faster or slower than arrival by a factor, give or take some time (ns), within so
#: many stretches.  A stall and the burst after it must not look like wrong stamps, so little is allowed in the long run
#: only; but less than what the time line can give back, or it would run away.
STRETCHES = 6
RATES = ((3, 1.25), (STRETCHES, 1.05))
RATE_SLACK_NS = 2 * NS_PER_S
#: More jumps than this within three stretches, not at key frames, and stamps are nonsense.
MOST_JUMPS = 6
#: Frames over which the spacing by arrival is averaged: it keeps the sum, so nothing is lost or gained in the end.
AVERAGED = 32
#: No stream that is worth recording has fewer than one frame in this time, ns.
LONGEST_STEP_NS = 60 * NS_PER_S
#: An arrival that is later than so many spacings, and some time (ns), is a pause; cameras send a few frames at a time.
PAUSE_FACTOR = 10
PAUSE_SLACK_NS = 100 * NS_PER_MS


class Trust:
    """Whether stamps run as fast as time does, and the spacing of frames by arrival alone."""

    def __init__(self) -> None:
        self.granted = True
        self._stretches: deque[tuple[int, int, int]] = deque(maxlen=STRETCHES)
        self._moved_ns = self._passed_ns = self._jumps = 0
        self._sound = True
        self._frames = 0
        self._average_ns = float(FIRST_STEP_NS)

    @property
    def arrival_step_ns(self) -> int:
        """Mean spacing of lately arrived frames, ns."""
        return max(STILL_NS, round(self._average_ns))

    def look(self, moved_ns: int | None, passed_ns: int) -> None:
        """One frame more: how far its stamp moved, None for a jump, and how much later than the last it arrived."""
        self._frames += 1
        most_ns: float = LONGEST_STEP_NS
        if self.granted and moved_ns and self._frames > LEAST:
            # The stamps tell of a pause themselves: it must not be told again by the average when they fail later.
            most_ns = PAUSE_FACTOR * self._average_ns + PAUSE_SLACK_NS
        self._average_ns += (min(max(passed_ns, 0), most_ns) - self._average_ns) / min(self._frames, AVERAGED)
        self._passed_ns += passed_ns
        # A wall clock that was set says nothing about the stamps.
        self._sound = self._sound and passed_ns >= 0
        if moved_ns is None:
            self._jumps += 1
        else:
            self._moved_ns += moved_ns
        if max(self._moved_ns, self._passed_ns) >= STRETCH_NS:
            self._judge()

    def _judge(self) -> None:
        if self._sound:
            self._stretches.append((self._moved_ns, self._passed_ns, self._jumps))
        self._moved_ns = self._passed_ns = self._jumps = 0
        self._sound = True
        latest = list(self._stretches)[-RATES[0][0] :]
        if sum(jumps for _, _, jumps in latest) > MOST_JUMPS:
            self.granted = False
        elif len(self._stretches) >= RATES[0][0]:
            self.granted = all(self._runs_right(*rate) for rate in RATES)

    def _runs_right(self, stretches: int, factor: float) -> bool:
        """Whether stamps moved as far as time did, over so many stretches; true while there are fewer."""
        if len(self._stretches) < stretches:
            return True
        latest = list(self._stretches)[-stretches:]
        moved_ns, passed_ns = (sum(stretch[n] for stretch in latest) for n in range(2))
        slow = factor * moved_ns + RATE_SLACK_NS < passed_ns
        fast = factor * passed_ns + RATE_SLACK_NS < moved_ns
        return not slow and not fast


class Stamps:
    """One session's stamps, in decoding order."""

    def __init__(self, rate: FrameRate) -> None:
        self._rate = rate
        self._trust = Trust()
        # Added to a stamp to make it continuous; the stamp before, what came out for it, and the newest; the latest
        # arrival.
        self._offset_ns = 0
        self._raw_ns: int | None = None
        self._last_ns = self._newest_ns = 0
        self._arrival_ns: int | None = None

    @property
    def step_ns(self) -> int:
        """Spacing of frames as lately seen."""
        return self._rate.step_ns or self._trust.arrival_step_ns

    def follow(self, pts_ns: int | None, arrival_ns: int, *, key: bool) -> int:
        """The continuous stamp of the next packet; the first one's is 0."""
        if self._arrival_ns is None:
            self._arrival_ns, stamp_ns = arrival_ns, 0
        elif pts_ns is None:
            self._trust.look(0, self._passed(arrival_ns))
            stamp_ns = self._newest_ns + self._trust.arrival_step_ns
        else:
            stamp_ns = self._next(pts_ns, self._passed(arrival_ns), key=key)
        if pts_ns is not None:
            self._raw_ns, self._offset_ns = pts_ns, stamp_ns - pts_ns
        self._last_ns = stamp_ns
        self._newest_ns = max(self._newest_ns, stamp_ns)
        self._rate.add(stamp_ns)
        return stamp_ns

    def _passed(self, arrival_ns: int) -> int:
        """By how much later than any before a packet arrived; negative when the wall clock was set back.

        A time of arrival that was made from the camera's clock goes back a little at each B frame.
        """
        latest_ns = arrival_ns if self._arrival_ns is None else self._arrival_ns
        if latest_ns - JUMP_NS <= arrival_ns <= latest_ns:
            return 0
        self._arrival_ns = arrival_ns
        return arrival_ns - latest_ns

    def _next(self, pts_ns: int, passed_ns: int, *, key: bool) -> int:
        if self._raw_ns is None:
            # The first stamp of a session that began without any.
            self._trust.look(0, passed_ns)
            return self._newest_ns + max(STILL_NS, passed_ns)
        raw_moved_ns, moved_ns = pts_ns - self._raw_ns, pts_ns + self._offset_ns - self._last_ns
        wrap_ns = _wrap_of(moved_ns, passed_ns)
        raw_moved_ns, moved_ns = raw_moved_ns + wrap_ns, moved_ns + wrap_ns
        stands = abs(raw_moved_ns) < STILL_NS
        jumped = not stands and (
            moved_ns < -JUMP_NS
            or moved_ns > JUMP_NS + max(0, passed_ns)
            # A key frame is shown after all that came before it.
            or (key and self._last_ns + moved_ns < self._newest_ns + STILL_NS)
        )
        if jumped and key:
            # A file that starts again does so with a key frame, and its stamps are as good as before.
            self._trust.look(self.step_ns, passed_ns)
        else:
            self._trust.look(None if jumped else raw_moved_ns, passed_ns)
        if stands or not self._trust.granted:
            return self._newest_ns + self._trust.arrival_step_ns
        if jumped:
            paused = passed_ns > self.step_ns + JITTER_NS
            return self._newest_ns + (min(passed_ns, JUMP_NS) if paused else self.step_ns)
        return self._last_ns + moved_ns


def _wrap_of(moved_ns: int, passed_ns: int) -> int:
    """What to add to a move that a counter's new beginning made; 0 for any other."""
    if abs(moved_ns) <= JUMP_NS:
        return 0
    both = [wrap for period in WRAPS_NS for wrap in (period, -period)]
    return next((wrap for wrap in both if abs(moved_ns + wrap - max(0, passed_ns)) <= JUMP_NS), 0)
