"""The clip that is being written: packets of the camera, as they are, into fragmented MP4.

`empty_moov+default_base_moof`, a fragment every half second, flushed: readable while it grows, loses about half a
second on kill -9, plays in a browser as it is.  The file is `*.part.mp4` until `capture.closing` renames it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import av

from nodeagent.capture.fragments import wholeness
from nodeagent.contract.clip import ClipId, part_file_name
from nodeagent.contract.errors import BadMedia
from nodeagent.infra.storage import StorageFull
from nodeagent.infra.video import CLIP_TICKS_PER_S, ns_of, ticks_of

#: Media time of one fragment, microseconds: what kill -9 may cost.
FRAGMENT_US = 500_000
_OPTIONS = {"movflags": "empty_moov+default_base_moof", "frag_duration": str(FRAGMENT_US), "flush_packets": "1"}
_TIME_BASE = Fraction(1, CLIP_TICKS_PER_S)
#: FFmpeg's errors that the disk caused; all others come from the stream.
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.ENOENT, errno.EACCES, errno.EFBIG})

Packet: TypeAlias = "av.Packet[av.VideoStream]"


def translated(exc: Exception, path: Path) -> StorageFull | BadMedia:
    """The error of a write, named for what to do about it."""
    number = getattr(exc, "errno", None)
    if isinstance(exc, OSError) or number in _DISK_ERRORS:
        return StorageFull(f"full: {path.parent}: {os.strerror(number) if number else exc}")
    return BadMedia(f"packets do not fit into a clip: {getattr(exc, 'strerror', None) or type(exc).__name__}")


class Part:
    """One open clip.

    Attributes:
        clip: its identity.
        path: the file.
        last_ns: capture time of its latest frame.
    """

    def __init__(self, folder: Path, clip: ClipId, template: av.VideoStream) -> None:
        """Make the file with the stream's parameters.

        Raises:
            StorageFull: the disk refused.
            BadMedia: MP4 cannot carry this stream.
        """
        self.clip = clip
        self.path = folder / part_file_name(clip)
        self.last_ns = clip.start_ns
        self._last_dts = -1
        try:
            self._out = av.open(str(self.path), "w", format="mp4", options=_OPTIONS)
            self._stream = self._out.add_stream_from_template(template)
            self._stream.time_base = _TIME_BASE
        except (av.FFmpegError, OSError, ValueError) as exc:
            self.path.unlink(missing_ok=True)
            raise translated(exc, self.path) from exc

    def abandon(self) -> None:
        """Let go of the file after an error; what was flushed stays in it."""
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self._out.close()

    def write(self, packet: Packet, time_ns: int) -> int | None:
        """Append one packet; return its capture time, rounded to the clip's ticks and never before its decoding time.

        None when it was left out: a frame that is shown before the clip's first one refers to the clip before.

        Raises:
            StorageFull: the disk refused.
            BadMedia: the packet cannot be in a clip.
        """
        ticks = ticks_of(time_ns - self.clip.start_ns)
        if ticks < 0:
            return None
        behind = 0
        if packet.pts is not None and packet.dts is not None:
            behind = max(0, ticks_of(ns_of(packet.pts - packet.dts, packet.time_base)))
        # Decoding times must grow by one tick at least, and no picture can be shown before it is decoded.
        dts = max(self._last_dts + 1, ticks - behind) if self._last_dts >= 0 else max(0, ticks - behind)
        pts = max(ticks, dts)
        self._last_dts = dts
        packet.pts, packet.dts, packet.time_base = pts, dts, _TIME_BASE
        packet.stream = self._stream
        try:
            self._out.mux_one(packet)
        except (av.FFmpegError, OSError, ValueError) as exc:
            raise translated(exc, self.path) from exc
        exact_ns = self.clip.start_ns + ns_of(pts)
        self.last_ns = max(self.last_ns, exact_ns)
        return exact_ns

    def finish(self) -> int:
        """Write what is buffered and sync; return the size in bytes.

        Raises:
            StorageFull: the disk refused; what was flushed is in the file.
        """
        try:
            self._out.close()
            if not wholeness(self.path).finished:
                # FFmpeg does not always tell that its last write failed.
                raise StorageFull(f"full: {self.path.parent}: the end of {self.path.name} could not be written")
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
                return os.fstat(fd).st_size
            finally:
                os.close(fd)
        except (av.FFmpegError, OSError) as exc:
            raise translated(exc, self.path) from exc
