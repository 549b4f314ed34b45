"""A source that was opened briefly: whether its session description and its key frames tell all that is needed.

FFmpeg has read one packet of it.  A clip can begin at a key frame only, and there H.264's and H.265's parameter sets or
a JPEG's head tell the picture's size; so nobody need wait until FFmpeg has decoded pictures to learn it.  Where that is
not enough the source is opened again and looked at, as other kinds of sources always are.  Nothing is remembered of a
camera but that it needs this, so nothing that is remembered can be wrong.
"""

from __future__ import annotations

from typing import Final, TypeAlias, cast

import av

from nodeagent.capture.parameter_sets import is_complete, jpeg_size
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.video import ns_of

Packet: TypeAlias = "av.Packet[av.VideoStream]"

_JPEG: Final = "mjpeg"
_H265: Final = "hevc"
#: Codecs whose key frames, with what the session description told, are all that a clip needs.
TOLD_BY_KEY_FRAMES = frozenset({"h264", _H265, _JPEG})
#: Decoding times that go back by less than this, ns, are of pictures out of order; by more, of a clock that was set.
OUT_OF_ORDER_NS = NS_PER_S


def untold(container: av.container.InputContainer, *, sound: bool) -> str:
    """What is needed of a source and no key frame will tell; empty when nothing is."""
    videos = container.streams.video
    if len(videos) != 1:
        # None may stand for a transport stream; of several the largest picture is recorded.
        return f"{len(videos)} tracks of video"
    context = cast("av.VideoCodecContext | None", videos[0].codec_context)
    if context is None or context.name not in TOLD_BY_KEY_FRAMES:
        return "no size of its picture"
    if sound and container.streams.audio:
        heard = cast("av.AudioCodecContext | None", container.streams.audio[0].codec_context)
        if heard is not None and not (heard.sample_rate and heard.channels):
            return "no rate of its sound"
    return ""


class Doubt:
    """Looks whether the packets of a stream are as a brief opening took them to be.

    `header` is what its session description told of parameter sets.
    """

    def __init__(self, codec: str, header: bytes) -> None:
        self._codec = codec
        self._told = is_complete(header, codec) and codec != _JPEG
        self._keyed = False
        self._dts_ns: int | None = None

    def about(self, packet: Packet) -> str:
        """Why the source must be opened again and looked at; empty while all is well.

        FFmpeg makes decoding times up.  Of H.264 it finds out by the stamps how far pictures are out of order, of H.265
        by sets alone, and only by those that it knew before the first picture: else clips would show pictures at wrong
        times.
        """
        if packet.is_keyframe and not self._keyed:
            self._keyed = True
            if not self._told and not self._tells(bytes(packet)):
                return "neither its session description nor its first key frame tells the picture's size"
        if self._codec != _H265 or not self._keyed or packet.dts is None:
            return ""
        before_ns, self._dts_ns = self._dts_ns, ns_of(packet.dts, packet.time_base)
        if before_ns is not None and 0 < before_ns - self._dts_ns < OUT_OF_ORDER_NS:
            return "its pictures are out of order, and its session description does not tell how far"
        return ""

    def _tells(self, body: bytes) -> bool:
        return jpeg_size(body) is not None if self._codec == _JPEG else is_complete(body, self._codec)
