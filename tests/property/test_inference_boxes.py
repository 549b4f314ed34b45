"""Whatever a model says, the rows are rows: in range, in order, and what a plain suppression would keep."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nodeagent.contract.clip import ClipId
from nodeagent.contract.codec import Message
from nodeagent.contract.detections import ClipDetections
from nodeagent.inference.description import InputDescription, ModelDescription
from nodeagent.inference.letterbox import place
from nodeagent.inference.postprocess import BoxFinder, suppress
from nodeagent.inference.publisher import detections_of
from nodeagent.inference.work import Ended, Job
from nodeagent.infra.bus.port import Delivery
from tests.support.inference import EPOCH_NS, bare_task

sides = st.integers(1, 2000).map(lambda n: n * 2)
any_float = st.floats(width=32, allow_nan=True, allow_infinity=True)


def described(layout: str, labels: tuple[str, ...] = ("a", "b")) -> ModelDescription:
    return ModelDescription.model_validate(
        {
            "name": "m",
            "file": "m.onnx",
            "labels": labels,
            "input": {"width": 32, "height": 32},
            "output": {"layout": layout, "score_threshold": 0.3},
        }
    )


FINDERS = {layout: BoxFinder(described(layout)) for layout in ("yolov8", "yolox")}


@given(sides, sides, sides, sides, st.sampled_from(["centre", "top_left"]))
def test_the_picture_lies_in_the_input_and_keeps_its_shape(
    width: int, height: int, model_width: int, model_height: int, letterbox: str
) -> None:
    size = {"width": max(8, model_width), "height": max(8, model_height)}
    model = InputDescription.model_validate(size | {"letterbox": letterbox})
    at = place(width, height, model)
    assert min(at.left, at.top) >= 0
    assert at.left + at.width <= model.width
    assert at.top + at.height <= model.height
    assert min(at.width, at.height) >= 2
    ratio = min(model.width / width, model.height / height)
    assert abs(at.width - max(2, width * ratio)) <= 1 + 1e-6
    assert abs(at.height - max(2, height * ratio)) <= 1 + 1e-6


@settings(max_examples=60)
@given(
    st.data(),
    st.sampled_from(["yolov8", "yolox"]),
    st.integers(1, 3),
)
def test_any_numbers_make_valid_detections(data: st.DataObject, layout: str, batch: int) -> None:
    shape = (batch, 6, 21) if layout == "yolov8" else (batch, 21, 7)
    raw = data.draw(arrays(np.float32, shape, elements=any_float, fill=st.just(np.float32(0.5))))
    rows = FINDERS[layout](raw, place(64, 48, described(layout).input), 2)
    times = [EPOCH_NS + i for i in range(batch + 2)]
    task = bare_task(ClipId(camera_id="c", epoch=1, start_ns=EPOCH_NS), times)
    job = Job(Delivery("q", "c", Message(b""), 1), task, None, EPOCH_NS)
    found = detections_of(Ended(job, "ring", tuple(times)), rows[:0], EPOCH_NS)
    ClipDetections(found.header.model_copy(update={"labels": ("a", "b")}), rows)
    assert (rows["x2"] > rows["x1"]).all()
    assert (rows["y2"] > rows["y1"]).all()
    assert (rows["score"] >= np.float32(0.3)).all()
    assert ((rows["sample"] >= 2) & (rows["sample"] < batch + 2)).all()


def plain_suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, max_iou: float) -> list[int]:
    """The textbook's loop."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda n: (-scores[n], n)):
        overlaps = [_iou(boxes[i], boxes[k]) for k in kept if labels[k] == labels[i]]
        if all(overlap <= max_iou for overlap in overlaps):
            kept.append(i)
    return kept


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    inner = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner))


@given(
    st.lists(
        st.tuples(
            st.integers(-60, 60), st.integers(-60, 60), st.integers(1, 20), st.integers(1, 20),
            st.integers(30, 100), st.integers(0, 2),
        ),
        max_size=25,
    )
)  # fmt: skip
@example([(20, 20, 20, 20, 90, 0), (-21, -21, 20, 20, 80, 1)])  # as far apart as OpenCV moves labels
def test_suppression_is_the_textbooks(drawn: list[tuple[int, ...]]) -> None:
    table = np.array(drawn, np.float64).reshape(-1, 6)
    boxes = np.hstack([table[:, :2], table[:, :2] + table[:, 2:4]])
    scores, labels = (table[:, 4] / 100).astype(np.float32), table[:, 5].astype(np.intp)
    # An irrational limit: no drawn overlap lies on it, where rounding would decide.
    limit = 2**-0.5
    assert suppress(boxes, scores, labels, limit).tolist() == plain_suppress(boxes, scores, labels, limit)


@given(
    st.lists(
        st.tuples(st.integers(-40, 40), st.integers(-40, 40), st.integers(30, 100), st.integers(0, 1)), max_size=8
    ),
    st.sampled_from([-1e38, -1e6, -100.0, 100.0, 1e6, 1e38]),
    st.sampled_from([1.0, 1e6, 1e30, 3e38]),
)
def test_one_absurd_box_of_another_label_changes_nothing(
    drawn: list[tuple[int, int, int, int]], centre: float, side: float
) -> None:
    """Good boxes of labels 0 and 1, and one of label 2 that lies anywhere, of any size."""
    finder = BoxFinder(described("yolov8", labels=("a", "b", "c")))
    at = place(32, 32, described("yolov8").input)
    raw = np.zeros((1, 7, len(drawn) + 1), np.float32)
    for column, (x, y, percent, label) in enumerate(drawn):
        raw[0, :4, column] = (x, y, 10, 10)
        raw[0, 4 + label, column] = percent / 100
    without = finder(raw, at, 0)
    raw[0, :4, -1] = (centre, centre, side, side)
    raw[0, 6, -1] = 1.0
    rows = finder(raw, at, 0)
    assert rows[rows["label"] != 2].tolist() == without.tolist()
