"""Joins clips into one replay by stream copy: no frame is encoded again.

The replay starts at the last key frame at or before the window and ends with the frame by which every frame of the
window is in it, so it is never shorter than asked and at most one group of pictures longer (plus reordered frames).

All times are integers: a packet's capture time is its clip's start plus its ticks, and goes into the replay relative to
the first frame's.  Nothing adds up, so nothing drifts.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av

from nodeagent.alarm.plan import SEAM_NS
from nodeagent.contract.clip import ClipId
from nodeagent.contract.errors import BadMedia, StorageUnavailable
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.infra.video import CLIP_TICKS_PER_S, ns_of, ticks_of

TIME_BASE = Fraction(1, CLIP_TICKS_PER_S)
#: Clips that overlap by less are joined as they are, ns: jitter of a camera's clock, under one frame at 15 per second.
OVERLAP_NS = 50 * NS_PER_MS
#: Length of a frame that does not say it, ns.
FRAME_NS = NS_PER_S // 25
#: What a disk answers that cannot take a replay now.
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.ENOENT})


class BadClip(BadMedia):
    """One of the clips cannot be read.  Plan again without it."""

    def __init__(self, clip: ClipId, why: str) -> None:
        super().__init__(f"clip {clip}: {why}")
        self.clip = clip


@dataclass(frozen=True, slots=True)
class Source:
    """A clip's file and the capture time of its first frame."""

    clip: ClipId
    start_ns: int
    path: Path


@dataclass(slots=True)
class Joined:
    """A replay as it was written.

    Attributes:
        start_ns: capture time of its first frame.
        packets: frames in it.
        spans: capture times that it shows, (from, to) in ns, ordered; a seam between two clips does not part them.
    """

    start_ns: int = 0
    packets: int = 0
    spans: list[tuple[int, int]] = field(default_factory=list)

    @property
    def length_ns(self) -> int:
        """Capture time from the first frame to the end of the last."""
        return self.spans[-1][1] - self.start_ns if self.spans else 0

    def show(self, start_ns: int, end_ns: int) -> None:
        """Add a frame's time."""
        if self.spans and start_ns - self.spans[-1][1] <= SEAM_NS:
            first_ns, last_ns = self.spans[-1]
            self.spans[-1] = (first_ns, max(last_ns, end_ns))
        else:
            self.spans.append((start_ns, end_ns))


@dataclass(slots=True)
class _Packet:
    packet: av.Packet[av.VideoStream]
    pts_ns: int
    dts_ns: int
    length_ns: int


def stream_format(source: Source) -> tuple[str, int, int, bytes]:
    """What must be equal for two clips to be joined: codec, size, and the codec's own header.

    Raises:
        BadClip: it cannot be read.
    """
    try:
        with av.open(str(source.path)) as container:
            context = container.streams.video[0].codec_context
            return context.name, context.width, context.height, bytes(context.extradata or b"")
    except (av.FFmpegError, IndexError, OSError) as exc:
        raise BadClip(source.clip, type(exc).__name__) from exc


def join(sources: Sequence[Source], from_ns: int, to_ns: int, target: Path) -> Joined:
    """Write the frames of [from_ns, to_ns] to `target` as an MP4 whose index comes first, and sync it.

    Args:
        sources: one or more clips of one format, ordered.
        from_ns, to_ns: the window, UTC ns.
        target: file to write; it is replaced.

    Raises:
        BadClip: a clip cannot be read; nothing of use was written.
        BadMedia: the joined stream cannot be written, or no frame of the clips is usable.
        StorageUnavailable: the disk refuses.
    """
    joined = Joined()
    try:
        with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as out:
            _write_all(out, sources, from_ns, to_ns, joined)
        with target.open("rb+") as file:
            os.fsync(file.fileno())
    except OSError as exc:
        if exc.errno in _DISK_ERRORS:
            raise StorageUnavailable(f"replay {target.name}: {os.strerror(exc.errno or 0)}") from exc
        raise BadMedia(f"replay: {type(exc).__name__}") from exc
    except (av.FFmpegError, ValueError) as exc:
        raise BadMedia(f"replay: {type(exc).__name__}") from exc
    if not joined.packets:
        raise BadMedia("replay: no frame of the window is usable")
    return joined


