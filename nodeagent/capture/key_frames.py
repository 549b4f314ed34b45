"""How often key frames come.  Pure.

A clip can begin and end at key frames only, so their spacing is how late a camera's clips, and with them its alarms,
can be.  "Smart" codecs (H.264+, H.265+) stretch it to minutes while nothing moves.
"""

from __future__ import annotations

from nodeagent.contract.ids import NS_PER_S

#: Key frames further apart than this are told, ns: twice the length of a clip.
SPARSE_NS = 10 * NS_PER_S
#: A stream without a key frame for this long, and for much longer than between those before, is a fault, ns.
MISSING_NS = 60 * NS_PER_S


class KeyFrames:
    """The key frames of one session of a stream."""

    def __init__(self) -> None:
        self._since_ns: int | None = None
        self._now_ns = 0
        self._gop_ns = 0
        self._any = False

    def restart(self) -> None:
        """Another session begins."""
        self._since_ns, self._gop_ns, self._any = None, 0, False

    def add(self, time_ns: int, *, key: bool) -> None:
        """The next packet, and when it came."""
        self._now_ns = max(self._now_ns, time_ns) if self._since_ns is not None else time_ns
        if self._since_ns is None:
            self._since_ns = time_ns
        if key:
            self._gop_ns = max(0, time_ns - self._since_ns) if self._any else 0
            self._since_ns, self._any = time_ns, True

    @property
    def _waited_ns(self) -> int:
        return 0 if self._since_ns is None else self._now_ns - self._since_ns

    @property
    def awaited(self) -> str:
        """That the session's first key frame does not come, before which nothing can be recorded; empty otherwise."""
        waits = not self._any and self._waited_ns >= SPARSE_NS
        return (
            f"no key frame for {self._waited_ns // NS_PER_S} s, and before the first nothing is recorded"
            if waits
            else ""
        )

    @property
    def missing(self) -> str:
        """That key frames came and come no more; empty otherwise."""
        ended = self._any and self._waited_ns >= max(MISSING_NS, 2 * self._gop_ns)
        return f"no key frame for {self._waited_ns // NS_PER_S} s" if ended else ""

    @property
    def sparse(self) -> str:
        """How far apart key frames are, where that is far; empty otherwise."""
        if not self._any or max(self._gop_ns, self._waited_ns) < SPARSE_NS:
            return ""
        if self._waited_ns > self._gop_ns:
            return f"no key frame for {self._waited_ns // NS_PER_S} s: the clip is that long"
        return f"key frames every {round(self._gop_ns / NS_PER_S)} s: clips are that long"
