"""Small H.264 files for tests, made with PyAV: every frame carries its number as a row of black and white squares."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from nodeagent.contract.errors import BadMedia

#: Bits of the frame counter, and the side of one bit's square as a part of the picture's width.
COUNTER_BITS = 16
BLACK, WHITE = 40, 210


def picture(number: int, width: int, height: int, noise: NDArray[np.uint8] | None = None) -> av.VideoFrame:
    """Frame `number`: a grey ramp that moves, the counter in its top row of squares."""
    luma = np.tile(((np.arange(width) * 2 + number * 3) % 160 + 48).astype(np.uint8), (height, 1))
    if noise is not None:
        luma = np.roll(noise, (number * 7 % height, number * 13 % width), (0, 1)) // 4 + luma // 4 * 3
    side = width // COUNTER_BITS
    for bit in range(COUNTER_BITS):
        luma[:side, bit * side : (bit + 1) * side] = WHITE if number >> bit & 1 else BLACK
    flat = np.full((height * 3 // 2, width), 128, np.uint8)
    flat[:height] = luma
    return av.VideoFrame.from_ndarray(flat, format="yuv420p")


def read_counter(luma: NDArray[np.uint8]) -> int:
    """Number of the frame from its luma, (height, width), at any scale."""
    side = luma.shape[1] / COUNTER_BITS
    middles = [round((bit + 0.5) * side) for bit in range(COUNTER_BITS)]
    row = luma[round(side / 2)]
    return sum(1 << bit for bit, x in enumerate(middles) if row[x] > (BLACK + WHITE) // 2)


def make_video(
    path: Path,
    *,
    width: int = 320,
    height: int = 240,
    fps: int = 10,
    gop: int = 10,
    seconds: float = 10.0,
    b_frames: int = 0,
    bit_rate: int = 0,
    container: str | None = None,
    first_number: int = 0,
) -> Path:
    """Write an H.264 file; key frames every `gop` frames exactly, closed GOPs; noise when a bit rate is asked for."""
    options = {
        "g": str(gop),
        "keyint_min": str(gop),
        "sc_threshold": "0",
        "bf": str(b_frames),
        "preset": "ultrafast" if not b_frames else "veryfast",
        # One slice per picture: the RTSP server would repeat the headers before each.
        "x264-params": f"threads=1:sliced-threads=0:open-gop=0:scenecut=0:bframes={b_frames}:b-adapt=0",
    }
    noise = np.random.default_rng(7).integers(0, 256, (height, width), np.uint8) if bit_rate else None
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if bit_rate:
            stream.bit_rate = bit_rate
        for number in range(round(seconds * fps)):
            frame = picture(first_number + number, width, height, noise)
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def annex_b(path: Path) -> bytes:
    """The file's H.264 stream as Annex B with access unit delimiters, for the RTSP server."""
    raw = io.BytesIO()
    with av.open(str(path)) as source, av.open(raw, "w", format="h264") as out:
        stream = source.streams.video[0]
        target = out.add_stream_from_template(stream)
        delimit = av.BitStreamFilterContext("h264_mp4toannexb,h264_metadata=aud=insert", stream)
        for packet in source.demux(stream):
            for part in delimit.filter(packet if packet.size else None):
                part.stream = target
                out.mux(part)
    return raw.getvalue()


def count_frames(path: Path) -> list[int]:
    """Counters of all frames of a file, in order of time; raises when anything in it does not decode."""
    with av.open(str(path), options={"err_detect": "explode"}) as source:
        stream = source.streams.video[0]
        stream.codec_context.thread_count = 1
        return [read_counter(frame.to_ndarray(format="gray")) for frame in source.decode(stream)]


def decode_all(path: Path) -> int:
    """Decode every frame of a file and return how many there are.

    Raises:
        BadMedia: anything in it does not decode, or it holds no frame.
    """
    try:
        with av.open(str(path), options={"err_detect": "explode"}) as source:
            stream = source.streams.video[0]
            stream.codec_context.thread_count = 1
            frames = sum(1 for _ in source.decode(stream))
    except (av.FFmpegError, IndexError) as exc:
        raise BadMedia(str(exc)) from exc
    if not frames:
        raise BadMedia("no frames")
    return frames
