"""Boxes out of a model's numbers, in both layouts."""

from __future__ import annotations

import numpy as np

from nodeagent.contract.detections import DETECTION_DTYPE
from nodeagent.inference import postprocess
from nodeagent.inference.description import ModelDescription
from nodeagent.inference.letterbox import Placement
from nodeagent.inference.postprocess import BoxFinder, suppress

WHOLE = Placement(0, 0, 64, 64)


def described(layout: str, **output: object) -> ModelDescription:
    return ModelDescription.model_validate(
        {
            "name": "m",
            "file": "m.onnx",
            "labels": ["a", "b"],
            "input": {"width": 64, "height": 64},
            "output": {"layout": layout, "score_threshold": 0.5} | output,
        }
    )


def yolov8(*boxes: tuple[float, ...]) -> np.ndarray:
    """One sample: (1, 6, n) of centre x, centre y, width, height, score a, score b."""
    return np.array(boxes, np.float32).T[None]


def test_yolov8_rows_become_corners_in_the_picture() -> None:
    raw = yolov8((16, 32, 8, 16, 0.9, 0.1), (48, 16, 16, 16, 0.2, 0.8), (40, 40, 8, 8, 0.4, 0.3))
    rows = BoxFinder(described("yolov8"))(raw, WHOLE, 7)
    assert rows.dtype == DETECTION_DTYPE
    assert rows.tolist() == [
        (7, 0.1875, 0.375, 0.3125, 0.625, np.float32(0.9), 0),
        (7, 0.625, 0.125, 0.875, 0.375, np.float32(0.8), 1),
    ]


def test_the_letterbox_is_undone() -> None:
    rows = BoxFinder(described("yolov8"))(yolov8((32, 32, 32, 16, 0.9, 0)), Placement(0, 16, 64, 32), 0)
    assert [rows[name][0] for name in ("x1", "y1", "x2", "y2")] == [0.25, 0.25, 0.75, 0.75]


def test_boxes_are_clipped_and_those_outside_of_the_picture_left_out() -> None:
    raw = yolov8((0, 32, 16, 16, 0.9, 0), (32, 6, 8, 8, 0.9, 0), (60, 60, 80, 80, 0, 0.7))
    rows = BoxFinder(described("yolov8"))(raw, Placement(0, 16, 64, 32), 0)
    assert rows["x1"].min() >= 0
    assert rows["y2"].max() <= 1
    assert rows["label"].tolist() == [0, 1]


def test_yolox_grid_is_decoded_on_every_stride() -> None:
    raw = np.zeros((1, 64 + 16 + 4, 7), np.float32)
    raw[0, 8 * 2 + 3] = (0.5, 0.5, np.log(2), 0, 0.9, 1.0, 0)  # stride 8, column 3, row 2
    raw[0, 64 + 4 * 1 + 2] = (0.25, 0, 0, 0, 1.0, 0, 0.8)  # stride 16, column 2, row 1
    raw[0, 64 + 16 + 1] = (0, 1, 0, 0, 0.7, 0.6, 0.9)  # stride 32, column 1, row 0
    rows = BoxFinder(described("yolox"))(raw, WHOLE, 0)
    corners = {(r["label"], *(round(float(r[c]) * 64) for c in ("x1", "y1", "x2", "y2"))) for r in rows}
    assert corners == {(0, 20, 16, 36, 24), (1, 28, 8, 44, 24), (1, 16, 16, 48, 48)}
    assert np.allclose(sorted(rows["score"]), [0.63, 0.8, 0.9])


def test_rows_are_ordered_by_sample_then_score() -> None:
    one = yolov8((16, 16, 8, 8, 0.6, 0), (48, 48, 8, 8, 0.9, 0))
    rows = BoxFinder(described("yolov8"))(np.concatenate([one, one]), WHOLE, 4)
    assert rows["sample"].tolist() == [4, 4, 5, 5]
    assert np.allclose(rows["score"], [0.9, 0.6, 0.9, 0.6])


def test_only_the_best_boxes_stay() -> None:
    raw = yolov8(*[(4 + 8 * (i % 8), 4 + 8 * (i // 8), 6, 6, 0.5 + i / 100, 0) for i in range(40)])
    rows = BoxFinder(described("yolov8", max_boxes=3))(raw, WHOLE, 0)
    assert np.allclose(rows["score"], [0.89, 0.88, 0.87])


def test_candidates_are_bounded_by_score() -> None:
    chosen = postprocess._best(np.arange(5000), np.linspace(0, 1, 5000))
    assert chosen.tolist() == list(range(5000 - postprocess.CANDIDATES_MAX, 5000))


def test_numbers_that_are_none_never_become_boxes() -> None:
    raw = yolov8((np.nan, 8, 8, 8, 0.9, 0), (8, 8, np.inf, 8, 0.9, 0), (8, 8, 8, 8, np.nan, 0), (8, 8, 8, 8, 0.9, 0))
    assert len(BoxFinder(described("yolov8"))(raw, WHOLE, 0)) == 1
    raw = np.zeros((1, 84, 7), np.float32)
    raw[0, 0] = (0, 0, 1e9, 1e9, 1, 1, 0)
    # Objectness and score whose product is no number of their type any more.
    raw[0, 1] = (0, 0, 0, 0, 1e30, 1e30, 0)
    raw[0, 2] = (0, 0, 0, 0, np.inf, 0, 0)
    assert len(BoxFinder(described("yolox"))(raw, WHOLE, 0)) == 0


def test_suppression_minds_the_label() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10]], np.float64)
    scores, labels = np.array([0.8, 0.9, 0.7], np.float32), np.array([0, 0, 1])
    assert suppress(boxes, scores, labels, 0.5).tolist() == [1, 2]
    assert suppress(boxes, scores, labels, 0.9).tolist() == [1, 0, 2]
    assert suppress(np.empty((0, 4)), np.empty(0, np.float32), np.empty(0, np.intp), 0.5).tolist() == []
