"""Which videos are judged, whose they are, and which of their frames are samples."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nodeagent.capture.sampler import Sampler
from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.clip import PART_SUFFIX, ClipId, StreamName, parse_clip_name
from nodeagent.contract.errors import BadMedia
from nodeagent.infra.clip_folders import STREAM_FOLDERS
from nodeagent.infra.video import opened, packet_times, sample_size

#: Endings of videos that no agent recorded.
PLAIN_SUFFIXES = (".mp4", ".mkv")
#: Epoch of such a video.
PLAIN_EPOCH = 1


@dataclass(frozen=True, slots=True)
class Video:
    """One file.

    Attributes:
        clip: its identity; of a video that no agent recorded it is made up.
        duration_ns: how long it is.
        stream: which of the camera's streams it is of.
    """

    path: Path
    clip: ClipId
    duration_ns: int
    stream: StreamName = "record"

    @property
    def end_ns(self) -> int:
        """Capture time at which it ends."""
        return self.clip.start_ns + self.duration_ns


@dataclass(frozen=True, slots=True)
class Chosen:
    """A video's samples.

    Attributes:
        sample_ns: capture times of the samples, growing.
        width, height: of a sample, pixels.
        trouble: why the video cannot be read; empty when it can.
    """

    video: Video
    sample_ns: tuple[int, ...] = ()
    width: int = 2
    height: int = 2
    trouble: str = ""


@dataclass(slots=True)
class Chooser:
    """Chooses a camera's samples as capture did: by the times of the frames alone, across the cuts between clips."""

    camera: CameraSpec
    _sampler: Sampler = field(init=False)

    def __post_init__(self) -> None:
        self._sampler = Sampler(self.camera.sample_fps)

    def choose(self, video: Video) -> Chosen:
        """The samples of the camera's next video."""
        try:
            with opened(video.path) as (container, stream):
                width, height = sample_size(stream.width, stream.height, self.camera.sample_width)
                seen = packet_times(container, stream, video.clip.start_ns)
        except (BadMedia, OSError) as exc:
            return Chosen(video, trouble=str(exc))
        if not seen:
            return Chosen(video, trouble=f"{video.path.name}: no picture in it")
        every = self.camera.sample_mode == "frames"
        taken = tuple(time_ns for time_ns, key in seen if (key or every) and self._sampler.take(time_ns))
        return Chosen(video, taken, width, height)


def files_in(places: Iterable[Path]) -> list[Path]:
    """The videos among these files and below these folders, each once; a file that was named is one whatever it is.

    Raises:
        OSError: a place is not there, or cannot be looked into.
    """
    found: dict[Path, None] = {}
    for place in places:
        found |= dict.fromkeys(_below(place) if place.is_dir() else [_present(place)])
    return list(found)


def videos_of(paths: Sequence[Path], start_ns: int | None, camera_id: str | None = None) -> dict[str, list[Video]]:
    """Videos by camera, in the order in which they are judged.

    A clip's name tells all.  Any other video is a camera of its own, named after its file; it begins at `start_ns`, or
    ends when the file was last written; with a `camera_id` it is that camera's, if it is the only one.  Clips of other
    cameras are left out then.

    Raises:
        OSError: a file went away.
    """
    cameras: dict[str, list[Video]] = {}
    plain = []
    for path in paths:
        named = parse_clip_name(path.name)
        if named is None:
            plain.append(path)
        else:
            stream: StreamName = "analyse" if STREAM_FOLDERS["analyse"] in path.parts else "record"
            cameras.setdefault(named[0].camera_id, []).append(Video(path, *named, stream))
    if camera_id is not None:
        cameras = {name: videos for name, videos in cameras.items() if name == camera_id}
    for path in plain:
        name = camera_id if camera_id and len(plain) == 1 and not cameras else _name_for(path, cameras)
        cameras[name] = [_plain(path, name, start_ns)]
    return {name: analysed(cameras[name]) for name in sorted(cameras)}


def analysed(videos: Iterable[Video]) -> list[Video]:
    """What the camera's agent analysed: the main stream only where its sub-stream covers less than half of a clip.

    Each clip once, ordered by epoch and time.
    """
    clips = sorted({video.clip.start_ns: video for video in videos if video.stream == "analyse"}.values(), key=_order)
    once = {(video.clip.epoch, video.clip.start_ns, video.stream): video for video in videos}
    return sorted(
        (v for v in once.values() if v.stream == "analyse" or not _is_covered(v, clips)),
        key=_order,
    )


def _order(video: Video) -> tuple[int, int]:
    return video.clip.epoch, video.clip.start_ns


def _is_covered(video: Video, others: Sequence[Video]) -> bool:
    covered_ns = sum(
        max(0, min(video.end_ns, other.end_ns) - max(video.clip.start_ns, other.clip.start_ns)) for other in others
    )
    return 0 < video.duration_ns <= 2 * covered_ns


def _below(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in sorted(names):
            if name.endswith(PLAIN_SUFFIXES) and not name.endswith(PART_SUFFIX) and not name.startswith("."):
                yield Path(where, name).resolve()


def _raise(error: OSError) -> None:
    raise error


def _present(path: Path) -> Path:
    path.stat()
    return path.resolve()


def _name_for(path: Path, taken: Iterable[str]) -> str:
    """A camera's name made of the file's."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", path.stem).lstrip("_.-")[:50] or "video"
    names, number = set(taken), 1
    while (tried := name if number == 1 else f"{name}-{number}") in names:
        number += 1
    return tried


def _plain(path: Path, name: str, start_ns: int | None) -> Video:
    written_ns = path.stat().st_mtime_ns
    try:
        with opened(path) as (container, stream):
            seen = packet_times(container, stream, 0)
    except (BadMedia, OSError):
        seen = []
    duration_ns = seen[-1][0] - min(0, seen[0][0]) if seen else 0
    begin_ns = max(0, written_ns - duration_ns) if start_ns is None else start_ns
    return Video(path, ClipId(camera_id=name, epoch=PLAIN_EPOCH, start_ns=begin_ns), duration_ns)
