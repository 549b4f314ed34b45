"""Clips on their way to a disk: moves them when a disk refuses or stalls, and hands them back in order once synced.

No call waits for a disk but `places.Places.find`, whose wait is short, and `wait`, which says how long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import av

from nodeagent.capture.disk_writer import DiskStalled
from nodeagent.capture.part import Part
from nodeagent.capture.places import Places
from nodeagent.capture.samples import ClipSamples
from nodeagent.capture.sound import Track
from nodeagent.contract.clip import ClipId, StreamName
from nodeagent.contract.errors import StorageUnavailable
from nodeagent.infra.clock import Clock

#: While a clip waits for a disk that stalls, other disks are asked for a place so often, seconds.
ASK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A clip that gets no more packets.

    Attributes:
        part: its file.
        end_ns: where it ends, capture time.
        samples: what was chosen of it; None when it is not analysed.
    """

    part: Part
    end_ns: int
    samples: ClipSamples | None


class Landing:
    """The clips of one stream that are not safe on a disk yet.

    Attributes:
        moved: how many clips had to change their disk.
    """

    def __init__(self, places: Places, stream: StreamName, clock: Clock) -> None:
        self._places = places
        self._stream: StreamName = stream
        self._clock = clock
        self._ended: deque[Ended] = deque()
        self._ask_again_s = 0.0
        self.moved = 0

    def begin(self, clip: ClipId, template: av.VideoStream, sound: Track | None = None) -> Part:
        """Open a clip, with a track for the sound if there is some.

        Raises:
            StorageUnavailable: no disk takes it.
            BadMedia: MP4 cannot carry this stream.
        """
        return Part(self._places.find(clip, self._stream), clip, template, sound)

    def check(self, part: Part) -> None:
        """See whether the clip's disk takes it, and move it to another one if not.

        A clip that only waits for a disk that stalls, with no other to go to, waits in memory as long as there is room.

        Raises:
            StorageUnavailable: it cannot go on.
        """
        trouble = part.trouble
        if trouble is None:
            return
        stalls = isinstance(trouble, DiskStalled)
        now_s = self._clock.monotonic_s()
        if stalls and now_s < self._ask_again_s:
            return
        self._places.set_aside(part.place.hand.disk, str(trouble))
        if not part.can_move:
            raise trouble
        try:
            part.move(self._places.find(part.clip, self._stream, part.tried))
        except StorageUnavailable:
            if not stalls:
                raise trouble from None
            self._ask_again_s = now_s + ASK_AGAIN_S
        else:
            self.moved += 1

    def end(self, ended: Ended) -> None:
        """The clip gets no more packets.

        Raises:
            BadMedia: it cannot be ended.
        """
        ended.part.finish()
        self._ended.append(ended)

    @property
    def waits(self) -> bool:
        """Whether clips that ended are not synced yet."""
        return bool(self._ended)

    def landed(self) -> Iterator[tuple[Ended, StorageUnavailable | None]]:
        """Clips that are complete and synced now, in their order; with a reason those that no disk takes."""
        while self._ended:
            ended, trouble = self._ended[0], None
            if not ended.part.done:
                try:
                    self.check(ended.part)
                except StorageUnavailable as exc:
                    trouble = exc
                else:
                    return
            self._ended.popleft()
            yield ended, trouble

    def wait(self, timeout_s: float) -> None:
        """Give the first of those that ended this time to land, or to show that it does not."""
        if self._ended:
            self._ended[0].part.wait(timeout_s)
