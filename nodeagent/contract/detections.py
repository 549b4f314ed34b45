"""What a model saw in one clip: a structured array for the boxes, a small header for the rest.

On the wire both are the body: the header as JSON, then the array as `.npy` bytes (never unpickled).
"""

from __future__ import annotations

import ast
import io
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from nodeagent.contract.clip import ClipId, SampleLuma, check_luma
from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import CameraId, Epoch, Frozen, NodeId, UtcNs

#: One row per box.  `sample` indexes `DetectionsHeader.sample_ns`; corners are in [0, 1] of the analysed frame;
#: `label` indexes `DetectionsHeader.labels`.
DETECTION_DTYPE = np.dtype(
    [
        ("sample", "<i4"),
        ("x1", "<f4"),
        ("y1", "<f4"),
        ("x2", "<f4"),
        ("y2", "<f4"),
        ("score", "<f4"),
        ("label", "<i2"),
    ]
)
#: Bytes before the header of an `.npy` of version 1.0: magic, version, length of the header.
_NPY_PREFIX = 10
#: Longest beginning of an `.npy` that is parsed, bytes; ours takes 256.
NPY_HEADER_MAX = 1024
Rows = npt.NDArray[np.void]


class DetectionsHeader(Frozen):
    """All of a clip's detections but the boxes."""

    v: Literal[1] = 1
    node_id: NodeId
    camera_id: CameraId
    epoch: Epoch
    epoch_started_ns: UtcNs
    clip_seq: Annotated[int, Field(ge=0)]
    start_ns: UtcNs
    duration_ns: Annotated[int, Field(ge=0)]
    #: `ok`: `sample_ns` were all looked at.  `unknown`: they were not; nothing may be concluded from empty rows.
    outcome: Literal["ok", "unknown"] = "ok"
    #: Why the outcome is unknown.
    reason: str = ""
    #: Samples the clip task named; at least `len(sample_ns)`.
    samples_expected: Annotated[int, Field(ge=0)]
    #: Capture times of the samples that were inferred, growing.
    sample_ns: tuple[UtcNs, ...]
    sample_width: Annotated[int, Field(ge=2, le=8192)]
    sample_height: Annotated[int, Field(ge=2, le=8192)]
    #: Brightness of the samples, as the clip task told it.
    luma: SampleLuma | None = None
    model: str
    model_version: str
    labels: tuple[str, ...]
    #: Where the samples were read from.
    path: Literal["ring", "clip", "none"]
    #: Wall clock, UTC ns, by name of the step: `closed`, `inference_started`, `inference_done`.
    timings: dict[str, int] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_luma_each(self) -> DetectionsHeader:
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


@dataclass(frozen=True, slots=True, eq=False)
class ClipDetections:
    """A clip's detections: header and rows.

    Attributes:
        header: identity, samples, model, timings.
        rows: (n,) of DETECTION_DTYPE, ordered by `sample`.
    """

    header: DetectionsHeader
    rows: Rows

    def __post_init__(self) -> None:
        rows, header = self.rows, self.header
        if rows.dtype != DETECTION_DTYPE or rows.ndim != 1:
            raise DecodeError(f"detections: expected 1 dimension of {DETECTION_DTYPE}, got {rows.dtype} {rows.shape}")
        if not len(rows):
            return
        sample, label = rows["sample"], rows["label"]
        # Compared, not subtracted: a difference of two int32 may wrap.
        if sample[0] < 0 or sample[-1] >= len(header.sample_ns) or np.any(sample[1:] < sample[:-1]):
            raise DecodeError("detections: sample must grow and index sample_ns")
        if label.min() < 0 or label.max() >= len(header.labels):
            raise DecodeError("detections: label must index labels")
        numbers = np.stack([rows[name] for name in ("x1", "y1", "x2", "y2", "score")])
        if not np.isfinite(numbers).all() or numbers.min() < 0.0 or numbers.max() > 1.0:
            raise DecodeError("detections: boxes and scores must lie in [0, 1]")
        inverted = (rows["x2"] < rows["x1"]) | (rows["y2"] < rows["y1"])
        if inverted.any():
            raise DecodeError(f"detections: box {int(inverted.argmax())} is inverted: x1 <= x2 and y1 <= y2")

    def npy(self) -> bytes:
        """The rows as `.npy` bytes."""
        out = io.BytesIO()
        np.save(out, self.rows, allow_pickle=False)
        return out.getvalue()


def rows_from_npy(body: bytes) -> Rows:
    """Read rows written by `ClipDetections.npy`.

    Raises:
        DecodeError: not such bytes.
    """
    # Not by `np.load`: its fallback for headers of Python 2 tokenises them, and lets more than ValueError out.
    start = _NPY_PREFIX + int.from_bytes(body[8:_NPY_PREFIX], "little")
    if body[:8] != b"\x93NUMPY\x01\x00" or not _NPY_PREFIX < start <= min(len(body), NPY_HEADER_MAX):
        raise DecodeError("detections: not .npy bytes", body)
    try:
        header = ast.literal_eval(body[_NPY_PREFIX:start].decode("ascii"))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as exc:
        raise DecodeError(f"detections: not an .npy header ({type(exc).__name__})", body) from None
    count, rest = divmod(len(body) - start, DETECTION_DTYPE.itemsize)
    if rest or header != {"descr": DETECTION_DTYPE.descr, "fortran_order": False, "shape": (count,)}:
        raise DecodeError("detections: an array of another shape or type", body)
    return np.frombuffer(body, DETECTION_DTYPE, offset=start).copy()
