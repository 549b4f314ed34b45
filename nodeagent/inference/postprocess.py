"""A model's numbers to boxes.  Pure.

Candidates are chosen by score before anything else is computed, so the cost follows what is in the picture and not the
size of the head (measured: 0.1 ms against 0.7 ms a sample).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from nodeagent.contract.detections import DETECTION_DTYPE, Rows
from nodeagent.inference.description import YOLOX_STRIDES, ModelDescription
from nodeagent.inference.engine import Numbers
from nodeagent.inference.letterbox import Placement

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

#: Candidates of one sample that enter the suppression, whose cost grows with their square; the best stay.
CANDIDATES_MAX = 2000
#: How far a box may reach beyond the input, in sides of it: one that hangs over the edge keeps its shape.
SIDES_BEYOND = 1


class BoxFinder:
    """Reads the output of one model."""

    def __init__(self, model: ModelDescription) -> None:
        self._output = model.output
        self._input = model.input
        self._yolox = model.output.layout == "yolox"
        side = max(model.input.width, model.input.height)
        self._reach = (-SIDES_BEYOND * side, (1 + SIDES_BEYOND) * side)
        self._grid, self._stride = _grid(model.input.width, model.input.height)

    def __call__(self, raw: Numbers, placement: Placement, first_sample: int) -> Rows:
        """Boxes of one batch.

        Args:
            raw: the model's output, (b, ...), as described.
            placement: where the pictures lay in the input.
            first_sample: index of the batch's first sample in its clip.

        Returns:
            (n,) of DETECTION_DTYPE, ordered by sample, within a sample by falling score; corners in [0, 1] of the
            picture.  Boxes that lie outside of the picture are left out.
        """
        found = [self._rows(output, placement, first_sample + i) for i, output in enumerate(raw)]
        return np.concatenate(found) if found else np.empty(0, DETECTION_DTYPE)

    def _rows(self, output: Numbers, at: Placement, sample: int) -> Rows:
        boxes, scores, labels = self._yolox_boxes(output) if self._yolox else self._yolov8_boxes(output)
        # What lies further out is no part of any picture, and next to 1e30 all other numbers are equal.
        boxes = np.clip(boxes, *self._reach)
        keep = suppress(boxes, scores, labels, self._output.nms_iou)
        origin, size = (at.left, at.top), (at.width, at.height)
        low = np.clip((boxes[keep, :2] - origin) / size, 0.0, 1.0)
        high = np.clip((boxes[keep, 2:] - origin) / size, 0.0, 1.0)
        inside = (high > low).all(axis=1)
        keep, low, high = keep[inside], low[inside], high[inside]
        rows = np.empty(min(len(keep), self._output.max_boxes), DETECTION_DTYPE)
        rows["sample"] = sample
        rows["x1"], rows["y1"] = low[: len(rows)].T
        rows["x2"], rows["y2"] = high[: len(rows)].T
        rows["score"] = np.clip(scores[keep[: len(rows)]], 0.0, 1.0)
        rows["label"] = labels[keep[: len(rows)]]
        return rows

    def _yolov8_boxes(self, output: Numbers) -> tuple[Doubles, Numbers, Ints]:
        """(4 + labels, n), rows centre x, centre y, width, height, scores, to corners, score and label."""
        best = output[4:].max(axis=0)
        chosen = _best(np.flatnonzero(best >= self._output.score_threshold), best)
        labels = output[4:, chosen].argmax(axis=0)
        centre, half = output[:2, chosen].T.astype(np.float64), output[2:4, chosen].T.astype(np.float64) / 2
        return _finite(np.hstack([centre - half, centre + half]), best[chosen], labels)

    def _yolox_boxes(self, output: Numbers) -> tuple[Doubles, Numbers, Ints]:
        """(n, 5 + labels): offset x, y in cells, log of width, height in cells, objectness, scores.

        Decoding as the YOLOX paper (arXiv 2107.08430) has it: (xy + cell) * stride, exp(wh) * stride.
        """
        # Scores are at most 1, so nothing under the threshold here can rise above it below.
        chosen = np.flatnonzero(output[:, 4] >= self._output.score_threshold)
        labels = output[chosen, 5:].argmax(axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            best = output[chosen, 4] * output[chosen, 5 + labels]
        kept = _best(np.flatnonzero(best >= self._output.score_threshold), best)
        chosen = chosen[kept]
        stride = self._stride[chosen, None]
        centre = (output[chosen, :2] + self._grid[chosen]) * stride
        with np.errstate(over="ignore"):
            half = np.exp(output[chosen, 2:4].astype(np.float64)) * stride / 2
        return _finite(np.hstack([centre - half, centre + half]), best[kept], labels[kept])


def suppress(boxes: Doubles, scores: Numbers, labels: Ints, max_iou: float) -> Ints:
    """Non-maximum suppression within each label.

    Args:
        boxes: (n, 4) x1, y1, x2, y2, none of them far larger than a picture.
        scores: (n,).
        labels: (n,).
        max_iou: a box goes that overlaps a better one of its label by more than this.

    Returns:
        Indices of the boxes that stay, by falling score; of equal scores the lower index first.
    """
    if not len(boxes):
        return np.empty(0, np.intp)
    # OpenCV moves each label apart from the one before by the largest coordinate: that takes non-negative ones.
    sized = np.hstack([boxes[:, :2] - boxes[:, :2].min(), boxes[:, 2:] - boxes[:, :2]])
    # The arrays stand for the sequences of its type hints.
    kept = cv2.dnn.NMSBoxesBatched(sized, scores.astype(np.float32), labels.astype(np.int32), 0.0, max_iou)  # type: ignore[arg-type]
    indices = np.sort(np.asarray(kept, np.intp).reshape(-1))
    return indices[np.argsort(-scores[indices], kind="stable")]


def _best(chosen: Ints, scores: Numbers) -> Ints:
    """At most CANDIDATES_MAX of the chosen indices, the best of them, growing."""
    if len(chosen) <= CANDIDATES_MAX:
        return chosen
    order = np.argsort(-scores[chosen], kind="stable")[:CANDIDATES_MAX]
    return np.sort(chosen[order])


def _finite(boxes: Doubles, scores: Numbers, labels: Ints) -> tuple[Doubles, Numbers, Ints]:
    """Without boxes that are none: a broken model's infinities must not reach the arithmetic."""
    good = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    return boxes[good], scores[good], labels[good]


def _grid(width: int, height: int) -> tuple[Doubles, Doubles]:
    """Cell (n, 2) and stride (n,) of each row of a YOLOX head, rows of a level in reading order."""
    cells, strides = [], []
    for stride in YOLOX_STRIDES:
        y, x = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64))
        strides.append(np.full(x.size, float(stride)))
    return np.concatenate(cells), np.concatenate(strides)
