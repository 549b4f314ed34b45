"""How each kind of source is opened, and what its errors mean: two tables.

Nothing that a source sends may become a path: a redirect, a playlist or a script of FFmpeg's `concat` can name any URL.
So each kind lets FFmpeg use the protocols and formats of its row only; what lies on this machine is in the row of files
alone, and that row reaches no network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast
from urllib.parse import unquote, urlsplit

import av
from av.stream import Discard

from nodeagent.capture.brief import untold
from nodeagent.capture.parameter_sets import other_codec
from nodeagent.contract.camera import StreamSpec
from nodeagent.contract.errors import BadMedia
from nodeagent.contract.states import State

#: How long opening may take, seconds: a camera behind a slow NVR.
OPEN_TIMEOUT_S = 10.0
#: An HLS source is silent between two segments, so it stalls after this, seconds, or `stall_timeout_s` if that is more:
#: three segments of ten seconds, the longest that are common.
HLS_STALL_S = 30.0

#: Packets that were read in less than this came out of a buffer, not from the camera as it made them, seconds.
BUFFERED_READ_S = 0.005
#: The same for HLS, whose segments are fetched piece by piece.
HLS_BUFFERED_READ_S = 0.5
#: Formats whose time stamps FFmpeg makes up at 25 frames/s, because the source sends none.
STAMPLESS = frozenset({"mpjpeg"})
_HLS = "hls"


@dataclass(frozen=True, slots=True)
class Kind:
    """What FFmpeg may use for sources of one kind.

    Attributes:
        protocols: all that may be opened, also by what the source sends.
        formats: in which the source may send; empty: any.
        options: further options of FFmpeg.
        patience: FFmpeg's option for how long a read of its socket may take.  Where it is empty PyAV watches the time,
            in Python and at each read; of protocols that read a few bytes at a time that is a third of what they cost.
        brief: options that have FFmpeg read one packet, rather than look at the stream, before it calls a source open;
            empty where no session description tells the tracks.
    """

    protocols: str
    formats: str = ""
    options: tuple[tuple[str, str], ...] = ()
    patience: str = ""
    brief: tuple[tuple[str, str], ...] = ()


# Else FFmpeg decodes seven pictures to learn how far they are out of order, and waits five seconds for a silent track.
_RTSP = Kind("rtsp,rtp,srtp,udp,tcp,tls", "rtsp", patience="timeout", brief=(("probesize", "32"),))
# FFmpeg waits so long, in microseconds, for the sound of a camera that has none; its default is five seconds.
_RTMP = Kind("rtmp,rtmps,tcp,tls", "flv", (("rtmp_live", "live"), ("analyzeduration", "2000000")), "rw_timeout")
_HTTP = Kind(
    "http,https,httpproxy,tcp,tls,crypto",
    # `crypto` and the formats of sound are for segments of HLS.  No format without time stamps but MJPEG's.
    "flv,mpegts,hls,mpjpeg,mov,matroska,aac,mp3,ac3,eac3",
    (
        # Begin with the newest segment: the three that players keep as a buffer are seconds of delay here.
        ("live_start_index", "-1"),
        # Segments of cameras are named by queries as often as by extensions; `formats` holds for them, too.
        ("allowed_extensions", "ALL"),
        ("allowed_segment_extensions", "ALL"),
        ("extension_picky", "0"),
    ),
)
_FILE = Kind("file")

#: By the scheme of the URL.
KINDS: dict[str, Kind] = {
    "rtsp": _RTSP,
    "rtsps": _RTSP,
    "rtmp": _RTMP,
    "rtmps": _RTMP,
    "http": _HTTP,
    "https": _HTTP,
    "file": _FILE,
    "": _FILE,
}

_REFUSED = "it sends none of the formats that are read, or names a place that is not opened"
#: State and sentence by FFmpeg's error; the first that matches counts.  Without a sentence FFmpeg's own is told.
STATE_OF: tuple[tuple[type[Exception], State, str], ...] = (
    (av.HTTPUnauthorizedError, State.AUTH_FAILED, ""),
    (av.HTTPForbiddenError, State.AUTH_FAILED, ""),
    (av.InvalidDataError, State.BAD_STREAM, ""),
    (av.DecoderNotFoundError, State.BAD_STREAM, ""),
    (av.DemuxerNotFoundError, State.BAD_STREAM, ""),
    (av.PatchWelcomeError, State.BAD_STREAM, ""),
    (av.ArgumentError, State.BAD_STREAM, _REFUSED),
    (av.ExitError, State.SOURCE_DOWN, f"no video within {OPEN_TIMEOUT_S:.0f} s"),
    (av.UnknownError, State.SOURCE_DOWN, "the server refused the stream: check its name, user and password"),
    (Exception, State.SOURCE_DOWN, ""),
)
#: What to say of a camera that answers and then sends nothing over UDP.
NO_UDP = 'no packet comes over UDP: a firewall drops them, or the camera sends none; transport = "tcp" needs no port'


#: What to say of an RTSP server whose answer is none: it closed the connection in the middle, as a proxy does whose
#: camera is away.
NO_ANSWER = "the server closed the connection, or does not speak RTSP"


def cause_of(exc: Exception, spec: StreamSpec) -> tuple[State, str]:
    """State and sentence for FFmpeg's error.  Its own text may hold the URL with the password, so that is left out."""
    if isinstance(exc, av.InvalidDataError) and KINDS[spec.scheme] is _RTSP:
        return State.SOURCE_DOWN, NO_ANSWER
    state, sentence = next((state, text) for kind, state, text in STATE_OF if isinstance(exc, kind))
    if isinstance(exc, av.ExitError) and spec.over_udp:
        sentence = f"{sentence}; {NO_UDP}"
    return state, sentence or str(getattr(exc, "strerror", None) or type(exc).__name__)


