"""Pictures into a model's input.  Pure.

The three planes of a sample are resized before the colours are converted: on a smaller picture, and with half the bytes
of RGB.  Both of a clip's ways (ring, file) come through here with equal bytes, so they get equal inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from nodeagent.contract.errors import BadMedia
from nodeagent.inference.description import InputDescription
from nodeagent.inference.engine import Pixels


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the picture lies in the model's input, pixels; all even, because I420 has one colour per 2 x 2 pixels."""

    left: int
    top: int
    width: int
    height: int


def place(width: int, height: int, model: InputDescription) -> Placement:
    """Place a picture of `width` x `height` as large as it fits, its shape kept to within the even grid."""
    ratio = min(model.width / width, model.height / height)
    fit_width = min(_even(width * ratio), model.width // 2 * 2)
    fit_height = min(_even(height * ratio), model.height // 2 * 2)
    if model.letterbox == "top_left":
        return Placement(0, 0, fit_width, fit_height)
    return Placement((model.width - fit_width) // 2, (model.height - fit_height) // 2, fit_width, fit_height)


def _even(side: float) -> int:
    return max(2, 2 * round(side / 2))


class Letterbox:
    """Writes samples of one size into inputs of one model, without allocating."""

    def __init__(self, width: int, height: int, model: InputDescription) -> None:
        """For samples of `width` x `height`, both even.

        Raises:
            BadMedia: a side is odd or too small.
        """
        if width % 2 or height % 2 or min(width, height) < 2:
            raise BadMedia(f"sample of {width} x {height}: expected even sides")
        self.placement = place(width, height, model)
        self._source = (width, height)
        self._pad = model.pad
        self._colours = cv2.COLOR_YUV2RGB_I420 if model.colour == "rgb" else cv2.COLOR_YUV2BGR_I420
        self._small: Pixels = np.empty((self.placement.height * 3 // 2, self.placement.width), np.uint8)
        self._small_planes = _planes(self._small, self.placement.width, self.placement.height)

    def __call__(self, i420: Pixels, out: Pixels) -> None:
        """Write one sample into its input.

        Args:
            i420: (height * 3 // 2, width) uint8, contiguous; only read.
            out: (model height, model width, 3) uint8, contiguous; every byte of it is written.

        Raises:
            BadMedia: the sample has another size than was announced.
        """
        width, height = self._source
        if i420.shape != (height * 3 // 2, width):
            raise BadMedia(f"sample of shape {i420.shape}: expected {(height * 3 // 2, width)}")
        for plane, small in zip(_planes(i420, width, height), self._small_planes, strict=True):
            cv2.resize(plane, (small.shape[1], small.shape[0]), dst=small, interpolation=cv2.INTER_LINEAR)
        at = self.placement
        bottom, right = at.top + at.height, at.left + at.width
        out[: at.top] = self._pad
        out[bottom:] = self._pad
        out[at.top : bottom, : at.left] = self._pad
        out[at.top : bottom, right:] = self._pad
        cv2.cvtColor(self._small, self._colours, dst=out[at.top : bottom, at.left : right])


def _planes(i420: Pixels, width: int, height: int) -> tuple[Pixels, Pixels, Pixels]:
    """Views of Y (height, width) and of U and V (height / 2, width / 2)."""
    flat = i420.reshape(-1)
    luma, chroma = width * height, width * height // 4
    half = (height // 2, width // 2)
    u, v = flat[luma : luma + chroma].reshape(half), flat[luma + chroma :].reshape(half)
    return i420[:height], u, v
