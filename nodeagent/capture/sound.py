"""The camera's sound, put into clips as it is: never decoded, never encoded anew.

Video never waits for sound, and no fault of the sound costs a picture: what does not fit into MP4, or turns out to be
broken, is left out and told.  Sound stands where the picture of its time stands: both count by the camera's clock, and
the recorder says where on its time line the latest picture is.
"""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass
from typing import TypeAlias, cast

import av

from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.infra.video import ns_of

log = logging.getLogger(__name__)

#: Stamps of sound and picture that are further apart count by different clocks, ns; then arrival says where sound is.
APART_NS = 5 * NS_PER_S
#: Sound that is further from where its picture is, ns, is put there; what is less is heard by nobody, while a cut is.
OFF_NS = 200 * NS_PER_MS
#: Packets that are closer to each other, ns, would have one place in ticks of the clip; none lasts that short.
LEAST_NS = NS_PER_MS // 10
#: Clips get a track of sound while some came within this time, ns: an empty track makes players wait.
HEARD_NS = 10 * NS_PER_S

Packet: TypeAlias = "av.Packet[av.AudioStream]"
#: FFmpeg's names of forms with and without a header of seven or nine bytes before each packet (ISO/IEC 13818-7 6.2).
_ADTS_SYNC, _ADTS_BYTES, _ADTS_CRC_BYTES = 0xFFF0, 7, 9
#: RFC 7845 5.1: magic, version, channels, samples to skip, rate, gain, mapping.
_OPUS_HEAD = struct.Struct("<8sBBHIhB")


@dataclass(frozen=True, slots=True)
class Heard:
    """One packet of sound; `arrival_ns` is the wall clock when the camera sent it, as well as it can be known."""

    packet: Packet
    arrival_ns: int


def adts_header(body: bytes) -> tuple[bytes, int] | None:
    """The decoder's parameters (ISO/IEC 14496-3 1.6.2.1) that stand before a packet of AAC, and how long that is.

    None when the packet begins with no such header.
    """
    if len(body) < _ADTS_CRC_BYTES or int.from_bytes(body[:2], "big") & 0xFFF6 != _ADTS_SYNC:
        return None
    profile, rate = (body[2] >> 6) + 1, body[2] >> 2 & 0xF
    channels = (body[2] & 1) << 2 | body[3] >> 6
    config = profile << 11 | rate << 7 | channels << 3
    return config.to_bytes(2, "big"), _ADTS_BYTES if body[1] & 1 else _ADTS_CRC_BYTES


class Track:
    """What clips need to know of the sound.

    Attributes:
        stream: the source's track.
        header: the decoder's parameters; empty for codecs without.
    """

    def __init__(self, stream: av.AudioStream, header: bytes) -> None:
        self.stream = stream
        self.header = header

    def add_to(self, out: av.container.OutputContainer) -> av.AudioStream:
        """Give a clip its track.

        Raises:
            ValueError, av.FFmpegError: MP4 cannot carry it.
        """
        track = out.add_stream_from_template(self.stream, opaque=True)
        if self.header:
            track.codec_context.extradata = self.header
        return track

    def misfit(self) -> str:
        """Why a clip cannot carry it; empty when it can."""
        codec = self.stream.codec_context.codec.canonical_name
        try:
            with av.open(io.BytesIO(), "w", format="mp4", options={"movflags": "empty_moov"}) as out:
                self.add_to(out)
                out.start_encoding()
        except (av.FFmpegError, ValueError):
            return f"{codec} does not fit into a clip"
        return ""


class Line:
    """Where each packet of sound stands in one clip.  Pure."""

    def __init__(self) -> None:
        self._last_ns: int | None = None
        self._last_stamp_ns = 0

    def place(self, stamp_ns: int, line_ns: int) -> int | None:
        """Nanoseconds from the clip's start; `line_ns` is where the picture of that time is.  None: before the clip.

        Sound goes on as its own stamps do, because players hear each step, until it is too far off its picture.
        """
        if self._last_ns is None:
            place_ns = line_ns
        else:
            place_ns = self._last_ns + stamp_ns - self._last_stamp_ns
            if abs(place_ns - line_ns) > OFF_NS:
                place_ns = line_ns
        if place_ns < 0 or (self._last_ns is not None and place_ns < self._last_ns + LEAST_NS):
            return None
        self._last_ns, self._last_stamp_ns = place_ns, stamp_ns
        return place_ns


