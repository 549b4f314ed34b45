"""A model that cannot serve says which file, which field, what was expected and what was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nodeagent.contract.errors import BadModel
from nodeagent.inference.letterbox import place
from nodeagent.inference.model import check_model, load_model
from tests.support.models import Faults, marker_model


@pytest.mark.parametrize("layout", ["yolov8", "yolox"])
def test_a_good_model_is_described(tmp_path: Path, layout: str) -> None:
    info = check_model(marker_model(tmp_path, layout))
    assert (info.name, info.labels, info.width, info.height) == ("markers", ("red", "green", "blue"), 128, 96)
    assert info.layout == layout
    assert info.sha256.startswith(info.version)
    assert info.engine.startswith("onnxruntime")


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("layout", ["yolov8", "yolox"])
def test_markers_are_found_exactly(tmp_path: Path, layout: str, batch: int | None) -> None:
    model = load_model(marker_model(tmp_path, layout, faults=Faults(batch=batch)), threads=1)
    pictures = np.full((3, 96, 128, 3), 114, np.uint8)
    red = (255, 0, 0) if layout == "yolov8" else (0, 0, 255)
    pictures[1, 16:24, 40:48] = red
    pictures[2, 88:96, 120:128] = red[::-1]
    assert model.engine.describe().batch == batch
    (raw,) = model.engine.infer(pictures)
    rows = model.find(raw, place(128, 96, model.description.input), 0)
    assert rows[["sample", "label"]].tolist() == [(1, 0), (2, 2)]
    assert np.allclose([[r[c] for c in ("x1", "y1", "x2", "y2")] for r in rows], [
        [40 / 128, 16 / 96, 48 / 128, 24 / 96], [120 / 128, 88 / 96, 1, 1]
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "faults", "told"),
    [
        ("yolov8", Faults(outputs=2), "output: expected one output, found 2: found, scores"),
        ("yolov8", Faults(drop_rows=1), r"labels: expected .*4 \+ 3 labels.*which is 2 labels"),
        ("yolox", Faults(drop_rows=1), r"output.layout: expected \[b, 252, 5 \+ labels\].*251"),
        ("yolov8", Faults(labels=("a", "b")), r"labels: .*4 \+ 2 labels.*which is 3 labels"),
        ("yolox", Faults(labels=("a", "b")), r"labels: .*5 \+ 2 labels.*which is 3 labels"),
        ("yolov8", Faults(labels=None), "labels: expected, but missing"),
        ("yolov8", Faults(labels=()), "labels: "),
        ("yolov8", Faults(labels=("a", "a", "b")), "labels: expected different names"),
        ("yolov8", Faults(sigmoid_missing=True), "scores in 0..1"),
        ("yolov8", Faults(other_boxes=True), r"output.layout: expected boxes in pixels.* not in pixels"),
        ("yolox", Faults(other_boxes=True), r"output.layout: expected a raw head.*already decoded"),
        ("yolov8", Faults(double_input=True), r"input: expected tensor\(float\).*found tensor\(double\)"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, layout: str, faults: Faults, told: str) -> None:
    path = marker_model(tmp_path, layout, faults=faults)
    with pytest.raises(BadModel, match=told) as caught:
        check_model(path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('layout = "yolov8"', 'layout = "yolox"', "output.layout: expected"),
        ("width = 128", "width = 64", r"input: expected \[batch, 3, 96, 64\], found"),
        ("width = 128", "width = 128\nheigth = 3", "input.heigth: unknown key"),
        ("width = 128", 'width = "wide"', "input.width: .* found 'wide'"),
        ('colour = "rgb"', 'colour = "yuv"', "input.colour: .* found 'yuv'"),
        ('"1/255"', "0", "input.scale: .* found 0"),
        ('file = "markers.onnx"', 'file = "gone.onnx"', "gone.onnx: file: expected an ONNX file, cannot be read"),
        ('name = "markers"', 'name = "markers"\nsha256 = "' + "0" * 64 + '"', "sha256: expected 0000"),
        ('name = "markers"', "name = ", "expected TOML"),
    ],
)
def test_a_wrong_description_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = marker_model(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(BadModel, match=told):
        check_model(path)


def test_yolox_wants_sides_that_its_strides_divide(tmp_path: Path) -> None:
    path = marker_model(tmp_path, "yolox")
    path.write_text(path.read_text().replace("width = 128", "width = 120"))
    with pytest.raises(BadModel, match="input: expected multiples of 32"):
        check_model(path)


def test_every_fault_of_a_description_is_told(tmp_path: Path) -> None:
    path = marker_model(tmp_path)
    path.write_text(path.read_text().replace("width = 128", "width = 0").replace("height = 96", "height = 0"))
    with pytest.raises(BadModel, match=r"input.width: .*; input.height: "):
        check_model(path)


@pytest.mark.parametrize("body", [b"", b"no model at all", b"\x08\x08" * 500])
def test_a_file_that_is_no_model(tmp_path: Path, body: bytes) -> None:
    path = marker_model(tmp_path)
    (tmp_path / "markers.onnx").write_bytes(body)
    with pytest.raises(BadModel, match=r"markers\.onnx: "):
        check_model(path)


def test_a_description_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"gone.toml: expected a model's TOML"):
        check_model(tmp_path / "gone.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadModel, match="expected UTF-8"):
        check_model(tmp_path / "bytes.toml")
