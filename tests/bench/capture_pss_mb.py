"""Memory of a capture process, forked from the preloaded parent as in production: its share, without its ring."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nodeagent.contract.states import State
from nodeagent.infra.clock import SystemClock
from tests.bench.capture_cpu_ratio import ENCODER, PICTURE, _ffmpeg
from tests.bench.harness import Result, result
from tests.support.capturing import CAMERA, CaptureProcess, serve
from tests.support.eventually import eventually
from tests.support.services import RedisServer

MB = 1_000_000


def memory_of(pid: int) -> dict[str, int]:
    """Fields of `smaps_rollup`, bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def run(quick: bool) -> Iterator[Result]:
    """The proportional share (PSS) of one process among several, the ring in /dev/shm apart."""
    count = 2 if quick else 4
    redis = RedisServer()
    redis.start()
    try:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
            yield from _measure(Path(folder), Path(memory), redis.url, count, clips=1 if quick else 3)
    finally:
        redis.stop()


def _measure(folder: Path, memory: Path, redis_url: str, count: int, clips: int) -> Iterator[Result]:
    os.environ.update({"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    video = folder / "camera.mp4"
    _ffmpeg("-f", "lavfi", "-i", PICTURE, "-t", "6", *ENCODER.split(), "-pix_fmt", "yuv420p", str(video))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nodeagent.supervisor.preload", "tests.support.capturing"])
    captures, processes = [], []
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        capture = CaptureProcess(place, str(video), redis_url, loop=True)
        capture.cell.begin(SystemClock().wall_ns())
        args = (str(capture.config), CAMERA, str(capture.board_path), str(memory / str(number)))
        process = context.Process(target=serve, args=args)
        process.start()
        captures.append(capture)
        processes.append(process)
    try:
        for capture in captures:
            eventually(lambda: capture.state is State.CAPTURING and capture.count("clips_made") >= clips, within_s=90)  # noqa: B023
        found = [memory_of(process.pid or 0) for process in processes]
    finally:
        for process, capture in zip(processes, captures, strict=True):
            process.kill()
            process.join()
            capture.bus.close()
        multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]
    worst = max(found, key=lambda m: m["Pss"])
    private = worst["Private_Clean"] + worst["Private_Dirty"] - worst["Pss_Shmem"]
    yield result(
        "capture_pss_mb",
        (worst["Pss"] - worst["Pss_Shmem"]) / MB,
        "MB",
        "",
        f"PSS without the ring, the largest of {count} processes recording 1080p25; {private / MB:.1f} MB of it are "
        f"its own, the rest is its share of what was loaded before the fork; the ring {worst['Pss_Shmem'] / MB:.1f} MB",
    )
