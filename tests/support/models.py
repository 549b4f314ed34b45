"""Tiny ONNX models that find coloured markers exactly, in both output layouts, in well under a millisecond.

The picture is read in cells of `CELL` pixels: a cell filled with pure red (green, blue) scores about 1 for the label of
that name, grey of any brightness scores 0.  Each cell over the threshold is one box, the cell itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Side of a cell, pixels of the model's input: the finest stride of a YOLOX head.
CELL = 8
STRIDES = (8, 16, 32)
LABELS = ("red", "green", "blue")
#: Row c: how much each channel (r, g, b) speaks for label c.
COLOURS = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32)
OPSET = 17


@dataclass(frozen=True)
class Faults:
    """What to get wrong on purpose."""

    batch: int | None = None
    outputs: int = 1
    sigmoid_missing: bool = False
    drop_rows: int = 0
    labels: tuple[str, ...] | None = LABELS
    double_input: bool = False
    #: Boxes as the other kind of export writes them: in 0..1 (yolov8), decoded to pixels (yolox).
    other_boxes: bool = False


def marker_model(
    folder: Path,
    layout: str = "yolov8",
    width: int = 128,
    height: int = 96,
    name: str = "markers",
    faults: Faults | None = None,
    letterbox: str = "centre",
) -> Path:
    """Write `<name>.onnx` and `<name>.toml` into `folder`; return the TOML's path.

    `yolov8` takes RGB in 0..1, `yolox` BGR in 0..255, as the families do.
    """
    wrong = faults or Faults()
    graph = _graph(layout, width, height, wrong)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / f"{name}.onnx")
    labels = f"labels = {list(wrong.labels)!r}\n" if wrong.labels is not None else ""
    colour, scale = ("rgb", '"1/255"') if layout == "yolov8" else ("bgr", "1")
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\nfile = "{name}.onnx"\n{labels}\n'
        f'[input]\nwidth = {width}\nheight = {height}\ncolour = "{colour}"\nscale = {scale}\n'
        f'letterbox = "{letterbox}"\n\n[output]\nlayout = "{layout}"\nscore_threshold = 0.5\n'
    )
    return path


def _graph(layout: str, width: int, height: int, wrong: Faults) -> onnx.GraphProto:
    yolox = layout == "yolox"
    colours = COLOURS[:, ::-1] / 255 if yolox else COLOURS
    if wrong.sigmoid_missing:
        colours = colours * 0
    kind = TensorProto.DOUBLE if wrong.double_input else TensorProto.FLOAT
    source = helper.make_tensor_value_info("images", kind, [wrong.batch or "batch", 3, height, width])
    first = "picture" if wrong.double_input else "images"
    nodes = [helper.make_node("Cast", ["images"], ["picture"], to=TensorProto.FLOAT)] if wrong.double_input else []
    weights = np.ascontiguousarray(colours, dtype=np.float32).reshape(len(LABELS), 3, 1, 1)
    constants = {"colours": weights, "zero": np.float32(0), "one": np.float32(1)}
    offset = np.float32(-5 if wrong.sigmoid_missing else 0)
    nodes += [
        helper.make_node("Conv", [first, "colours"], ["spoken"], kernel_shape=[1, 1]),
        helper.make_node("AveragePool", ["spoken"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Clip", ["cells", "zero", "one"], ["clipped"]),
        helper.make_node("Add", ["clipped", "offset"], ["scored"]),
        helper.make_node("Reshape", ["scored", "flat"], ["scores"]),
    ]
    constants["offset"] = offset
    constants["flat"] = np.array([0, len(LABELS), -1], np.int64)
    tail, more, shape = (_yolox_tail if yolox else _yolov8_tail)(width, height, wrong.other_boxes)
    nodes += tail
    constants |= more
    result = "found"
    if wrong.drop_rows:
        constants |= {"cut_from": np.array([0]), "cut_to": np.array([-wrong.drop_rows]), "cut_axis": np.array([1])}
        nodes.append(helper.make_node("Slice", ["found", "cut_from", "cut_to", "cut_axis"], ["cut"]))
        result, shape = "cut", [None, None, None]
    outputs = [helper.make_tensor_value_info(result, TensorProto.FLOAT, shape)]
    if wrong.outputs == 2:
        outputs.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, None, None]))
    initial = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    return helper.make_graph(nodes, "markers", [source], outputs, initial)


_Tail = tuple[list[onnx.NodeProto], dict[str, np.ndarray], list[str | int | None]]


def _yolov8_tail(width: int, height: int, normalised: bool) -> _Tail:
    y, x = np.mgrid[: height // CELL, : width // CELL]
    centre = np.stack([x.ravel(), y.ravel()]).astype(np.float32) * CELL + CELL / 2
    boxes = np.concatenate([centre, np.full_like(centre, CELL)])[None]
    if normalised:
        boxes /= np.array([width, height, width, height], np.float32)[:, None]
    nodes = [
        helper.make_node("ReduceMax", ["scores"], ["top"], axes=[1], keepdims=1),
        # Nothing but the batch's size comes out of this: the boxes are constants.
        helper.make_node("Sub", ["top", "top"], ["nothing"]),
        helper.make_node("Add", ["nothing", "boxes"], ["placed"]),
        helper.make_node("Concat", ["placed", "scores"], ["found"], axis=1),
    ]
    return nodes, {"boxes": boxes}, ["batch", 4 + len(LABELS), boxes.shape[2]]


def _yolox_tail(width: int, height: int, decoded: bool) -> _Tail:
    sizes = [(width // stride) * (height // stride) for stride in STRIDES]
    boxes = np.zeros((1, sum(sizes), 5), np.float32)
    # Middle of the cell, one cell large (exp(0)), an object in every finest cell.
    boxes[:, : sizes[0]] = (0.5, 0.5, 0.0, 0.0, 1.0)
    if decoded:
        for stride, last in zip(STRIDES, np.cumsum(sizes), strict=True):
            y, x = np.mgrid[: height // stride, : width // stride]
            level = boxes[0, last - x.size : last]
            level[:, 0], level[:, 1] = (x.ravel() + 0.5) * stride, (y.ravel() + 0.5) * stride
            level[:, 2:4] = stride
    nodes = [
        helper.make_node("Transpose", ["scores"], ["by_cell"], perm=[0, 2, 1]),
        helper.make_node("Pad", ["by_cell", "coarse"], ["all_cells"]),
        helper.make_node("ReduceMax", ["all_cells"], ["top"], axes=[2], keepdims=1),
        helper.make_node("Sub", ["top", "top"], ["nothing"]),
        helper.make_node("Add", ["nothing", "boxes"], ["placed"]),
        helper.make_node("Concat", ["placed", "all_cells"], ["found"], axis=2),
    ]
    coarse = np.array([0, 0, 0, 0, sum(sizes[1:]), 0], np.int64)
    return nodes, {"boxes": boxes, "coarse": coarse}, ["batch", sum(sizes), 5 + len(LABELS)]