def _write_all(
    out: av.container.OutputContainer, sources: Sequence[Source], from_ns: int, to_ns: int, joined: Joined
) -> None:
    stream = None
    clock = _Ticks()
    for source in sources:
        with _opened(source) as (container, template):
            if stream is None:
                stream = out.add_stream_from_template(template)
                stream.time_base = TIME_BASE
            reach_ns = joined.spans[-1][1] if joined.spans else None
            clock.next_clip()
            for item in _wanted(_read(container, source), from_ns, to_ns, reach_ns):
                if not joined.packets:
                    joined.start_ns = item.pts_ns
                item.packet.stream = stream
                item.packet.time_base = TIME_BASE
                item.packet.dts, item.packet.pts = clock.place(
                    ticks_of(item.dts_ns - joined.start_ns), ticks_of(item.pts_ns - joined.start_ns)
                )
                item.packet.duration = ticks_of(item.length_ns)
                out.mux_one(item.packet)
                joined.packets += 1
                joined.show(item.pts_ns, item.pts_ns + item.length_ns)


class _Ticks:
    """Times in the replay, in ticks, that grow over seams too: neither muxer nor player takes others.

    A clip that overlaps the one before is moved as a whole, by as little as makes its first frame the next one: moved
    one by one, frames that are shown in another order than they are decoded would fall together.
    """

    def __init__(self) -> None:
        self._last_dts: int | None = None
        self._last_pts = 0
        self._shift: int | None = None

    def next_clip(self) -> None:
        """The next packet is the first of a clip."""
        self._shift = None

    def place(self, dts: int, pts: int) -> tuple[int, int]:
        """Decoding and presentation time of the next packet, given its own."""
        if self._last_dts is None:
            self._last_dts, self._last_pts, self._shift = dts - 1, pts - 1, 0
        if self._shift is None:
            self._shift = max(0, self._last_dts + 1 - dts, self._last_pts + 1 - pts)
        # Two packets of one tick, as a damaged clip may have them, are still to be told apart.
        dts = max(dts + self._shift, self._last_dts + 1)
        pts = max(pts + self._shift, dts)
        self._last_dts, self._last_pts = dts, max(self._last_pts, pts)
        return dts, pts


class _opened:  # noqa: N801  (used as a function)
    """A clip and its video stream; errors become BadClip."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __enter__(self) -> tuple[av.container.InputContainer, av.VideoStream]:
        try:
            self._container = av.open(str(self._source.path))
            return self._container, self._container.streams.video[0]
        except (av.FFmpegError, IndexError, OSError) as exc:
            raise BadClip(self._source.clip, type(exc).__name__) from exc

    def __exit__(self, *_exc: object) -> None:
        self._container.close()


def _read(container: av.container.InputContainer, source: Source) -> list[_Packet]:
    """All packets of a clip in the order of decoding; what follows a broken one is left out (and shows as a gap)."""
    found: list[_Packet] = []
    first: int | None = None
    try:
        for packet in container.demux(container.streams.video[0]):
            if packet.pts is None or packet.dts is None or not packet.size:
                continue
            # The clip's first frame stands at its start, whatever number it has in the file.
            first = packet.pts if first is None else first
            base = packet.time_base
            length_ns = ns_of(packet.duration, base) if packet.duration else FRAME_NS
            pts_ns = source.start_ns + ns_of(packet.pts - first, base)
            found.append(_Packet(packet, pts_ns, source.start_ns + ns_of(packet.dts - first, base), length_ns))
    except (av.FFmpegError, OSError) as exc:
        if not found:
            raise BadClip(source.clip, type(exc).__name__) from exc
    return found


def _wanted(packets: list[_Packet], from_ns: int, to_ns: int, reach_ns: int | None) -> Iterator[_Packet]:
    """The packets of one clip that belong into the replay, which reaches until `reach_ns` so far."""
    keys = [i for i, item in enumerate(packets) if item.packet.is_keyframe]
    first = _first_of(packets, keys, from_ns, reach_ns)
    if first is None:
        return
    start_ns = packets[first].pts_ns
    for item in packets[first:]:
        # No later packet is shown before its own decoding time: once that is past the window, all of it is in.
        if item.dts_ns >= to_ns:
            return
        # Frames that are shown before their key frame need pictures that are not in the replay.
        if item.pts_ns >= start_ns:
            yield item


def _first_of(packets: list[_Packet], keys: list[int], from_ns: int, reach_ns: int | None) -> int | None:
    """Index of the key frame to begin with; None when the clip adds nothing."""
    if reach_ns is None:
        before = [i for i in keys if packets[i].pts_ns <= from_ns]
        return before[-1] if before else next(iter(keys), None)
    return next((i for i in keys if packets[i].pts_ns >= reach_ns - OVERLAP_NS), None)
