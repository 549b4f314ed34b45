"""The camera's time stamps as UTC.  Pure: arrival times are arguments.

Spacing comes from the stream's own stamps (arrival jitters by the network), the position from arrival.  What the line
runs behind arrival is made up at a key frame; what it runs ahead is taken back over the frames of the GOPs that follow,
each a little closer to the one before.  Within one GOP time is a growing function of the stamp, so order is kept also
with B frames, and times of different GOPs never overlap.  `capture.stamps` makes the stamps continuous first, so that
stamps that are missing, wrap, jump or stand still move no frame.

How far off arrival the line may be: half a second for good; a window and a GOP longer, by what arrival was off then;
and stamps that run at a wrong rate, until they lose their trust after three windows, by what they gained or lost.
"""

from __future__ import annotations

from nodeagent.capture.frame_rate import FrameRate
from nodeagent.capture.stamps import FIRST_STEP_NS, Stamps
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S

#: The time line may run this far off arrival before it is anchored anew: cameras drift by minutes a month, ns.
DRIFT_NS = NS_PER_S // 2
#: As `DRIFT_NS`, where the time of arrival was made from the camera's own clock: nothing jitters then, ns.
EXACT_DRIFT_NS = 20 * NS_PER_MS
#: The least delay seen over this time is taken as the stream's delay: the rest is jitter, ns.
WINDOW_NS = 10 * NS_PER_S
#: As `WINDOW_NS`, where nothing jitters, ns.
EXACT_WINDOW_NS = NS_PER_S
#: A GOP's frames are brought closer together by at most one part in so many: a second ahead is made up in ten.
SLOW_PART = 10


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
        self._rate = FrameRate()
        self._stamps = Stamps(self._rate)
        # Where the window ends, on the line and by arrival.
        self._window_ends_ns = (0, 0)
        self._least_delay_ns: int | None = None
        self._drift_ns = 0
        self._exact = False

    @property
    def newest_ns(self) -> int:
        """The latest capture time so far."""
        return self._newest_ns

    @property
    def step_ns(self) -> int:
        """Spacing of frames as lately seen."""
        return self._stamps.step_ns if self._anchored else FIRST_STEP_NS

    def rate_changed(self) -> bool:
        """Asked at each key frame: whether the stream's frame rate has become another one."""
        return self._rate.changed()

    def interrupt(self, floor_ns: int = 0) -> None:
        """A new session of the source begins: its stamps have nothing to do with those before."""
        self._newest_ns = max(self._newest_ns, floor_ns)
        self._anchored = False
        self._rate.restart()
        self._stamps = Stamps(self._rate)

    def stamp(self, pts_ns: int | None, arrival_ns: int, *, key: bool, exact: bool = False) -> int:
        """Capture time of the next packet; `exact`: its arrival is told by the camera's own clock."""
        if exact is not self._exact:
            # What was measured of delays before is of another kind.
            self._exact, self._drift_ns = exact, 0
            self._open_window(self._newest_ns, arrival_ns)
        stamp_ns = self._stamps.follow(pts_ns, arrival_ns, key=key)
        if not self._anchored:
            self._anchor(stamp_ns, max(arrival_ns, self._newest_ns + 1), arrival_ns)
        elif key:
            self._begin_gop(stamp_ns)
        time_ns = self._time_of(stamp_ns)
        self._watch_delay(self._base_ns + stamp_ns - self._base_pts_ns, arrival_ns)
        self._newest_ns = max(self._newest_ns, time_ns)
        return time_ns

    def _time_of(self, pts_ns: int) -> int:
        return self._base_ns + pts_ns - self._base_pts_ns - self._given_back(pts_ns)

    def _given_back(self, pts_ns: int) -> int:
        """By how much less than the stamp time has grown since the GOP began."""
        passed_ns = pts_ns - self._base_pts_ns
        return self._slow_ns * min(max(passed_ns, 0), self._gop_ns) // self._gop_ns if self._slow_ns else 0

    def _anchor(self, pts_ns: int, time_ns: int, arrival_ns: int) -> None:
        self._anchored = True
        self._base_pts_ns, self._base_ns = pts_ns, time_ns
        self._gop_ns = self._slow_ns = 0
        self._drift_ns = 0
        self._open_window(time_ns, arrival_ns)

    def _open_window(self, line_ns: int, arrival_ns: int) -> None:
        length_ns = EXACT_WINDOW_NS if self._exact else WINDOW_NS
        self._least_delay_ns = None
        self._window_ends_ns = (line_ns + length_ns, arrival_ns + length_ns)

    @property
    def _allowed_ns(self) -> int:
        return EXACT_DRIFT_NS if self._exact else DRIFT_NS

    def _watch_delay(self, line_ns: int, arrival_ns: int) -> None:
        """Note the delay of a frame against the line as the GOP began it."""
        delay_ns = arrival_ns - line_ns
        if self._least_delay_ns is None or delay_ns < self._least_delay_ns:
            self._least_delay_ns = delay_ns
        # A wall clock that was set back holds arrival up, stamps that hardly move hold the line up; not both at once.
        if line_ns >= self._window_ends_ns[0] or arrival_ns >= self._window_ends_ns[1]:
            self._drift_ns = self._least_delay_ns if abs(self._least_delay_ns) > self._allowed_ns else 0
            self._open_window(line_ns, arrival_ns)

    def _begin_gop(self, pts_ns: int) -> None:
        """Settle what the last GOP gave back, make up at once what we lag, and plan what this one gives back."""
        time_ns, given_ns = self._time_of(pts_ns), self._given_back(pts_ns)
        self._shift(-given_ns)
        if self._drift_ns > self._allowed_ns:
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
