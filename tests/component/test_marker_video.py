"""The markers of the clusters that tests run: the model finds each of them and nothing else, in no time."""

from __future__ import annotations

import time
from pathlib import Path

import av
import numpy as np
import onnxruntime

from tests.support import markers
from tests.support.models import CELL, LABELS, marker_model

#: Cells that a square covers: it stands on their grid, so its edges bleed into no other one.
CELLS = round(markers.SIDE * markers.MODEL_WIDTH / markers.WIDTH / CELL) ** 2


def test_the_model_sees_red_and_green_when_they_are_there(tmp_path: Path) -> None:
    model = marker_model(tmp_path, width=markers.MODEL_WIDTH, height=markers.MODEL_HEIGHT).with_suffix(".onnx")
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    truth = markers.RED_S
    took_s, seen = [], set()
    with av.open(str(markers.marker_video(tmp_path / "markers.mp4"))) as video:
        for number, frame in enumerate(video.decode(video=0)):
            small = frame.reformat(markers.MODEL_WIDTH, markers.MODEL_HEIGHT, "rgb24").to_ndarray()
            began_s = time.perf_counter()
            (found,) = session.run(None, {"images": small.transpose(2, 0, 1)[None].astype(np.float32) / 255})
            took_s.append(time.perf_counter() - began_s)
            cells = dict(zip(LABELS, (found[0, 4:] > 0.5).sum(axis=1), strict=True))
            is_red = truth[0] <= number / markers.FPS < truth[1]
            assert cells == {"red": CELLS if is_red else 0, "green": CELLS, "blue": 0}, f"frame {number}"
            seen.add(is_red)
    assert seen == {True, False}
    assert min(took_s) < 0.001
