"""Small videos for tests, made with PyAV: each frame carries its number as a row of black and white squares."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import cast

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
    codec: str = "libx264",
    sound: str = "",
) -> Path:
    """Write a file; key frames every `gop` frames exactly, closed GOPs; noise when a bit rate is asked for.

    `codec` is a video encoder of FFmpeg, `sound` one for a tone next to the video.
    """
    noise = np.random.default_rng(7).integers(0, 256, (height, width), np.uint8) if bit_rate else None
    with av.open(str(path), "w", format=container) as out:
        options = _options(codec, gop, b_frames)
        stream = cast("av.VideoStream", out.add_stream(codec, rate=fps, options=options))
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if bit_rate:
            stream.bit_rate = bit_rate
        tone = _Tone(out, sound) if sound else None
        for number in range(round(seconds * fps)):
            frame = picture(first_number + number, width, height, noise)
            if codec == "mjpeg":
                frame = frame.reformat(format="yuvj420p")
            frame.pts = number
            out.mux(stream.encode(frame))
            if tone is not None:
                tone.up_to((number + 1) / fps)
        out.mux(stream.encode(None))
        if tone is not None:
            tone.end()
    return path


def _options(codec: str, gop: int, b_frames: int) -> dict[str, str]:
    if codec == "libx265":
        return {
            "preset": "ultrafast",
            "x265-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:bframes={b_frames}"
            ":pools=none:frame-threads=1:slices=1:log-level=none",
        }
    if codec == "libsvtav1":
        return {"preset": "12", "g": str(gop), "svtav1-params": "lp=1"}
    if codec != "libx264":
        return {}
    return {
        "g": str(gop),
        "keyint_min": str(gop),
        "sc_threshold": "0",
        "bf": str(b_frames),
        "preset": "ultrafast" if not b_frames else "veryfast",
        # One slice per picture: the RTSP server would repeat the headers before each.
        "x264-params": f"threads=1:sliced-threads=0:open-gop=0:scenecut=0:bframes={b_frames}:b-adapt=0",
    }


class _Tone:
    """A track with a tone, written along with the video."""

    def __init__(self, out: av.container.OutputContainer, codec: str) -> None:
        rate = 8000 if codec.startswith("pcm") else 48000
        self._out, self._rate, self._done = out, rate, 0
        self._stream = cast("av.AudioStream", out.add_stream(codec, rate=rate, layout="mono"))
        self._fifo = av.AudioFifo()
        self._resampler = av.AudioResampler(self._stream.codec_context.format, "mono", rate)

    def up_to(self, end_s: float) -> None:
        """Write as far as the video is."""
        count = round(end_s * self._rate) - self._done
        wave = np.sin(np.arange(self._done, self._done + count) * 2 * np.pi * 440 / self._rate)
        frame = av.AudioFrame.from_ndarray((wave * 8000).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = self._rate, self._done
        frame.time_base = Fraction(1, self._rate)
        self._done += count
        for piece in self._resampler.resample(frame):
            self._fifo.write(piece)
        size = self._stream.codec_context.frame_size
        while (ready := self._fifo.read(size, partial=not size)) is not None:
            self._out.mux(self._stream.encode(ready))

    def end(self) -> None:
        """Write what the encoder holds back."""
        self._out.mux(self._stream.encode(None))


def codec_of(path: Path) -> str:
    """Name of the codec of a file's video."""
    with av.open(str(path)) as source:
        return source.streams.video[0].codec_context.name


def annex_b(path: Path) -> bytes:
    """The file's H.264 or H.265 stream as Annex B with access unit delimiters, for the RTSP server; MJPEG as it is."""
    raw = io.BytesIO()
    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        codec = stream.codec_context.name
        if codec == "mjpeg":
            return b"".join(bytes(packet) for packet in source.demux(stream))
        with av.open(raw, "w", format=codec) as out:
            target = out.add_stream_from_template(stream, opaque=True)
            delimit = av.BitStreamFilterContext(f"{codec}_mp4toannexb,{codec}_metadata=aud=insert", stream)
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
