"""The inference stage against the bare engine: what reading, resizing, boxes and the bus take from it.

One way is the whole stage: clip tasks on a real Redis, samples in a ring, detections published, confirmed and taken by
a consumer.  The other is `session.run` on the same samples, prepared beforehand.  Both run the demo model on one engine
thread, in turn in one process; wall time, because overlapping is what the stage is built for.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from nodeagent.contract.clip import ClipId, ClipTask, RingRef
from nodeagent.contract.codec import encode_clip_task
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.report import Kind
from nodeagent.inference.description import read_description
from nodeagent.inference.letterbox import Letterbox
from nodeagent.inference.model import load_models
from nodeagent.inference.onnx_engine import OnnxEngine
from nodeagent.inference.pipeline import Pipeline
from nodeagent.infra.board import Board
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.topology import detections_queue
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.stop import Stop
from nodeagent.infra.video import I420Scaler
from nodeagent.infra.worker import WorkerContext
from nodeagent.ring import RingWriter
from tests.bench.harness import Compared, Result, compare, result
from tests.support.eventually import eventually
from tests.support.services import RedisServer

DEMO = Path(__file__).parents[2] / "nodeagent" / "demo"
MODEL = DEMO / "person_demo.toml"
#: A clip of 5 s at 5 samples per second.
SAMPLES = 25
BATCH = 4
WIDTH, HEIGHT = 640, 480
CAMERA = "bench"
NODE = "bench"
#: Longest wait for one round, seconds: far above what a busy machine takes.
ROUND_MAX_S = 120.0


def run(quick: bool) -> Iterator[Result]:
    """Samples per second through the stage, in units of the bare engine."""
    clips, rounds = (3, 3) if quick else (8, 7)
    cv2.setNumThreads(1)
    shm = Path("/dev/shm")
    with RedisServer() as redis, tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        stage = Stage(Path(folder), redis.url, clips)
        try:
            took = compare(stage.through, stage.bare, rounds, timer=time.perf_counter)
        finally:
            stage.close()
    yield _figure(took, clips)


def _figure(took: Compared, clips: int) -> Result:
    count = clips * SAMPLES
    how = (
        f"stage {count / took.a_s:.1f}, bare session.run {count / took.b_s:.1f} samples/s; demo model 416 x 416, "
        f"one engine thread, batch {BATCH}, {clips} clips of {SAMPLES} samples {WIDTH} x {HEIGHT} from the ring, "
        f"Redis Streams with confirm; best of {took.rounds}, interleaved, wall time"
    )
    return result("stage_efficiency", took.speed, "ratio", "", how)


class Stage:
    """A running pipeline with a full ring, and the same samples prepared for the bare engine."""

    def __init__(self, folder: Path, redis_url: str, clips: int) -> None:
        self._settings = Settings.model_validate(
            {
                "node": {"node_id": NODE, "state_dir": folder},
                "redis": {"url": redis_url},
                "models": [{"name": "demo", "file": MODEL}],
                "inference": {"batch": BATCH, "threads": 1},
            }
        )
        self._clips = clips
        samples = list(_samples(SAMPLES))
        self._writer = RingWriter.open(folder, CAMERA, 1, WIDTH, HEIGHT, SAMPLES)
        times = [(i + 1) * NS_PER_S // 5 for i in range(SAMPLES)]
        for i420, captured_ns in zip(samples, times, strict=True):
            self._writer.write(i420, captured_ns)
        ref = RingRef(generation=self._writer.generation, first_seq=self._writer.head - SAMPLES, count=SAMPLES)
        self._task = _task(times, ref)
        self._engine = OnnxEngine(read_description(MODEL), threads=1)
        self._feeds = list(_prepared(self._engine, samples))
        self._stop = Stop()
        self._buses: tuple[Bus, Bus] = (open_bus(self._settings), open_bus(self._settings))
        cell = Board.create(folder / "board", NODE, 1, 1, cells=1).claim("inference:0", Kind.INFERENCE)
        ctx = WorkerContext("inference:0", self._settings, cell, self._stop, SystemClock(), folder)
        pipeline = Pipeline(ctx, self._buses[0], load_models(self._settings))
        self._thread = threading.Thread(target=pipeline.run, name="stage")
        self._cell = cell
        self._ours = self._buses[1]
        eventually(lambda: self._ours.connected)
        self._ours.declare()
        self._ours.bind_camera(CAMERA)
        self._ours.consume(detections_queue(NODE, 0), prefetch=clips)
        self._thread.start()

    def through(self) -> None:
        """Offer clips and wait until the detections of all of them are here."""
        for _ in range(self._clips):
            self._ours.publish("clips", CAMERA, encode_clip_task(self._task))
        deadline = time.monotonic() + ROUND_MAX_S
        for _ in range(self._clips):
            delivery = self._ours.get(max(0.0, deadline - time.monotonic()))
            if delivery is None:
                raise AssertionError("the stage stands still")
            self._ours.ack(delivery)

    def bare(self) -> None:
        """Run the engine as often, on what is ready."""
        for _ in range(self._clips):
            for feed in self._feeds:
                self._engine.run_prepared(feed)

    def close(self) -> None:
        """Stop, and see that every sample came from the ring."""
        self._stop.request()
        self._thread.join(30)
        for bus in self._buses:
            bus.close()
        self._writer.close()
        if self._cell.get("from_ring") != self._cell.get("clips"):
            raise AssertionError("a clip was not read from the ring: this is not the figure that it says")


def _samples(count: int) -> Iterator[np.ndarray]:
    scale = I420Scaler(WIDTH, HEIGHT)
    with av.open(str(DEMO / "crossing.mp4")) as source:
        for number, frame in enumerate(source.decode(video=0)):
            if number % 2 == 0:
                yield scale(frame)
            if number // 2 == count - 1:
                return


def _prepared(engine: OnnxEngine, samples: list[np.ndarray]) -> Iterator[np.ndarray]:
    side = read_description(MODEL).input
    letterbox = Letterbox(WIDTH, HEIGHT, side)
    inputs = np.empty((len(samples), side.height, side.width, 3), np.uint8)
    for i420, out in zip(samples, inputs, strict=True):
        letterbox(i420, out)
    for start in range(0, len(samples), BATCH):
        yield engine.prepared(inputs[start : start + BATCH]).copy()


def _task(times: list[int], ref: RingRef) -> ClipTask:
    clip = ClipId(camera_id=CAMERA, epoch=1, start_ns=times[0])
    return ClipTask(
        node_id=NODE,
        camera_id=clip.camera_id,
        epoch=clip.epoch,
        epoch_started_ns=clip.start_ns,
        clip_seq=0,
        start_ns=clip.start_ns,
        duration_ns=5 * NS_PER_S,
        sample_ns=tuple(times),
        sample_width=WIDTH,
        sample_height=HEIGHT,
        ring=ref,
        closed_ns=clip.start_ns,
    )
