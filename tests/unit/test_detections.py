"""Rows that are none are refused, whatever their numbers."""

from __future__ import annotations

import numpy as np
import pytest

from nodeagent.contract.detections import DETECTION_DTYPE, ClipDetections, DetectionsHeader
from nodeagent.contract.errors import DecodeError

HEADER = DetectionsHeader(
    node_id="n1",
    camera_id="c",
    epoch=1,
    epoch_started_ns=0,
    clip_seq=0,
    start_ns=0,
    duration_ns=1,
    samples_expected=2,
    sample_ns=(1, 2),
    sample_width=64,
    sample_height=48,
    model="m",
    model_version="1",
    labels=("a", "b"),
    path="ring",
)


def rows(count: int, **columns: object) -> np.ndarray:
    made = np.zeros(count, DETECTION_DTYPE)
    made["x2"] = made["y2"] = 0.5
    for name, values in columns.items():
        made[name] = values
    return made


def test_sound_rows_are_taken() -> None:
    sound = rows(3, sample=[0, 1, 1], label=[1, 0, 1], x1=[0, 0.25, 0.5])
    assert ClipDetections(HEADER, sound).rows is sound


@pytest.mark.parametrize(
    "sample",
    [[0, 2**31 - 1, -(2**31), -1, 0], [1, 0], [-1, 0], [0, 2]],
    ids=["differences_wrap", "falls", "below", "above"],
)
def test_samples_must_grow(sample: list[int]) -> None:
    with pytest.raises(DecodeError, match="sample must grow"):
        ClipDetections(HEADER, rows(len(sample), sample=sample))


@pytest.mark.parametrize("box", [{"x1": [0, 0.6]}, {"y1": [0, 0.6]}])
def test_an_inverted_box_is_named(box: dict[str, object]) -> None:
    with pytest.raises(DecodeError, match="box 1 is inverted"):
        ClipDetections(HEADER, rows(2, **box))


@pytest.mark.parametrize("column", [{"label": 2}, {"label": -1}, {"score": 1.5}, {"x2": np.nan}, {"y1": -0.1}])
def test_numbers_out_of_range_are_refused(column: dict[str, object]) -> None:
    with pytest.raises(DecodeError):
        ClipDetections(HEADER, rows(1, **column))
