"""CPU of capture (record, decode, sample into the ring) against FFmpeg copying and decoding the same video.

Both sides read a file as fast as they can, so only CPU time counts; capture runs the product's own path, with its
source thread, fsyncs, journal and ring.  FFmpeg runs twice, as two processes: copy into MP4, and decode with one
thread.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nodeagent.contract.states import State
from tests.bench.harness import Result, compare, result
from tests.support.capturing import Bench

#: What a 1080p camera sends: 25 frames/s, 4 Mbit/s, a key frame every two seconds, no B frames.
ENCODER = "-c:v libx264 -preset veryfast -profile:v main -bf 0 -g 50 -sc_threshold 0 -b:v 4M -maxrate 4M -bufsize 8M"
PICTURE = "testsrc2=size=1920x1080:rate=25,noise=alls=12:allf=t"


def ffmpeg() -> str:
    """The system's FFmpeg, else the one of the package imageio-ffmpeg."""
    found = shutil.which("ffmpeg")
    return found or str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())


def cpu_s() -> float:
    """CPU seconds of this process, all of its threads, and its children that have ended."""
    return sum(os.times()[:4])


def run(quick: bool) -> Iterator[Result]:
    """One figure: capture / (FFmpeg copy + FFmpeg decode)."""
    seconds, rounds = (8, 2) if quick else (60, 4)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        video = Path(folder) / "camera.mp4"
        _ffmpeg("-f", "lavfi", "-i", PICTURE, "-t", str(seconds), *ENCODER.split(), "-pix_fmt", "yuv420p", str(video))
        turn = iter(range(1000))

        def capture() -> None:
            place = Path(folder) / f"turn{next(turn)}"
            bench = Bench(place, memory_dir=Path(memory), slots=75)
            assert bench.record(video).state is State.SOURCE_ENDED
            bench.recorder.close()
            assert bench.counts["samples"] >= seconds * 5
            shutil.rmtree(place)

        def plain() -> None:
            _ffmpeg("-i", str(video), "-c", "copy", str(Path(folder) / "copy.mp4"))
            _ffmpeg("-threads", "1", "-i", str(video), "-f", "null", "-")

        took = compare(capture, plain, rounds, timer=cpu_s)
        yield result(
            "capture_cpu_ratio",
            took.cost,
            "ratio",
            "<= 1.05",
            f"capture, 640 wide samples at 5/s, {took.a_s / seconds:.4f} CPU s per s of video / ffmpeg copy + decode "
            f"{took.b_s / seconds:.4f}; 1080p25 at {video.stat().st_size * 8 / seconds / 1e6:.1f} Mbit/s, "
            f"{seconds} s, best of {rounds}, interleaved",
        )


def _ffmpeg(*arguments: str) -> None:
    subprocess.run([ffmpeg(), "-y", "-nostdin", "-loglevel", "error", *arguments], check=True)
