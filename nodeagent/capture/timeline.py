"""The camera's time stamps as UTC.  Pure: arrival times are arguments.

Spacing comes from the stream's own stamps (arrival jitters by the network), the position from arrival.  What the line
runs behind arrival is made up at a key frame; what it runs ahead is taken back over the frames of the GOPs that follow,
each a little closer to the one before.  Within one GOP time is a growing function of the stamp, so order is kept also
with B frames, and times of different GOPs never overlap.  Stamps that are missing, wrap, jump or stand still are
replaced by what the frames before suggest.
"""

from __future__ import annotations

from nodeagent.contract.ids import NS_PER_MS, NS_PER_S

#: Stamps that move this much more or less than arrival did have jumped (wrap, reboot, end of a looped file), ns.
JUMP_NS = 2 * NS_PER_S
#: The time line may run this far off arrival before it is anchored anew: cameras drift by minutes a month, ns.
DRIFT_NS = NS_PER_S // 2
#: The least delay seen over this time is taken as the stream's delay: the rest is jitter, ns.
WINDOW_NS = 10 * NS_PER_S
#: A GOP's frames are brought closer together by at most one part in so many: a second ahead is made up in ten.
SLOW_PART = 10
#: Spacing of frames before two of them are known, ns.
FIRST_STEP_NS = 40 * NS_PER_MS
#: Spacing below and above this is no frame rate, ns.
STEP_RANGE_NS = (NS_PER_S // 240, 2 * NS_PER_S)


class Timeline:
    """Maps the stamps of one camera's packets, in decoding order, to capture times that grow.

    `floor_ns`: capture times stay above it, so that a restarted process goes on where its predecessor ended.
    """

    def __init__(self, floor_ns: int = 0) -> None:
        self._newest_ns = floor_ns
        self._anchored = False
        # Where the GOP begins, in stamps and in time; how long the one before was, and what this one gives back.
        self._base_pts_ns = 0
        self._base_ns = 0
        self._gop_ns = 0
        self._slow_ns = 0
        self._last_pts_ns = 0
        self._last_arrival_ns = 0
        self._step_ns = FIRST_STEP_NS
        self._window_end_ns = 0
        self._least_delay_ns: int | None = None
        self._drift_ns = 0

    @property
    def newest_ns(self) -> int:
        """The latest capture time so far."""
        return self._newest_ns

    @property
    def step_ns(self) -> int:
        """Spacing of frames as lately seen."""
        return self._step_ns

    def interrupt(self, floor_ns: int = 0) -> None:
        """A new session of the source begins: its stamps have nothing to do with those before."""
        self._newest_ns = max(self._newest_ns, floor_ns)
        self._anchored = False

    def stamp(self, pts_ns: int | None, arrival_ns: int, *, key: bool) -> int:
        """Capture time of the next packet."""
        if pts_ns is None:
            time_ns = self._next() if self._anchored else max(self._newest_ns + 1, arrival_ns)
            self._newest_ns = max(self._newest_ns, time_ns)
            return time_ns
        if not self._anchored:
            self._anchor(pts_ns, max(arrival_ns, self._newest_ns + 1))
        elif self._jumped(pts_ns, arrival_ns):
            passed = arrival_ns - self._last_arrival_ns
            self._anchor(pts_ns, max(self._next(), self._newest_ns + min(passed, JUMP_NS)))
        else:
            self._measure_step(pts_ns)
            if key:
                self._begin_gop(pts_ns)
                if self._base_ns <= self._newest_ns:
                    # Stamps that went back a little: a GOP may not reach into the one before.
                    self._anchor(pts_ns, self._next())
        time_ns = self._time_of(pts_ns)
        self._watch_delay(self._base_ns + pts_ns - self._base_pts_ns, arrival_ns)
        self._last_pts_ns, self._last_arrival_ns = pts_ns, arrival_ns
        self._newest_ns = max(self._newest_ns, time_ns)
        return time_ns

    def _time_of(self, pts_ns: int) -> int:
        return self._base_ns + pts_ns - self._base_pts_ns - self._given_back(pts_ns)

    def _given_back(self, pts_ns: int) -> int:
        """By how much less than the stamp time has grown since the GOP began."""
        passed_ns = pts_ns - self._base_pts_ns
        return self._slow_ns * min(max(passed_ns, 0), self._gop_ns) // self._gop_ns if self._slow_ns else 0

    def _next(self) -> int:
        return self._newest_ns + self._step_ns

    def _anchor(self, pts_ns: int, time_ns: int) -> None:
        self._anchored = True
        self._base_pts_ns, self._base_ns = pts_ns, time_ns
        self._gop_ns = self._slow_ns = 0
        self._drift_ns, self._least_delay_ns = 0, None
        self._window_end_ns = time_ns + WINDOW_NS

    def _jumped(self, pts_ns: int, arrival_ns: int) -> bool:
        moved, passed = pts_ns - self._last_pts_ns, arrival_ns - self._last_arrival_ns
        # A burst after a pause of the network moves much while little time passes; only what arrival of the whole
        # stream cannot explain is a jump.
        return moved < -JUMP_NS or (moved > JUMP_NS and moved - passed > JUMP_NS)

    def _measure_step(self, pts_ns: int) -> None:
        moved = pts_ns - self._last_pts_ns
        if STEP_RANGE_NS[0] <= moved <= STEP_RANGE_NS[1]:
            self._step_ns = moved

    def _watch_delay(self, line_ns: int, arrival_ns: int) -> None:
        """Note the delay of a frame against the line as the GOP began it."""
        delay_ns = arrival_ns - line_ns
        if self._least_delay_ns is None or delay_ns < self._least_delay_ns:
            self._least_delay_ns = delay_ns
        # By the line, not by arrival: a wall clock that was set back would hold the window open for as long.
        if line_ns >= self._window_end_ns:
            self._drift_ns = self._least_delay_ns if abs(self._least_delay_ns) > DRIFT_NS else 0
            self._least_delay_ns, self._window_end_ns = None, line_ns + WINDOW_NS

    def _begin_gop(self, pts_ns: int) -> None:
        """Settle what the last GOP gave back, make up at once what we lag, and plan what this one gives back."""
        time_ns, given_ns = self._time_of(pts_ns), self._given_back(pts_ns)
        self._shift(-given_ns)
        if self._drift_ns > DRIFT_NS:
            time_ns += self._drift_ns
            self._shift(self._drift_ns)
        self._gop_ns = max(0, pts_ns - self._base_pts_ns)
        self._slow_ns = min(max(0, -self._drift_ns), self._gop_ns // SLOW_PART)
        self._base_pts_ns, self._base_ns = pts_ns, time_ns

    def _shift(self, by_ns: int) -> None:
        """The line was moved: what is known of delays is that much less."""
        self._drift_ns -= by_ns
        if self._least_delay_ns is not None:
            self._least_delay_ns -= by_ns
