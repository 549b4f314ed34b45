"""When pictures were taken, by the camera's own clock, as FFmpeg tells it from RTCP sender reports."""

from __future__ import annotations

import struct

import av

from nodeagent.contract.ids import NS_PER_S, NS_PER_US

#: Packets whose camera time follows from one that was read: to read one costs as much as the rest of its way does.
READ_EVERY = 8
#: Stamps that moved by more than this since then have jumped, ns.
STEADY_NS = NS_PER_S
#: FFmpeg's AVProducerReferenceTime: the wall clock in microseconds, then flags.
_PRODUCER_TIME = struct.Struct("=q")


def camera_time_of(packet: av.Packet[av.VideoStream]) -> int | None:
    """When the picture was taken by the camera's clock, UTC ns; None before its first sender report, or without any."""
    if not packet.has_sidedata("prft"):
        return None
    (wall_us,) = _PRODUCER_TIME.unpack_from(packet.get_sidedata("prft"))
    return int(wall_us) * NS_PER_US if wall_us > 0 else None


class CameraTimes:
    """`camera_time_of` each packet of one session of a stream, most of them by their stamps' distance to one read."""

    def __init__(self) -> None:
        self._read_stamp_ns = self._ahead_ns = 0
        self._left = 0

    def of(self, packet: av.Packet[av.VideoStream], stamp_ns: int | None) -> int | None:
        """Of the next packet, which has this stamp of the stream's own clock."""
        if stamp_ns is None:
            return camera_time_of(packet)
        if self._left and abs(stamp_ns - self._read_stamp_ns) <= STEADY_NS:
            self._left -= 1
            return stamp_ns + self._ahead_ns
        camera_ns = camera_time_of(packet)
        self._left = 0
        if camera_ns is not None:
            self._left, self._read_stamp_ns, self._ahead_ns = READ_EVERY - 1, stamp_ns, camera_ns - stamp_ns
        return camera_ns
