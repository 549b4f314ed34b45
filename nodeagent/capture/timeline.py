"""The camera's time stamps as UTC.  Pure: arrival times are arguments.

Spacing comes from the stream's own stamps (arrival jitters by the network), the position from arrival.  Within one GOP
the offset between the two never changes, so order is kept also with B frames; it is corrected at key frames only, and
times of different GOPs never overlap.  Stamps that are missing, wrap, jump or stand still are replaced by what the
frames before suggest.
"""

from __future__ import annotations

from nodeagent.contract.ids import NS_PER_MS, NS_PER_S

#: Stamps that move this much more or less than arrival did have jumped (wrap, reboot, end of a looped file), ns.
JUMP_NS = 2 * NS_PER_S
#: The time line may run this far off arrival before it is anchored anew: cameras drift by minutes a month, ns.
DRIFT_NS = NS_PER_S // 2
#: The least delay seen over this time is taken as the stream's delay: the rest is jitter, ns.
WINDOW_NS = 10 * NS_PER_S
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
        self._offset_ns = 0
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
            self._anchor(pts_ns, max(arrival_ns, self._newest_ns + 1), arrival_ns)
        elif self._jumped(pts_ns, arrival_ns):
            passed = arrival_ns - self._last_arrival_ns
            self._anchor(pts_ns, max(self._next(), self._newest_ns + min(passed, JUMP_NS)), arrival_ns)
        else:
            self._measure_step(pts_ns)
            if key:
                self._correct(pts_ns)
                if pts_ns + self._offset_ns <= self._newest_ns:
                    # Stamps that went back a little: a GOP may not reach into the one before.
                    self._anchor(pts_ns, self._next(), arrival_ns)
        time_ns = pts_ns + self._offset_ns
        self._watch_delay(arrival_ns - time_ns, arrival_ns)
        self._last_pts_ns, self._last_arrival_ns = pts_ns, arrival_ns
        self._newest_ns = max(self._newest_ns, time_ns)
        return time_ns

    def _next(self) -> int:
        return self._newest_ns + self._step_ns

    def _anchor(self, pts_ns: int, time_ns: int, arrival_ns: int) -> None:
        self._anchored = True
        self._offset_ns = time_ns - pts_ns
        self._drift_ns, self._least_delay_ns = 0, None
        self._window_end_ns = arrival_ns + WINDOW_NS

    def _jumped(self, pts_ns: int, arrival_ns: int) -> bool:
        moved, passed = pts_ns - self._last_pts_ns, arrival_ns - self._last_arrival_ns
        # A burst after a pause of the network moves much while little time passes; only what arrival of the whole
        # stream cannot explain is a jump.
        return moved < -JUMP_NS or (moved > JUMP_NS and moved - passed > JUMP_NS)

    def _measure_step(self, pts_ns: int) -> None:
        moved = pts_ns - self._last_pts_ns
        if STEP_RANGE_NS[0] <= moved <= STEP_RANGE_NS[1]:
            self._step_ns = moved

    def _watch_delay(self, delay_ns: int, arrival_ns: int) -> None:
        if self._least_delay_ns is None or delay_ns < self._least_delay_ns:
            self._least_delay_ns = delay_ns
        if arrival_ns >= self._window_end_ns:
            self._drift_ns = self._least_delay_ns if abs(self._least_delay_ns) > DRIFT_NS else 0
            self._least_delay_ns, self._window_end_ns = None, arrival_ns + WINDOW_NS

    def _correct(self, pts_ns: int) -> None:
        """Take up what drifted: at once when we lag, by half a frame per key frame when we are ahead of arrival."""
        if not self._drift_ns:
            return
        floor_ns = self._newest_ns + self._step_ns // 2
        corrected_ns = max(pts_ns + self._offset_ns + self._drift_ns, floor_ns)
        self._drift_ns = 0 if self._drift_ns > 0 else self._drift_ns + (pts_ns + self._offset_ns - corrected_ns)
        self._offset_ns = corrected_ns - pts_ns
