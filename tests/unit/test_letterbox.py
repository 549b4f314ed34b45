"""Letterbox: where the picture lies, that nothing else is touched, and that its colours are right."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from nodeagent.contract.errors import BadMedia
from nodeagent.inference.description import InputDescription
from nodeagent.inference.letterbox import Letterbox, Placement, place


def described(**changes: object) -> InputDescription:
    return InputDescription.model_validate({"width": 416, "height": 416} | changes)


def i420(width: int, height: int, bgr: tuple[int, int, int]) -> np.ndarray:
    return cv2.cvtColor(np.full((height, width, 3), bgr, np.uint8), cv2.COLOR_BGR2YUV_I420)


@pytest.mark.parametrize(
    ("source", "letterbox", "expected"),
    [
        ((640, 360), "centre", Placement(0, 91, 416, 234)),
        ((640, 360), "top_left", Placement(0, 0, 416, 234)),
        ((768, 576), "centre", Placement(0, 52, 416, 312)),
        ((416, 416), "centre", Placement(0, 0, 416, 416)),
        ((100, 400), "centre", Placement(156, 0, 104, 416)),
        ((4000, 2), "centre", Placement(0, 207, 416, 2)),
    ],
)
def test_picture_is_placed_as_large_as_it_fits(source: tuple[int, int], letterbox: str, expected: Placement) -> None:
    assert place(*source, described(letterbox=letterbox)) == expected


@pytest.mark.parametrize(("colour", "expected"), [("rgb", (200, 60, 20)), ("bgr", (20, 60, 200))])
def test_colours_come_in_the_models_order(colour: str, expected: tuple[int, int, int]) -> None:
    box = Letterbox(64, 32, described(width=64, height=64, colour=colour, pad=7))
    out = np.zeros((64, 64, 3), np.uint8)
    box(i420(64, 32, (20, 60, 200)), out)
    assert np.abs(out[16:48].astype(int) - expected).max() <= 3
    assert (out[:16] == 7).all()
    assert (out[48:] == 7).all()


def test_every_byte_is_written_even_over_an_older_sample() -> None:
    model = described(width=96, height=64, pad=114)
    stale, fresh = np.full((64, 96, 3), 255, np.uint8), np.zeros((64, 96, 3), np.uint8)
    sample = np.random.default_rng(3).integers(0, 256, (72, 40), np.uint8)
    box = Letterbox(40, 48, model)
    box(sample, stale)
    box(sample, fresh)
    assert np.array_equal(stale, fresh)


def test_sample_is_only_read() -> None:
    sample = i420(64, 32, (1, 2, 3))
    before = sample.copy()
    sample.flags.writeable = False
    Letterbox(64, 32, described())(sample, np.empty((416, 416, 3), np.uint8))
    assert np.array_equal(sample, before)


def test_resizing_the_planes_first_comes_close_to_converting_first() -> None:
    ramp = np.linspace(0, 255, 640, dtype=np.float32)[None, :, None] * np.array([1, 0.5, 0.2], np.float32)
    picture = np.repeat(ramp, 360, axis=0).astype(np.uint8)
    sample = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)
    out = np.empty((234, 416, 3), np.uint8)
    Letterbox(640, 360, described(height=234))(sample, out)
    naive = cv2.resize(cv2.cvtColor(sample, cv2.COLOR_YUV2RGB_I420), (416, 234), interpolation=cv2.INTER_LINEAR)
    assert np.abs(out.astype(int) - naive).mean() < 1.0


def test_samples_of_another_size_are_refused() -> None:
    with pytest.raises(BadMedia, match="even sides"):
        Letterbox(63, 32, described())
    with pytest.raises(BadMedia, match="expected"):
        Letterbox(64, 32, described())(i420(64, 64, (0, 0, 0)), np.empty((416, 416, 3), np.uint8))
