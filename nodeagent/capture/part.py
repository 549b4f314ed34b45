"""The clip that is being written: packets of the camera, as they are, into fragmented MP4.

`empty_moov+default_base_moof`, a fragment every half second, flushed: readable while it grows, loses about half a
second on kill -9, plays in a browser as it is.  The file is `*.part.mp4` until `capture.closing` renames it.

FFmpeg makes the bytes in memory and a disk's thread writes them (`disk_writer`), so nothing here waits for a disk.  The
bytes are kept until the file is synced: when its disk refuses or stalls, the whole clip moves to another one.
"""

from __future__ import annotations

import contextlib
import errno
import os
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias, cast

import av

from nodeagent.capture.disk_writer import STALL_S, Copy, DiskStalled, Job
from nodeagent.capture.parameter_sets import is_complete
from nodeagent.capture.places import Place
from nodeagent.capture.sound import Line, Track
from nodeagent.contract.clip import ClipId, part_file_name
from nodeagent.contract.errors import BadMedia, StorageUnavailable
from nodeagent.infra.storage import StorageFull
from nodeagent.infra.video import CLIP_TICKS_PER_S, ns_of, ticks_of

#: Media time of one fragment, microseconds: what kill -9 may cost.
FRAGMENT_US = 500_000
_OPTIONS = {"movflags": "empty_moov+default_base_moof", "frag_duration": str(FRAGMENT_US), "flush_packets": "1"}
#: Codecs whose pictures are made of units, each behind a start code or its length.
_IN_UNITS = frozenset({"h264", "hevc"})
_START_CODE = b"\x00\x00\x01"
#: The first start code stands at the front, bytes.
_START_LOOK = 64
_TIME_BASE = Fraction(1, CLIP_TICKS_PER_S)
#: FFmpeg hands over at most so many bytes at once: a fragment of 4 Mbit/s, so that most cost one call.
CHUNK_BYTES = 1 << 18
#: A clip is kept in memory up to this size, bytes: 15 s of 16 Mbit/s.  A longer one cannot move any more, and is lost
#: from its disk's last whole fragment on.
KEPT_MOST_BYTES = 32 << 20

Packet: TypeAlias = "av.Packet[av.VideoStream]"


def _has_unit(packet: Packet) -> bool:
    """Whether anything stands behind a start code in it."""
    return _START_CODE in bytes(memoryview(packet)[:_START_LOOK])[:-1] or _START_CODE in bytes(packet)[:-1]


