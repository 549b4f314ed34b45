"""When each packet of a file is due, as if a camera sent it.  Pure: times are arguments.

A file that starts again goes on where it ended.  Its stamps are followed while they make sense: a file whose stamps are
missing, stand still or jump is paced by the length of its frames instead, so that it neither rushes by nor sleeps for
the hours that a stamp promises.
"""

from __future__ import annotations

from nodeagent.contract.ids import NS_PER_S

#: No two frames of a file are due further apart than this, ns: longer than the slowest time lapse that is worth a look.
PAUSE_MOST_NS = 60 * NS_PER_S
#: Nor does a frame come before an earlier one by more than this, ns: more than B frames are moved by.
BACK_MOST_NS = 2 * NS_PER_S
#: Without stamps the length of a frame is what the codec's own header says, which may be nonsense, ns.
UNSTAMPED_MOST_NS = 2 * NS_PER_S


class Pacer:
    """Due times of a file's packets, by the clock of `start_ns`."""

    def __init__(self, start_ns: int) -> None:
        self._last_ns = self._end_ns = start_ns
        # Added to a stamp to get its due time; the stamp before.
        self._offset_ns: int | None = None
        self._stamp_ns: int | None = None

    def due_ns(self, stamp_ns: int | None, length_ns: int) -> int:
        """When the next packet is due: its stamp, if it has one, and how long its picture is shown."""
        length_ns = min(length_ns, PAUSE_MOST_NS if stamp_ns is not None else UNSTAMPED_MOST_NS)
        due_ns = self._end_ns
        if stamp_ns is not None and stamp_ns != self._stamp_ns and self._offset_ns is not None:
            by_stamp_ns = stamp_ns + self._offset_ns
            if -BACK_MOST_NS <= by_stamp_ns - self._last_ns <= PAUSE_MOST_NS:
                due_ns = by_stamp_ns
        if stamp_ns is not None:
            self._stamp_ns, self._offset_ns = stamp_ns, due_ns - stamp_ns
        self._last_ns = due_ns
        self._end_ns = max(self._end_ns, due_ns + length_ns)
        return due_ns

    def again(self) -> None:
        """The file starts again."""
        self._offset_ns = self._stamp_ns = None

    def late(self, by_ns: int) -> None:
        """The reader cannot keep the pace: all that follows is due later."""
        self._end_ns += by_ns
        self._last_ns += by_ns
        if self._offset_ns is not None:
            self._offset_ns += by_ns