class Sound:
    """The sound of one stream, over its sessions.

    Attributes:
        dropped: why it is not recorded; empty when it is, or when there is none.
    """

    def __init__(self, camera_id: str) -> None:
        self._camera_id = camera_id
        self._stream: av.AudioStream | None = None
        self._track: Track | None = None
        # Of the latest picture: its stamp, its capture time and its arrival.
        self._picture: tuple[int, int, int] | None = None
        self._heard_ns: int | None = None
        self._adts = False
        self.dropped = ""

    def begin_session(self, stream: av.AudioStream | None) -> None:
        """The source was opened; `stream` is its sound, if it is to be recorded."""
        self._stream = stream
        self._track = self._picture = self._heard_ns = None
        self._adts = False
        if stream is None:
            self.dropped = ""
            return
        if cast("av.AudioCodecContext | None", stream.codec_context) is None:
            self.drop("FFmpeg does not know its codec")
            return
        header = _header_of(stream)
        # Without parameters of its own AAC has them before each packet.
        self._adts = stream.codec_context.name == "aac" and not header
        if not self._adts:
            self._use(Track(stream, header))

    def end_session(self) -> None:
        """After this no stream of the session is used."""
        self._stream = self._track = None

    def _use(self, track: Track) -> None:
        if why := track.misfit():
            self.drop(why)
        else:
            self._track, self.dropped = track, ""

    def drop(self, why: str) -> None:
        """Record it no more in this session."""
        if why != self.dropped:
            log.warning("camera %s: sound is not recorded: %s", self._camera_id, why, extra={"event": "sound_dropped"})
        self._stream, self._track, self.dropped = None, None, why

    def picture_at(self, stamp_ns: int | None, time_ns: int, arrival_ns: int) -> None:
        """The latest picture: its stamp by the camera's clock, its capture time and its arrival."""
        if stamp_ns is not None:
            self._picture = stamp_ns, time_ns, arrival_ns

    def track(self, start_ns: int) -> Track | None:
        """The track that a clip which begins now gets; none when no sound comes."""
        if self._heard_ns is None:
            self._heard_ns = start_ns
        return self._track if start_ns - self._heard_ns <= HEARD_NS else None

    def take(self, heard: Heard) -> tuple[Packet, int, int] | None:
        """A packet as it goes into a clip, its stamp, and the time of its picture; None when it goes nowhere."""
        packet = heard.packet
        if self._stream is None:
            return None
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or not packet.size:
            return None
        stamp_ns = ns_of(stamp, packet.time_base)
        if self._adts:
            packet = self._bare(packet)
        if self._track is None or self._picture is None:
            return None
        picture_ns, time_ns, arrival_ns = self._picture
        ahead_ns = stamp_ns - picture_ns
        if abs(ahead_ns) > APART_NS:
            ahead_ns = heard.arrival_ns - arrival_ns
        self._heard_ns = time_ns + ahead_ns
        return packet, stamp_ns, self._heard_ns

    def _bare(self, packet: Packet) -> Packet:
        """A packet of AAC without the header that MPEG-TS puts before it."""
        body = bytes(packet)
        found = adts_header(body)
        if found is None:
            if self._track is None:
                self.drop("aac without parameters")
            return packet
        header, length = found
        if self._track is None and self._stream is not None:
            self._use(Track(self._stream, header))
        bare = cast("Packet", av.Packet(body[length:]))
        bare.duration, bare.time_base = packet.duration, packet.time_base
        return bare


def _header_of(stream: av.AudioStream) -> bytes:
    """The decoder's parameters; made up for Opus from RTSP, which sends none, and of which nothing is skipped."""
    context = stream.codec_context
    if context.name == "opus" and not context.extradata:
        return _OPUS_HEAD.pack(b"OpusHead", 1, context.channels, 0, 48000, 0, 0)
    return context.extradata or b""
