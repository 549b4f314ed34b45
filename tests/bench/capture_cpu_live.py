"""CPU of capture processes on live RTSP cameras against FFmpeg processes on the same ones, all at the same time.

What a camera costs on a node: its whole process, network, beats, journal and bus included, at the camera's own pace.
FFmpeg reads the same streams beside it: in a process for each job, and in one process that does all of them.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.capture_cpu_ratio import SAMPLE_FPS, Subject, ffmpeg
from tests.bench.harness import Result, result
from tests.support.eventually import eventually
from tests.support.recording import RecordingNode, camera_toml
from tests.support.rtsp import RtspServer

#: Frames per second that the cameras send.
FPS = 25
#: From the last start until the first window, seconds: whatever starting costs is over.
SETTLE_S = 10.0
#: The video that a camera repeats, seconds.
VIDEO_S = 30


def cpu_clock_s(pid: int) -> float:
    """CPU seconds of a process so far, with all of its threads; Linux makes a clock's number out of its pid."""
    return time.clock_gettime((~pid << 3) | 2)


def run(quick: bool) -> Iterator[Result]:
    """Windows of some seconds, in each of which all run; the best window of each counts."""
    length_s, windows = (3.0, 1) if quick else (20.0, 6)
    with cameras() as pids:
        spent = best_of(pids, length_s, windows)
    how = f"CPU s per s, 1080p25 over RTSP, all at the same time, best of {windows} x {length_s:g} s"
    one, two, keys = (spent[f"capture {name}"] for name in ("one", "two", "keys"))
    plain, pair = spent["copy"] + spent["decode"], spent["copy"] + spent["sub copy"] + spent["sub decode"]
    yield result(
        "live_cpu_ratio",
        one / plain,
        "ratio",
        "<= 1.05",
        f"capture, {SAMPLE_FPS:g} samples/s, {one:.4f} / FFmpeg copy + FFmpeg decode {plain:.4f}; {how}",
    )
    yield result(
        "live_two_streams_cpu_ratio",
        two / pair,
        "ratio",
        "<= 1.05",
        f"main + sub {two:.4f} / FFmpeg copy of both + FFmpeg decode of the sub-stream {pair:.4f}; {how}",
    )
    for name, ours, theirs in (("one", one, "copy and decode"), ("two", two, "both")):
        detail = f"{ours:.4f} / one FFmpeg process that reads each stream once and does all of it {spent[theirs]:.4f}"
        yield result(f"live_{name}_process_cpu_ratio", ours / spent[theirs], "ratio", "", f"{detail}; {how}")
    detail = f"a camera of which key frames alone are looked at {keys:.4f} / all frames {one:.4f}; {how}"
    yield result("live_keyframes_cpu_ratio", keys / one, "ratio", "", detail)


@contextmanager
def cameras() -> Iterator[dict[str, int]]:
    """Capture processes and FFmpeg processes on the same cameras; their pids."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        subject = Subject(place, place, VIDEO_S)
        server = stack.enter_context(RtspServer({"main": subject.main, "sub": subject.sub}, FPS))
        main, sub = server.url("main"), server.url("sub")
        node = stack.enter_context(RecordingNode())
        sections = {
            "one": camera_toml("one", main),
            "two": camera_toml("two", main, analyse=sub),
            "keys": camera_toml("keys", main, {"sample_mode": "keyframes"}),
        }
        node.configure(sections)
        pids = {name: stack.enter_context(_ffmpeg(arguments)) for name, arguments in _jobs(place, main, sub).items()}
        for name in sections:
            node.capturing(name)
            eventually(lambda: node.counters(name)["clips_made"] >= 1, within_s=60)  # noqa: B023
        time.sleep(SETTLE_S)
        yield pids | {f"capture {name}": node.capturing(name) for name in sections}


def _jobs(place: Path, main: str, sub: str) -> dict[str, list[str]]:
    """Arguments of FFmpeg; decoding with one thread, as capture does."""
    read_main, read_sub = (["-threads", "1", "-rtsp_transport", "tcp", "-i", url] for url in (main, sub))
    nowhere = ["-f", "null", "-"]

    def copy(name: str, *chosen: str) -> list[str]:
        return [*chosen, "-c", "copy", str(place / f"{name}.copy.mp4")]

    return {
        "copy": [*read_main, *copy("main")],
        "decode": [*read_main, *nowhere],
        "sub copy": [*read_sub, *copy("sub")],
        "sub decode": [*read_sub, *nowhere],
        "copy and decode": [*read_main, *copy("one"), *nowhere],
        "both": [
            *read_main, *read_sub, *copy("a", "-map", "0"), *copy("b", "-map", "1"), "-map", "1", *nowhere,
        ],
    }  # fmt: skip


@contextmanager
def _ffmpeg(arguments: Sequence[str]) -> Iterator[int]:
    process = subprocess.Popen([ffmpeg(), "-y", "-nostdin", "-loglevel", "error", *arguments])
    try:
        yield process.pid
        assert process.poll() is None, f"FFmpeg ended: {' '.join(arguments)}"
    finally:
        process.terminate()
        process.wait()


def best_of(pids: Mapping[str, int], length_s: float, windows: int) -> dict[str, float]:
    """CPU seconds per second of each process in its best window."""
    best: dict[str, float] = {}
    for _ in range(windows):
        before, from_s = {name: cpu_clock_s(pid) for name, pid in pids.items()}, time.monotonic()
        time.sleep(length_s)
        for name, pid in pids.items():
            rate = (cpu_clock_s(pid) - before[name]) / (time.monotonic() - from_s)
            best[name] = min(rate, best.get(name, rate))
    return best
