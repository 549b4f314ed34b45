"""The camera's own clock, as its RTCP sender reports tell it, brought to ours.  Pure.

Both streams of a camera carry stamps of that one clock, so times made from it agree between them whatever the network
delays: each stamp is moved by the least delay that was lately seen between stamp and arrival.
"""

from __future__ import annotations

from nodeagent.contract.ids import NS_PER_S

#: The least delay is looked for in the last one to two windows of this length, ns: a camera's clock drifts by less than
#: a millisecond in that time.
WINDOW_NS = 30 * NS_PER_S
#: Stamps that are off by more than this have jumped: somebody set the camera's clock, ns.
JUMP_NS = 2 * NS_PER_S


class SenderClock:
    """One camera's clock."""

    def __init__(self) -> None:
        self._window_end_ns = 0
        self._least_ns: int | None = None
        self._least_before_ns: int | None = None

    def arrival_ns(self, camera_ns: int, arrival_ns: int) -> int:
        """When a packet of this stamp would have arrived without jitter, by our clock."""
        delay_ns = arrival_ns - camera_ns
        if self._least_ns is None or abs(delay_ns - self._offset(self._least_ns)) > JUMP_NS:
            self._least_ns, self._least_before_ns = delay_ns, None
            self._window_end_ns = arrival_ns + WINDOW_NS
        elif arrival_ns >= self._window_end_ns:
            self._least_before_ns, self._least_ns = self._least_ns, delay_ns
            self._window_end_ns = arrival_ns + WINDOW_NS
        else:
            self._least_ns = min(self._least_ns, delay_ns)
        return camera_ns + self._offset(self._least_ns)

    def _offset(self, least_ns: int) -> int:
        return least_ns if self._least_before_ns is None else min(least_ns, self._least_before_ns)
