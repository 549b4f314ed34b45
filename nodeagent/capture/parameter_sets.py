"""Notices in a stream of packets that the camera changed its picture: new parameter sets before a key frame.

In Annex B form (RTSP, MPEG-TS) they stand in the key frame itself.  In the form of MP4 (RTMP, FLV) they stand in the
stream's header, and a new header comes with the key frame as side data.  MJPEG has none: each picture tells its size.
Source of the layout: ITU-T H.264 7.3.1 and H.265 7.3.1.2: start code 00 00 01, then the unit's header.
"""

from __future__ import annotations

import io
import re
from typing import Final, TypeAlias, cast

import av

Packet: TypeAlias = "av.Packet[av.VideoStream]"

#: Types of parameter sets by codec, with the shift and mask that read the type from the unit's first byte.
_SETS = {"h264": (0, 0x1F, frozenset({7, 8})), "hevc": (1, 0x3F, frozenset({32, 33, 34}))}
#: How units of H.265's three parameter sets begin, and what follows the type in H.264's first: the profile.
_H265_HEADS = frozenset({b"\x40\x01", b"\x42\x01", b"\x44\x01"})
_H264_PROFILES = frozenset({44, 66, 77, 88, 100, 110, 122, 244})
#: FFmpeg's name for a header that came inside the stream.
_NEW_HEADER: Final = "new_extradata"
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


def is_complete(header: bytes, codec: str) -> bool:
    """Whether a stream's header has all that a clip of it needs: one of each kind of parameter set."""
    if codec not in _SETS:
        return True
    if header.startswith(b"\x01"):
        # ISO/IEC 14496-15: the number of the first kind of H.264's sets, and of H.265's arrays of sets.
        at, mask = (5, 0x1F) if codec == "h264" else (22, 0xFF)
        return len(header) > at + 1 and header[at] & mask > 0
    shift, mask, types = _SETS[codec]
    return {(unit[0] >> shift) & mask for unit in parameter_sets(header, codec)} == types


def other_codec(body: bytes, codec: str) -> str:
    """The codec that a key frame is of, if by its parameter sets that is not `codec`; empty otherwise.

    FFmpeg tells of no such change: it goes on under the codec that the source was opened with.  Bytes of one codec that
    look like sets of the other do not come together: H.265 needs three kinds of them, H.264 two, one with a profile.
    """
    heads = {bytes(unit[:2]) for unit in _START.split(body[:_SEARCHED])[1:]}
    if codec == "h264" and heads >= _H265_HEADS:
        return "hevc"
    kinds = {head[0] & 0x1F: head for head in heads if len(head) == 2 and head[0] & 0xE0 in (0x20, 0x40, 0x60)}
    if codec == "hevc" and 8 in kinds and 7 in kinds and kinds[7][1] in _H264_PROFILES:
        return "h264"
    return ""


def jpeg_size(body: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG picture; None when its head cannot be read.

    Source of the layout: ITU-T T.81 B.1 and B.2.2: segments of FF, a marker, two bytes of length.
    """
    at = 2
    while at + 9 <= len(body) and body[at] == 0xFF:
        marker, length = body[at + 1], int.from_bytes(body[at + 2 : at + 4], "big")
        # C0 to CF begin a frame, but for tables of Huffman codes, extensions and arithmetic coding.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = int.from_bytes(body[at + 5 : at + 7], "big"), int.from_bytes(body[at + 7 : at + 9], "big")
            return width, height
        at += 2 + length
    return None


class Template:
    """The stream whose parameters clips get; follows changes inside the stream.

    Attributes:
        stream: parameters for the next clip.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        self.stream = _copied(stream)
        self._codec = stream.codec_context.name
        extradata = stream.codec_context.extradata or b""
        self._in_band = not extradata.startswith(b"\x01")
        self._sets = parameter_sets(extradata, self._codec)
        self._header = extradata
        # Parameters of a probed stream live as long as its container.
        self._probe: av.container.InputContainer | None = None

    def changes(self, packet: Packet) -> bool:
        """Look at a key frame; whether clips need other parameters from it on."""
        if packet.has_sidedata(_NEW_HEADER):
            header = bytes(packet.get_sidedata(_NEW_HEADER))
            return header != self._header and self._adopt_header(packet, header)
        if self._codec == "mjpeg":
            size = jpeg_size(bytes(packet))
            return size is not None and size != (self.stream.width, self.stream.height) and self._adopt_jpeg(packet)
        if not self._in_band or self._codec not in _SETS:
            return False
        body = bytes(packet)
        sets = parameter_sets(body, self._codec)
        if sets and sets != self._sets:
            return self._adopt(body, sets)
        # The session description told the sets, and nobody has looked into them.
        return not self.stream.width and self._adopt(self._header + body, self._sets)

    def _adopt(self, body: bytes, sets: frozenset[bytes]) -> bool:
        if self._use(io.BytesIO(body), self._codec):
            self._sets = sets
            return True
        return False

    def _adopt_jpeg(self, packet: Packet) -> bool:
        return self._use(io.BytesIO(bytes(packet)), "jpeg_pipe")

    def _adopt_header(self, packet: Packet, header: bytes) -> bool:
        """Only a decoder can tell the size of the picture, and only a file makes a stream of what it told."""
        decoder = cast("av.VideoCodecContext", av.CodecContext.create(self._codec, "r"))
        decoder.extradata, decoder.thread_count = header, 1
        first = av.Packet(bytes(packet))
        empty = io.BytesIO()
        try:
            frames = decoder.decode(first) + decoder.decode(None)
            if not frames:
                return False
            with av.open(empty, "w", format="mp4", options={"movflags": "empty_moov"}) as out:
                stream = out.add_stream_from_template(self.stream, opaque=True)
                stream.codec_context.extradata = header
                stream.width, stream.height = frames[0].width, frames[0].height
                out.start_encoding()
        except (av.FFmpegError, ValueError):
            return False
        if self._use(io.BytesIO(empty.getvalue()), "mp4"):
            self._header, self._in_band = header, False
            return True
        return False

    def _use(self, file: io.BytesIO, form: str) -> bool:
        """Take the parameters of the stream in this file, if it tells its size."""
        try:
            probe = av.open(file, "r", format=form, options={"fpsprobesize": "0"})
        except (av.FFmpegError, ValueError):
            return False
        stream = probe.streams.video[0]
        if not stream.width or not stream.height:
            return False
        self._probe, self.stream = probe, stream
        return True


def _copied(stream: av.VideoStream) -> av.VideoStream:
    """Its parameters as they are now: FFmpeg gives a stream those of another codec while packets of the old wait."""
    holder = av.open(io.BytesIO(), "w", format="mp4")
    try:
        return holder.add_stream_from_template(stream, opaque=True)
    except ValueError:
        # MP4 does not carry this codec, which whoever wants a clip of it is told.
        return stream
