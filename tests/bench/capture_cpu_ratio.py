"""CPU of capture (record, decode, sample into the ring) against FFmpeg copying and decoding the same video.

Both sides read files as fast as they can, so only CPU time counts; capture runs the product's own path, with its
source thread, fsyncs, journal and ring.  FFmpeg copies into MP4, and decodes with one thread, in a process for each.
"""

from __future__ import annotations

import importlib
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from nodeagent.contract.camera import SampleMode
from nodeagent.contract.states import State
from tests.bench.harness import Result, result
from tests.support.capturing import Bench

#: What a 1080p camera sends: 25 frames/s, 4 Mbit/s, a key frame every two seconds, no B frames.
ENCODER = "-c:v libx264 -preset veryfast -profile:v main -bf 0 -g 50 -sc_threshold 0 -b:v 4M -maxrate 4M -bufsize 8M"
PICTURE = "testsrc2=size=1920x1080:rate=25,noise=alls=12:allf=t"
#: And its sub-stream: 640 wide, 0.5 Mbit/s.
SUB_ENCODER = ENCODER.replace("4M", "500k").replace("8M", "1M")
SUB_PICTURE = PICTURE.replace("1920x1080", "640x360")
SAMPLE_FPS = 5.0


def ffmpeg() -> str:
    """The system's FFmpeg, else the one of the package imageio-ffmpeg."""
    found = shutil.which("ffmpeg")
    return found or str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())


def cpu_s() -> float:
    """CPU seconds of this process, all of its threads, and its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def run(quick: bool) -> Iterator[Result]:
    """Capture of one stream, of two, of key frames alone and without analysis, against what FFmpeg needs for it."""
    seconds, rounds = (8, 2) if quick else (60, 8)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        subject = Subject(Path(folder), Path(memory), seconds)
        took = best_of(subject.ways(), rounds)
        size = subject.main.stat().st_size * 8 / seconds / 1e6
    how = f"CPU s per s of 1080p25 at {size:.1f} Mbit/s, {seconds} s, best of {rounds}, interleaved"
    each = {name: spent / seconds for name, spent in took.items()}
    plain = took["copy"] + took["decode"]
    detail = (
        f"capture, 640 wide samples at 5/s, {each['capture']:.4f} / FFmpeg copy + decode {plain / seconds:.4f}; {how}"
    )
    yield result("capture_cpu_ratio", took["capture"] / plain, "ratio", "<= 1.05", detail)
    plain = took["copy"] + took["sub_copy"] + took["sub_decode"]
    detail = f"{each['two']:.4f}, 640x360 analysed / FFmpeg copy of both + decode of that {plain / seconds:.4f}; {how}"
    yield result("two_streams_cpu_ratio", took["two"] / plain, "ratio", "<= 1.05", detail)
    added = took["keyframes"] - took["record"]
    detail = f"what key frames cost beyond recording {added / seconds:.4f} / FFmpeg decode {each['decode']:.4f}; {how}"
    yield result("keyframes_cpu_ratio", added / took["decode"], "ratio", "<= 0.10", detail)
    detail = f"capture without analysis {each['record']:.4f} / FFmpeg copy {each['copy']:.4f}; {how}"
    yield result("record_cpu_ratio", took["record"] / took["copy"], "ratio", "<= 1.0", detail)


def best_of(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """CPU seconds of each way's best round; all run in turn, once more to warm up."""
    took = {name: list[float]() for name in ways}
    for turn in range(rounds + 1):
        for name in ways if turn % 2 == 0 else reversed(ways):
            started = cpu_s()
            ways[name]()
            if turn:
                took[name].append(cpu_s() - started)
    return {name: min(spent) for name, spent in took.items()}


class Subject:
    """A camera's two streams as files, and the ways of treating them.

    Attributes:
        main, sub: the files.
    """

    def __init__(self, folder: Path, memory: Path, seconds: int) -> None:
        self._folder, self._memory, self._seconds = folder, memory, seconds
        self._turn = 0
        self.main = self._made("main.mp4", PICTURE, ENCODER)
        self.sub = self._made("sub.mp4", SUB_PICTURE, SUB_ENCODER)

    def _made(self, name: str, picture: str, encoder: str) -> Path:
        path = self._folder / name
        _ffmpeg(
            "-f", "lavfi", "-i", picture, "-t", str(self._seconds), *encoder.split(), "-pix_fmt", "yuv420p", str(path)
        )
        return path

    def ways(self) -> dict[str, Callable[[], object]]:
        """By name."""
        return {
            "capture": lambda: self._capture(self.main, "frames"),
            "keyframes": lambda: self._capture(self.main, "keyframes"),
            "record": lambda: self._capture(self.main, None),
            "two": lambda: (self._capture(self.main, None), self._capture(self.sub, "frames")),
            "copy": lambda: self._copy(self.main),
            "decode": lambda: self._decode(self.main),
            "sub_copy": lambda: self._copy(self.sub),
            "sub_decode": lambda: self._decode(self.sub),
        }

    def _capture(self, video: Path, mode: SampleMode | None) -> None:
        """Record, and analyse in this mode; none: record only."""
        self._turn += 1
        place = self._folder / f"turn{self._turn}"
        bench = Bench(place, sample_fps=SAMPLE_FPS, memory_dir=self._memory, slots=75, sample_mode=mode or "frames")
        if mode is None:
            bench.recorder.analyse(None)
        assert bench.record(video).state is State.SOURCE_ENDED
        bench.recorder.close()
        least = {"frames": self._seconds * SAMPLE_FPS, "keyframes": self._seconds / 2}[mode] if mode else 0
        assert bench.counts["samples"] >= least
        assert (mode is None) == (bench.counts["samples"] == 0)
        assert bench.counts["clips_made"] >= self._seconds // 6
        shutil.rmtree(place)

    def _copy(self, video: Path) -> None:
        _ffmpeg("-i", str(video), "-c", "copy", str(self._folder / "copy.mp4"))

    def _decode(self, video: Path) -> None:
        _ffmpeg("-threads", "1", "-i", str(video), "-f", "null", "-")


def _ffmpeg(*arguments: str) -> None:
    subprocess.run([ffmpeg(), "-y", "-nostdin", "-loglevel", "error", *arguments], check=True)
