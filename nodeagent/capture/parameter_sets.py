"""Notices in a stream of packets that the camera changed its picture: new parameter sets before a key frame.

Only streams in Annex B form (RTSP, MPEG-TS) can change that way: MP4 files keep their parameters in the header.
Source of the layout: ITU-T H.264 7.3.1 and H.265 7.3.1.2: start code 00 00 01, then the unit's header.
"""

from __future__ import annotations

import io
import re
from typing import TypeAlias

import av

Packet: TypeAlias = "av.Packet[av.VideoStream]"

#: Types of parameter sets by codec, with the shift and mask that read the type from the unit's first byte.
_SETS = {"h264": (0, 0x1F, frozenset({7, 8})), "hevc": (1, 0x3F, frozenset({32, 33, 34}))}
_START = re.compile(rb"\x00\x00\x01")
#: Parameter sets stand at the front of a key frame; a picture behind them need not be searched, bytes.
_SEARCHED = 4096


def parameter_sets(body: bytes, codec: str) -> frozenset[bytes]:
    """The parameter sets among the first units of an access unit in Annex B form; empty for other codecs."""
    if codec not in _SETS:
        return frozenset()
    shift, mask, types = _SETS[codec]
    units = (unit.rstrip(b"\x00") for unit in _START.split(body[:_SEARCHED])[1:])
    return frozenset(unit for unit in units if unit and (unit[0] >> shift) & mask in types)


class Template:
    """The stream whose parameters clips get; follows changes inside the stream.

    Attributes:
        stream: parameters for the next clip.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        self.stream = stream
        self._codec = stream.codec_context.name
        extradata = stream.codec_context.extradata or b""
        self._in_band = not extradata.startswith(b"\x01")
        self._sets = parameter_sets(extradata, self._codec)
        # Parameters of a probed stream live as long as its container.
        self._probe: av.container.InputContainer | None = None

    def changes(self, packet: Packet) -> bool:
        """Look at a key frame; whether clips need other parameters from it on."""
        if not self._in_band or self._codec not in _SETS:
            return False
        body = bytes(packet)
        sets = parameter_sets(body, self._codec)
        if not sets or sets == self._sets:
            return False
        return self._adopt(body, sets)

    def _adopt(self, body: bytes, sets: frozenset[bytes]) -> bool:
        try:
            probe = av.open(io.BytesIO(body), "r", format=self._codec, options={"fpsprobesize": "0"})
        except (av.FFmpegError, ValueError):
            return False
        stream = probe.streams.video[0]
        if not stream.width or not stream.height:
            return False
        self._sets, self._probe, self.stream = sets, probe, stream
        return True