def file_path(url: str) -> str:
    """Path of a file source."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else url


@dataclass(frozen=True, slots=True)
class Source:
    """An open source.

    Attributes:
        container: to be closed by who asked for it.
        stall_s: so long without a packet is a stall, seconds.
        brief: whether FFmpeg read one packet only, and looked no further.
    """

    container: av.container.InputContainer
    stall_s: float
    brief: bool = False

    @property
    def buffered_s(self) -> float:
        """A packet that was read in less than this came out of a buffer, seconds."""
        return HLS_BUFFERED_READ_S if self.container.format.name == _HLS else BUFFERED_READ_S

    @property
    def stamped(self) -> bool:
        """Whether its packets' times are its own."""
        return self.container.format.name not in STAMPLESS

    @property
    def ends(self) -> bool:
        """Whether it is a recording, which a server sends as fast as it can, rather than a live stream.

        A playlist tells it; a file has a length, and is of a form that says how long it plays.
        """
        form, long = self.container.format.name, self.container.duration is not None
        return long and (form == _HLS or (form.startswith(("mov", "matroska")) and self.container.size > 0))


def options_of(spec: StreamSpec, patience_s: float, *, brief: bool = False) -> dict[str, str]:
    """Options of FFmpeg for a source; `patience_s` is how long a read of its socket may take."""
    kind = KINDS[spec.scheme]
    options = {"protocol_whitelist": kind.protocols} | dict(kind.options)
    if kind.formats:
        # Without fpsprobesize FFmpeg reads a second of video to guess the frame rate, which nothing here uses.
        options |= {"format_whitelist": kind.formats, "fpsprobesize": "0"}
    if kind is _RTSP:
        options["rtsp_transport"] = spec.transport
    if kind.patience:
        options[kind.patience] = str(round(patience_s * 1e6))
    return options | dict(kind.brief) if brief else options


def open_source(spec: StreamSpec, stall_timeout_s: float, *, brief: bool = False) -> Source:
    """Connect, or open the file; `brief`: without a look at the stream where its session description tells the tracks.

    `capture.brief` says what that leaves open.

    Raises:
        av.FFmpegError, OSError, ValueError: `cause_of` tells what they mean.
    """
    # Whoever waits for packets notices a stall by himself, so no read need be cut short when one begins; and an NVR may
    # need longer for its answer.
    url, options = spec.url.get_secret_value(), options_of(spec, max(stall_timeout_s, OPEN_TIMEOUT_S), brief=brief)
    if KINDS[spec.scheme].patience:
        container = av.open(url, options=options, timeout=(OPEN_TIMEOUT_S, None))
        return Source(container, stall_timeout_s, brief and bool(KINDS[spec.scheme].brief))
    if spec.is_file:
        # With its scheme, so that no name of a file reads as another protocol.
        return Source(av.open(f"file:{file_path(url)}", options=options), stall_timeout_s)
    slow_s = max(stall_timeout_s, HLS_STALL_S)
    named_hls = urlsplit(url).path.lower().endswith(".m3u8")
    first_s = slow_s if named_hls else stall_timeout_s
    container = av.open(url, options=options, timeout=(OPEN_TIMEOUT_S, first_s))
    if container.format.name == _HLS and first_s < slow_s:
        container.close()
        container, first_s = av.open(url, options=options, timeout=(OPEN_TIMEOUT_S, slow_s)), slow_s
    return Source(container, first_s)


def open_told(spec: StreamSpec, stall_timeout_s: float, look: str) -> tuple[Source, str]:
    """Open the source briefly, unless `look` says why not, or what it tells then does not do.

    Returns:
        The source, and why it was not opened briefly; empty when it was, or is of a kind that never is.

    Raises:
        av.FFmpegError, OSError, ValueError: `cause_of` tells what they mean.
    """
    source = open_source(spec, stall_timeout_s, brief=not look)
    if source.brief and (look := untold(source.container, sound=spec.audio)):
        source.container.close()
        source = open_source(spec, stall_timeout_s)
    return source, look


def pick_video(container: av.container.InputContainer) -> av.VideoStream | None:
    """The track to record: the largest picture, the first of equals; none when there is no video.

    An HLS source with several qualities has all of them as tracks, and reads only those that are not discarded.
    """
    best = max(container.streams.video, key=_area, default=None)
    for stream in container.streams.video:
        if stream is not best:
            stream.discard = Discard.all
    return best


def _area(stream: av.VideoStream) -> int:
    # Without a decoder a stream has no such attributes at all.
    context = cast("av.VideoCodecContext | None", stream.codec_context)
    return 0 if context is None else context.width * context.height


def demuxed(
    container: av.container.InputContainer, *tracks: av.VideoStream | av.AudioStream
) -> Iterator[av.Packet[av.VideoStream]]:
    """Packets of these tracks, or of all.

    Raises:
        BadMedia: the source has another track or codec now than when it was opened, which PyAV cannot tell of.
        av.FFmpegError: as FFmpeg says.
    """
    try:
        packets = cast("Iterator[av.Packet[av.VideoStream]]", container.demux(*tracks))
        yield from (_of_its_codec(packet) for packet in packets)
    except IndexError as exc:
        raise BadMedia("a track came up that was not there when the source was opened") from exc


def _of_its_codec(packet: av.Packet[av.VideoStream]) -> av.Packet[av.VideoStream]:
    """The packet, unless it is a key frame of another codec."""
    if packet.is_keyframe and packet.stream.type == "video":
        codec = packet.stream.codec_context.name
        if other := other_codec(bytes(packet), codec):
            raise BadMedia(f"the codec changed from {codec} to {other}")
    return packet
