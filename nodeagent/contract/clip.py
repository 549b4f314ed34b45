"""Clips: their identity, their file name, and the message "this clip is ready".

The directory is the index: camera, epoch, start and duration stand in the file's name.  A name is only ever made from
ids that were validated, and a clip is only ever looked up by identity, so no message can name a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from nodeagent.contract.ids import NS_PER_MS, CameraId, Epoch, Frozen, NodeId, UtcNs

#: Ending of a finished clip and of one that is being written.
CLIP_SUFFIX = ".mp4"
PART_SUFFIX = ".part.mp4"

#: The streams of a camera that have clips: the main one, and the sub-stream if there is one.
StreamName = Literal["record", "analyse"]

_CAMERA_ID: TypeAdapter[str] = TypeAdapter(CameraId)


class ClipId(Frozen):
    """Identity of a clip: no two clips of a site share it."""

    camera_id: CameraId
    epoch: Epoch
    #: Capture time of the first frame.
    start_ns: UtcNs

    def __str__(self) -> str:
        return f"{self.camera_id}/{self.epoch}/{self.start_ns}"


def clip_file_name(clip: ClipId, duration_ns: int) -> str:
    """Name of the finished file; the duration is rounded to milliseconds."""
    return f"{clip.camera_id}_{clip.epoch}_{clip.start_ns}_{round(duration_ns / NS_PER_MS)}{CLIP_SUFFIX}"


def part_file_name(clip: ClipId) -> str:
    """Name of the file while it is written: its duration is not known yet."""
    return f"{clip.camera_id}_{clip.epoch}_{clip.start_ns}{PART_SUFFIX}"


def parse_clip_name(name: str) -> tuple[ClipId, int] | None:
    """Identity and duration (ns) from a finished clip's name; None when it is no such name."""
    if not name.endswith(CLIP_SUFFIX) or name.endswith(PART_SUFFIX):
        return None
    fields = name.removesuffix(CLIP_SUFFIX).rsplit("_", 3)
    if len(fields) != 4:
        return None
    clip = _identity(*fields[:3])
    return (clip, int(fields[3]) * NS_PER_MS) if clip and _is_number(fields[3]) else None


def parse_part_name(name: str) -> ClipId | None:
    """Identity from the name of a clip that was being written; None when it is no such name."""
    if not name.endswith(PART_SUFFIX):
        return None
    fields = name.removesuffix(PART_SUFFIX).rsplit("_", 2)
    return _identity(*fields) if len(fields) == 3 else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _identity(camera_id: str, epoch: str, start_ns: str) -> ClipId | None:
    if not (_is_number(epoch) and _is_number(start_ns)):
        return None
    try:
        return ClipId(camera_id=_CAMERA_ID.validate_python(camera_id), epoch=int(epoch), start_ns=int(start_ns))
    except ValidationError:
        return None


class RingRef(Frozen):
    """Where a clip's samples lie in the ring, while they are still there.

    The samples are the `count` ring sequences that start at `first_seq`, without holes, in the order of `sample_ns`.
    """

    #: Generation of the ring file: grows at each change of geometry.
    generation: Annotated[int, Field(ge=1)]
    first_seq: Annotated[int, Field(ge=0)]
    count: Annotated[int, Field(ge=0, le=10_000)]


#: A level of luma, or its square.
Level = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SampleLuma(Frozen):
    """Brightness of each sample, for judging the picture itself: dark, covered, frozen, turned away.

    One number per sample of the message that carries it; levels of luma from 0 to 255, measured on every
    `capture.luma.STEP`-th pixel in both directions, rounded to hundredths.
    """

    mean: tuple[Level, ...]
    variance: tuple[Level, ...]
    #: Mean absolute difference to the sample before; none for the first after a start or a change of size.
    difference: tuple[Level | None, ...]

    @property
    def count(self) -> int:
        """Samples that it tells of; -1 when its rows disagree."""
        counts = {len(self.mean), len(self.variance), len(self.difference)}
        return counts.pop() if len(counts) == 1 else -1

    def at(self, indices: Sequence[int]) -> SampleLuma:
        """Of these samples only."""
        return SampleLuma(
            mean=tuple(self.mean[i] for i in indices),
            variance=tuple(self.variance[i] for i in indices),
            difference=tuple(self.difference[i] for i in indices),
        )


def check_luma(luma: SampleLuma | None, sample_ns: Sequence[int]) -> None:
    """Refuse a message whose brightness is not that of its samples.

    Raises:
        ValueError: it has another number of them.
    """
    if luma is not None and luma.count != len(sample_ns):
        raise ValueError(f"luma: expected {len(sample_ns)} in each row, one for each sample")


class ClipTask(Frozen):
    """The message "this clip is ready": what inference consumes.

    `sample_ns` says which frames were chosen for analysis; a reader that decodes the clip's file takes the frames with
    these capture times and gets the same pictures as one that reads the ring.
    """

    v: Literal[1] = 1
    node_id: NodeId
    camera_id: CameraId
    epoch: Epoch
    #: Capture time of the epoch's first sample.
    epoch_started_ns: UtcNs
    #: Counts clips of one epoch from 0; a hole in it is a clip that is missing.
    clip_seq: Annotated[int, Field(ge=0)]
    start_ns: UtcNs
    duration_ns: Annotated[int, Field(ge=0)]
    #: Which of the camera's streams the clip was made from.
    stream: StreamName = "record"
    #: Capture times of the samples, UTC ns, growing.
    sample_ns: tuple[UtcNs, ...]
    #: Size of the samples, pixels.
    sample_width: Annotated[int, Field(ge=2, le=8192)]
    sample_height: Annotated[int, Field(ge=2, le=8192)]
    ring: RingRef | None = None
    #: Brightness of the samples; none when it was not measured: the clip was repaired after a kill.
    luma: SampleLuma | None = None
    #: Wall clock when the clip was closed.
    closed_ns: UtcNs

    @model_validator(mode="after")
    def _one_luma_each(self) -> ClipTask:
        check_luma(self.luma, self.sample_ns)
        return self

    @property
    def clip_id(self) -> ClipId:
        """The clip's identity."""
        return ClipId(camera_id=self.camera_id, epoch=self.epoch, start_ns=self.start_ns)

    @property
    def end_ns(self) -> int:
        """Capture time at which the clip ends."""
        return self.start_ns + self.duration_ns

    @property
    def uri(self) -> str:
        """Address of the clip: by identity, never by path."""
        return f"clip://{self.node_id}/{self.clip_id}"
