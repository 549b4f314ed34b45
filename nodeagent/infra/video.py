"""Pictures out of encoded video, the same bytes on the fast path (ring) and on the durable one (clip file).

A clip's track counts ticks of 1/90000 s from its first frame, which stands at the clip's `start_ns`.  Capture times are
rounded to those ticks *before* anything uses them, so a reader of the file gets the very numbers that the ring carries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from nodeagent.contract.errors import BadMedia
from nodeagent.contract.ids import NS_PER_S

#: Ticks per second of a clip's track: the clock of RTP video, so a camera's own time stamps lose nothing.
CLIP_TICKS_PER_S = 90_000
#: How far a frame of the file may lie from a wanted time and still be it, ns: less than half a tick, as both are ticks.
MATCH_NS = 5_000


def ticks_of(ns: int) -> int:
    """Ticks of a clip's track nearest to a duration."""
    return (ns * CLIP_TICKS_PER_S + NS_PER_S // 2) // NS_PER_S


def ns_of(ticks: int, time_base: Fraction = Fraction(1, CLIP_TICKS_PER_S)) -> int:
    """Nanoseconds of a number of ticks, rounded to the nearest."""
    scaled = ticks * time_base.numerator * NS_PER_S
    return (scaled + time_base.denominator // 2) // time_base.denominator


def sample_size(width: int, height: int, sample_width: int) -> tuple[int, int]:
    """Size of a sample: even, the source's aspect ratio, never larger than the source (but at least 2x2)."""
    out_width = max(2, min(sample_width, width) // 2 * 2)
    out_height = max(2, round(height * out_width / width / 2) * 2)
    return out_width, out_height if out_height <= height else max(2, height // 2 * 2)


class I420Scaler:
    """Scales decoded frames to samples; keeps its scaling context between calls."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The frame as I420, (height*3//2, width): luma, then both chroma planes; limited range.

        Raises:
            BadMedia: the frame's pixel format cannot be converted.
        """
        try:
            # One thread: a sample is too small to share out, and one process per camera fills the cores anyway.
            small = self._reformatter.reformat(
                frame, self.width, self.height, "yuv420p", interpolation=Interpolation.AREA, threads=1
            )
        except (av.FFmpegError, ValueError) as exc:
            raise BadMedia(f"cannot scale {frame.format.name} {frame.width}x{frame.height}: {exc}") from exc
        flat = np.empty(self.width * self.height * 3 // 2, np.uint8)
        done = 0
        for plane in small.planes:
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
            size = plane.width * plane.height
            flat[done : done + size].reshape(plane.height, plane.width)[:] = rows[:, : plane.width]
            done += size
        return flat.reshape(self.height * 3 // 2, self.width)


@contextmanager
def opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a clip for decoding with one thread.

    Raises:
        BadMedia: it cannot be opened, or holds no video; also for FFmpeg's errors inside the block.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadMedia(f"{path.name}: no video track")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            yield container, stream
    except (av.FFmpegError, ValueError) as exc:
        raise BadMedia(f"{path.name}: {type(exc).__name__}: {exc}") from exc


def frames(
    container: av.container.InputContainer, stream: av.VideoStream, start_ns: int, wanted: Sequence[int] | None = None
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames of a clip with their capture times, in order of time; broken packets are passed over.

    With `wanted` (growing) frames that nothing refers to are not decoded unless their time is wanted.
    """
    base: int | None = None
    context = stream.codec_context
    for packet in container.demux(stream):
        if packet.pts is not None and base is None:
            base = packet.pts
        if wanted is not None and packet.pts is not None and base is not None:
            time_ns = start_ns + ns_of(packet.pts - base, packet.time_base)
            context.skip_frame = "DEFAULT" if nearest(wanted, time_ns) is not None else "NONREF"
        try:
            decoded = packet.decode()
        except av.FFmpegError:
            continue
        for frame in decoded:
            if frame.pts is not None and base is not None:
                yield start_ns + ns_of(frame.pts - base, packet.time_base), frame


def packet_times(
    container: av.container.InputContainer, stream: av.VideoStream, start_ns: int
) -> list[tuple[int, bool]]:
    """Capture times of a clip's frames, growing, and which are key frames, without decoding one.

    Frames that could not be decoded are among them.
    """
    seen = [(p.pts, p.time_base, p.is_keyframe) for p in container.demux(stream) if p.pts is not None]
    return sorted((start_ns + ns_of(pts - seen[0][0], time_base), key) for pts, time_base, key in seen)


def nearest(times: Sequence[int], time_ns: int) -> int | None:
    """Index of the wanted time that a frame at `time_ns` is; None when it is none of them.  `times` grow."""
    low, high = 0, len(times)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if times[middle] < time_ns - MATCH_NS else (low, middle)
    return low if low < len(times) and times[low] <= time_ns + MATCH_NS else None


def key_frames(
    container: av.container.InputContainer, stream: av.VideoStream, start_ns: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Key frames of a clip with their capture times; nothing else is decoded, and broken ones are passed over."""
    base: int | None = None
    context = stream.codec_context
    for packet in container.demux(stream):
        if base is None:
            base = packet.pts
        if base is None or packet.pts is None or not packet.is_keyframe:
            continue
        time_ns = start_ns + ns_of(packet.pts - base, packet.time_base)
        try:
            # One picture, whole in itself: it need not wait in the decoder for those behind it.
            decoded = [*packet.decode(), *context.decode(None)]
        except av.FFmpegError:
            continue
        finally:
            context.flush_buffers()
        yield from ((time_ns, frame) for frame in decoded[:1])


def clip_samples(
    path: Path, start_ns: int, sample_ns: Sequence[int], width: int, height: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Samples out of a clip's file: (index into `sample_ns`, I420 of (height*3//2, width)), each once.

    The clip is decoded once; where all wanted pictures are key frames, these alone.  Samples whose frames are missing
    or broken in the file are left out.

    Raises:
        BadMedia: the file cannot be opened or decoded at all.
    """
    scale = I420Scaler(width, height)
    found: set[int] = set()
    with opened(path) as (container, stream):
        keys = [time_ns for time_ns, key in packet_times(container, stream, start_ns) if key]
    only_keys = all(nearest(keys, time_ns) is not None for time_ns in sample_ns)
    with opened(path) as (container, stream):
        pictures = (
            key_frames(container, stream, start_ns) if only_keys else frames(container, stream, start_ns, sample_ns)
        )
        for time_ns, frame in pictures:
            index = nearest(sample_ns, time_ns)
            if index is not None and index not in found:
                found.add(index)
                yield index, scale(frame)
    if sample_ns and not found:
        raise BadMedia(f"{path.name}: none of its {len(sample_ns)} samples can be decoded")
