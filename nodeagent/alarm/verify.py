"""Decodes a whole replay before it counts as one, and keeps the frame of the confirming sample on the way."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from nodeagent.contract.errors import BadMedia
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.video import CLIP_TICKS_PER_S, ns_of

#: Time base that the cutter writes.
TIME_BASE = Fraction(1, CLIP_TICKS_PER_S)
#: A frame farther from the sample than this does not show it, ns.
PICTURE_NS = NS_PER_S


@dataclass(frozen=True, slots=True)
class Verified:
    """What decoding showed.

    Attributes:
        frames: frames that came out.
        broken: packets that gave an error.
        length_ns: from the first frame until the end of the last.
        picture: the frame nearest to the wanted time; none when there is none within a second.
    """

    frames: int
    broken: int
    length_ns: int
    picture: av.VideoFrame | None


def verify(path: Path, picture_at_ns: int) -> Verified:
    """Decode all frames.

    Args:
        path: the replay.
        picture_at_ns: time since its first frame of the picture to keep, ns.

    Raises:
        BadMedia: it cannot be opened, its first frame is no key frame, time does not grow, or nothing comes out.
    """
    frames = broken = 0
    first_ns = last_ns = end_ns = 0
    best: tuple[int, av.VideoFrame] | None = None
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            base = stream.time_base or TIME_BASE
            for packet in container.demux(stream):
                try:
                    decoded = packet.decode()
                except av.FFmpegError:
                    broken += 1
                    continue
                for frame in decoded:
                    at_ns = ns_of(frame.pts or 0, base)
                    _check(frames, frame, at_ns, last_ns)
                    first_ns, last_ns = (at_ns if not frames else first_ns), at_ns
                    end_ns = at_ns + (ns_of(frame.duration, base) if frame.duration else 0)
                    frames += 1
                    away_ns = abs(at_ns - first_ns - picture_at_ns)
                    if best is None or away_ns < best[0]:
                        best = (away_ns, frame)
    except (av.FFmpegError, IndexError, OSError) as exc:
        raise BadMedia(f"replay {path.name}: {type(exc).__name__}") from exc
    if not frames:
        raise BadMedia(f"replay {path.name}: no frame can be decoded")
    picture = best[1] if best and best[0] <= PICTURE_NS else None
    return Verified(frames, broken, end_ns - first_ns, picture)


def _check(index: int, frame: av.VideoFrame, at_ns: int, last_ns: int) -> None:
    if index == 0 and not frame.key_frame:
        raise BadMedia("replay: its first frame is no key frame")
    if index and at_ns <= last_ns:
        raise BadMedia(f"replay: time does not grow at frame {index}")
