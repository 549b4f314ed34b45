"""A video for `marker_model`: coloured squares on the grid of its cells, at moments that are known exactly."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

#: The picture, and the model's input, which is the same picture at two fifths.
WIDTH, HEIGHT = 320, 240
MODEL_WIDTH, MODEL_HEIGHT = 128, 96
#: Frames per second, and a key frame a second.
FPS = 10
#: Length of the video, seconds: it is played in a loop, and an alarm a minute is more than most cameras make.
LOOP_S = 60
#: Seconds from the loop's start at which the red square comes and goes.
RED_S = (5.0, 7.0)
#: Where squares stand, pixels: left, top, and their side, which is two cells of the model.
RED_AT, GREEN_AT, SIDE = (40, 80), (240, 80), 40
#: The left half of the picture, where nothing red may be.
RED_ZONE = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
_GREY, _RED, _GREEN = (90, 90, 90), (255, 0, 0), (0, 255, 0)


def marker_video(path: Path, loop_s: float = LOOP_S) -> Path:
    """Write the video, `loop_s` long: a green square all the time, a red one as `RED_S` says."""
    with av.open(str(path), "w") as out:
        options = {
            "g": str(FPS),
            "keyint_min": str(FPS),
            "preset": "ultrafast",
            # One slice per picture: the RTSP server would repeat the headers before each.
            "x264-params": "threads=1:sliced-threads=0:open-gop=0:scenecut=0:bframes=0",
        }
        stream = out.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(round(loop_s * FPS)):
            frame = _picture(number / FPS)
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def _picture(at_s: float) -> av.VideoFrame:
    pixels = np.full((HEIGHT, WIDTH, 3), _GREY, np.uint8)
    _put(pixels, GREEN_AT, _GREEN)
    if RED_S[0] <= at_s < RED_S[1]:
        _put(pixels, RED_AT, _RED)
    return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")


def _put(pixels: np.ndarray, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    left, top = at
    pixels[top : top + SIDE, left : left + SIDE] = colour