class _Kept:
    """What FFmpeg has made of the clip so far; the file object that it writes to."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0
        self.copy: Copy | None = None
        self.whole = True

    def write(self, chunk: bytes) -> int:
        """Take what comes next; called by FFmpeg."""
        if self.copy is not None:
            self.copy.write(chunk)
        self.size += len(chunk)
        if self.whole:
            self.chunks.append(chunk)
            if self.size > KEPT_MOST_BYTES:
                self.forget()
        return len(chunk)

    def forget(self) -> None:
        """Keep nothing any more."""
        self.whole = False
        self.chunks.clear()


class Part:
    """One open clip.

    Attributes:
        clip: its identity.
        place: where it is written now.
        last_ns: capture time of its latest frame.
        tried: disks that it was given to.
        accounted: whether the time before it is told; for the recorder.
    """

    def __init__(self, place: Place, clip: ClipId, template: av.VideoStream, sound: Track | None = None) -> None:
        """Begin with the parameters of the stream, and of its sound if there is some.

        Raises:
            BadMedia: MP4 cannot carry this stream.
        """
        self.clip = clip
        self.place = place
        self.last_ns = clip.start_ns
        self.tried = {place.hand.disk}
        self.accounted = False
        self._last_dts = -1
        # The latest packet's duration, in the source's ticks and in the clip's.
        self._duration = (0, 0)
        self._sound_line = Line()
        self._head_bytes = 0
        self._ending: Job[None] | None = None
        self._kept = _Kept()
        header, codec = template.codec_context.extradata or b"", template.codec_context.name
        if not is_complete(header, codec):
            raise BadMedia("the stream has sent no whole parameter sets")
        self._by_start_codes = codec in _IN_UNITS and not header.startswith(b"\x01")
        try:
            self._out = av.open(self._kept, "w", format="mp4", options=_OPTIONS, buffer_size=CHUNK_BYTES)
            # Opaque: the stream's parameters are copied, so no encoder of its codec is needed.
            self._stream = self._out.add_stream_from_template(template, opaque=True)
            self._stream.time_base = _TIME_BASE
            self._sound = sound.add_to(self._out) if sound is not None else None
        except (av.FFmpegError, OSError, ValueError) as exc:
            raise BadMedia(_unfit(exc)) from exc
        self._copy = self._kept.copy = Copy(place.hand, place.folder / part_file_name(clip))

    @property
    def path(self) -> Path:
        """The file."""
        return self._copy.path

    @property
    def on_disk(self) -> bool:
        """Whether the disk has taken some of its pictures."""
        return self._copy.written > self._head_bytes > 0

    @property
    def done(self) -> bool:
        """Whether the file is complete and synced."""
        return self._copy.synced

    @property
    def trouble(self) -> StorageUnavailable | None:
        """Why its disk does not take it, if so: it refuses (`StorageFull`) or does not answer (`DiskStalled`)."""
        if self._copy.synced:
            return None
        if (error := self._copy.error) is not None:
            reason = os.strerror(error.errno) if error.errno else str(error)
            return StorageFull(f"{'full' if error.errno == errno.ENOSPC else 'refused'}: {self.path.parent}: {reason}")
        if self.place.hand.stalls:
            return DiskStalled(f"stalls: {self.path.parent}: no answer for more than {STALL_S:.0f} s")
        return None

    @property
    def can_move(self) -> bool:
        """Whether all of it is still in memory."""
        return self._kept.whole

    def write(self, packet: Packet, time_ns: int) -> int | None:
        """Append one packet; return its capture time, rounded to the clip's ticks and never before its decoding time.

        None when it was left out: a frame that is shown before the clip's first one refers to the clip before.

        Raises:
            BadMedia: the packet cannot be in a clip.
        """
        ticks = ticks_of(time_ns - self.clip.start_ns)
        if ticks < 0:
            return None
        packet = self._fit(packet)
        behind = 0
        if packet.pts is not None and packet.dts is not None and packet.pts != packet.dts:
            behind = max(0, ticks_of(ns_of(packet.pts - packet.dts, packet.time_base)))
        # Decoding times must grow by one tick at least, and no picture can be shown before it is decoded.
        dts = max(self._last_dts + 1, ticks - behind) if self._last_dts >= 0 else max(0, ticks - behind)
        pts = max(ticks, dts)
        self._last_dts = dts
        # In the clip's ticks too: players show a clip's last picture for so long.
        duration = packet.duration or 0
        if duration != self._duration[0]:
            self._duration = duration, ticks_of(ns_of(duration, packet.time_base))
        packet.duration = self._duration[1]
        packet.pts, packet.dts, packet.time_base = pts, dts, _TIME_BASE
        packet.stream = self._stream
        try:
            self._out.mux_one(packet)
        except (av.FFmpegError, OSError, ValueError) as exc:
            raise BadMedia(_unfit(exc)) from exc
        if not self._head_bytes:
            # The first packet makes FFmpeg write the file's head, and no fragment yet.
            self._head_bytes = self._kept.size
        exact_ns = self.clip.start_ns + ns_of(pts)
        self.last_ns = max(self.last_ns, exact_ns)
        return exact_ns

    def _fit(self, packet: Packet) -> Packet:
        """The packet as FFmpeg is to get it.

        Raises:
            BadMedia: nothing is in it.  FFmpeg would write a picture of no bytes, and then nobody opens the clip.
        """
        if self._by_start_codes and not _has_unit(packet):
            raise BadMedia("a packet holds no picture")
        # Asked in this order because the second question is the dearer one, and few packets carry any.
        if not any(packet.iter_sidedata()) or not packet.has_sidedata("new_extradata"):
            return packet
        # With a header in it FFmpeg would take all that follows for that form, whatever nonsense it is.
        bare = cast("Packet", av.Packet(bytes(packet)))
        bare.pts, bare.dts, bare.duration, bare.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
        bare.is_keyframe = packet.is_keyframe
        return bare

    def hear(self, packet: av.Packet[av.AudioStream], stamp_ns: int, time_ns: int) -> None:
        """Append a packet of sound whose picture is at `time_ns`; left out before the clip's start.

        Raises:
            BadMedia: the sound cannot be in a clip; the clip goes on without.
        """
        if self._sound is None:
            return
        place_ns = self._sound_line.place(stamp_ns, time_ns - self.clip.start_ns)
        if place_ns is None:
            return
        packet.duration = ticks_of(ns_of(packet.duration, packet.time_base)) if packet.duration else 0
        packet.pts = packet.dts = ticks_of(place_ns)
        packet.time_base, packet.stream = _TIME_BASE, self._sound
        try:
            self._out.mux_one(packet)
        except (av.FFmpegError, OSError, ValueError) as exc:
            self._sound = None
            raise BadMedia(_unfit(exc)) from exc

    def finish(self) -> None:
        """No packet comes any more: have the rest written and synced; `done` tells when it is.

        Raises:
            BadMedia: FFmpeg cannot end it.
        """
        try:
            self._out.close()
        except (av.FFmpegError, OSError, ValueError) as exc:
            raise BadMedia(_unfit(exc)) from exc
        self._ending = self._copy.sync()

    def wait(self, timeout_s: float) -> None:
        """Give the disk of a finished clip this time."""
        if self._ending is not None:
            with contextlib.suppress(DiskStalled):
                self._ending.result(timeout_s)

    def move(self, place: Place) -> None:
        """Write all of it again, at another place, and go on there; the old file is removed as soon as its disk lets.

        Killed meanwhile there are two files of one clip: the next start takes the longer one.
        """
        self._copy.drop()
        self.place = place
        self.tried.add(place.hand.disk)
        self._copy = self._kept.copy = Copy(place.hand, place.folder / part_file_name(self.clip))
        for chunk in self._kept.chunks:
            self._copy.write(chunk)
        if self._ending is not None:
            self._ending = self._copy.sync()

    def leave(self) -> None:
        """Let go of the file after an error; what was written stays in it.

        Raises:
            DiskStalled: the disk does not answer; the file is removed when it does.
        """
        self._end()
        try:
            self._copy.leave().result(STALL_S)
        except DiskStalled:
            self._copy.drop()
            raise

    def drop(self) -> None:
        """Let go of the clip: its file is removed as soon as its disk lets."""
        self._end()
        self._copy.drop()

    def _end(self) -> None:
        self._kept.forget()
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self._out.close()


def _unfit(exc: Exception) -> str:
    return f"packets do not fit into a clip: {getattr(exc, 'strerror', None) or type(exc).__name__}"
