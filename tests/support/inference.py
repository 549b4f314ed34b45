"""An inference pipeline and all around it: a bus in memory, a pool, a ring, and clips cut from the demo video."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from nodeagent.contract.clip import ClipId, ClipTask, RingRef, clip_file_name
from nodeagent.contract.codec import Message, decode_detections, encode_clip_task
from nodeagent.contract.detections import ClipDetections
from nodeagent.contract.errors import ConfigError, Unavailable
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.report import Kind
from nodeagent.inference.model import load_models
from nodeagent.inference.pipeline import Pipeline
from nodeagent.infra.board import Board
from nodeagent.infra.bus.port import Delivery
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.stop import Stop
from nodeagent.infra.storage import Storage, init_pool
from nodeagent.infra.video import I420Scaler, frames, opened
from nodeagent.infra.worker import WorkerContext
from nodeagent.ring import RingWriter
from tests.support.eventually import eventually

DEMO = Path(__file__).parents[2] / "nodeagent" / "demo"
#: Start of the first clip: a whole hour, UTC ns.
EPOCH_NS = 1_700_002_800_000_000_000
NODE = "n1"


class MemoryBus:
    """A broker in memory that keeps what was done with it."""

    def __init__(self) -> None:
        self.waiting: queue.Queue[Delivery] = queue.Queue()
        self.published: list[ClipDetections] = []
        self.acked: list[Delivery] = []
        self.put_aside: list[tuple[Delivery, str]] = []
        self.given_back: list[Delivery] = []
        self.bound: list[str] = []
        self.consumed: dict[str, int] = {}
        #: In the order in which they happened: published, acked, dead.
        self.history: list[str] = []
        #: Raised by `publish` and `declare` while it stands.
        self.away: Exception | None = None
        self.declare_fails: ConfigError | None = None

    def offer(self, message: Message, key: str = "cam1", attempt: int = 1) -> Delivery:
        delivery = Delivery(f"clips.{NODE}", key, message, attempt)
        self.waiting.put(delivery)
        return delivery

    def declare(self) -> None:
        if self.declare_fails:
            raise self.declare_fails
        if self.away:
            raise Unavailable(str(self.away))

    def bind_camera(self, camera_id: str) -> None:
        self.bound.append(camera_id)

    def unbind_camera(self, camera_id: str) -> None:
        self.bound.remove(camera_id)

    def unbind_clips(self, camera_id: str) -> None:
        self.bound.remove(camera_id)

    def publish(self, exchange: str, key: str, message: Message) -> None:
        if self.away:
            raise self.away
        self.published.append(decode_detections(message))
        self.history.append("published")

    def consume(self, queue: str, prefetch: int) -> None:
        self.consumed[queue] = prefetch

    def get(self, timeout_s: float) -> Delivery | None:
        try:
            return self.waiting.get(timeout=min(timeout_s, 0.05))
        except queue.Empty:
            return None

    def ack(self, delivery: Delivery) -> None:
        self.acked.append(delivery)
        self.history.append("acked")

    def nack(self, delivery: Delivery) -> None:
        self.given_back.append(delivery)

    def later(self, delivery: Delivery, delay_s: float) -> None:
        self.given_back.append(delivery)

    def dead(self, delivery: Delivery, reason: str) -> None:
        if self.away:
            raise self.away
        self.put_aside.append((delivery, reason))
        self.history.append("dead")

    def depth(self, queue: str) -> int:
        return self.waiting.qsize()

    @property
    def connected(self) -> bool:
        return self.away is None

    def close(self) -> None:
        pass


@dataclass
class Bench:
    """One pipeline, not running yet, and its surroundings."""

    ctx: WorkerContext
    bus: MemoryBus
    board: Board
    storage: Storage
    writers: dict[str, RingWriter] = field(default_factory=dict)

    def cut(self, video: Path, gops: int, clips: int, camera_id: str = "cam1") -> list[ClipId]:
        """Cut whole GOPs into clips of the pool, by stream copy; identities in order."""
        made: list[ClipId] = []
        with av.open(str(video)) as source:
            stream = source.streams.video[0]
            group: list[av.Packet] = []
            seen = 0
            for packet in source.demux(stream):
                seen += packet.is_keyframe
                if group and (packet.size == 0 or (packet.is_keyframe and (seen - 1) % gops == 0)):
                    made.append(self._write(camera_id, stream, group))
                    group = []
                if len(made) == clips:
                    break
                group.append(packet)
        return made

    def _write(self, camera_id: str, stream: av.VideoStream, packets: Sequence[av.Packet]) -> ClipId:
        first_s = float(packets[0].pts * packets[0].time_base)
        clip = ClipId(camera_id=camera_id, epoch=1, start_ns=EPOCH_NS + round(first_s * 1e9))
        duration_ns = round(sum(float(p.duration * p.time_base) for p in packets) * 1e9)
        path = self.storage.folder_for(camera_id, clip.start_ns) / clip_file_name(clip, duration_ns)
        with av.open(str(path), "w", format="mp4") as out:
            target = out.add_stream_from_template(stream)
            base = packets[0].pts
            for packet in packets:
                packet.pts -= base
                packet.dts = packet.pts
                packet.stream = target
                out.mux(packet)
        return clip

    def task(self, clip: ClipId, every: int = 2, width: int = 320, height: int = 240) -> ClipTask:
        """The task of a stored clip, every so many frames a sample, without a ring."""
        stored = self.storage.find(clip)
        assert stored is not None
        with opened(stored.path) as (container, stream):
            times = [time_ns for time_ns, _ in frames(container, stream, clip.start_ns)][::every]
        return bare_task(clip, times, stored.duration_ns, width, height)

    def fill_ring(self, task: ClipTask, slots: int = 64) -> ClipTask:
        """Write the task's samples as a capture does; the task with where they lie."""
        writer = self.writers.get(task.camera_id)
        if writer is None:
            size = (task.sample_width, task.sample_height)
            writer = RingWriter.open(self.ctx.memory_dir, task.camera_id, 1, *size, slots)
            self.writers[task.camera_id] = writer
        first = writer.head
        for captured_ns, i420 in zip(task.sample_ns, self.live_samples(task), strict=True):
            writer.write(i420, captured_ns)
        ref = RingRef(generation=writer.generation, first_seq=first, count=len(task.sample_ns))
        return task.model_copy(update={"ring": ref})

    def live_samples(self, task: ClipTask) -> Iterator[NDArray[np.uint8]]:
        """The samples as the demo video, uncut, gives them."""
        scale = I420Scaler(task.sample_width, task.sample_height)
        wanted = set(task.sample_ns)
        with opened(DEMO / "crossing.mp4") as (container, stream):
            for time_ns, frame in frames(container, stream, EPOCH_NS):
                if any(abs(time_ns - want) < 1000 for want in wanted):
                    yield scale(frame)
                if time_ns > max(wanted):
                    return

    def offer(self, task: ClipTask, attempt: int = 1) -> Delivery:
        return self.bus.offer(encode_clip_task(task), task.camera_id, attempt)

    def settled(self, count: int) -> None:
        """Wait until so many messages are acknowledged or put aside."""
        eventually(lambda: len(self.bus.acked) + len(self.bus.put_aside) >= count, within_s=20)

    @contextmanager
    def running(self) -> Iterator[list[int]]:
        """The pipeline in a thread; stopped at the end.  The list holds its exit code then."""
        code: list[int] = []
        pipeline = Pipeline(self.ctx, self.bus, load_models(self.ctx.settings))
        thread = threading.Thread(target=lambda: code.append(pipeline.run()))
        thread.start()
        try:
            yield code
        finally:
            self.ctx.stop.request()
            thread.join(30)
            assert not thread.is_alive()

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


def bare_task(
    clip: ClipId, times: Sequence[int], duration_ns: int = 5_000_000_000, width: int = 320, height: int = 240
) -> ClipTask:
    """A clip task of this node, without a ring."""
    return ClipTask(
        node_id=NODE,
        camera_id=clip.camera_id,
        epoch=clip.epoch,
        epoch_started_ns=EPOCH_NS,
        clip_seq=0,
        start_ns=clip.start_ns,
        duration_ns=duration_ns,
        sample_ns=tuple(times),
        sample_width=width,
        sample_height=height,
        closed_ns=clip.start_ns + duration_ns,
    )


def in_ring(
    bench: Bench,
    camera_id: str = "cam1",
    samples: int = 6,
    marked: tuple[int, ...] = (2, 5),
    start_ns: int = EPOCH_NS,
    shade: int = 90,
) -> ClipTask:
    """A task whose samples lie in the ring only: grey pictures, the marked ones with a green marker in cell (4, 3)."""
    times = [start_ns + i * NS_PER_S // 5 for i in range(samples)]
    task = bare_task(ClipId(camera_id=camera_id, epoch=1, start_ns=start_ns), times, width=128, height=96)
    if camera_id not in bench.writers:
        bench.writers[camera_id] = RingWriter.open(bench.ctx.memory_dir, camera_id, 1, 128, 96, 256)
    writer = bench.writers[camera_id]
    first_seq = writer.head
    for index, captured_ns in enumerate(times):
        picture = np.full((96, 128, 3), shade, np.uint8)
        if index in marked:
            picture[24:32, 32:40] = (0, 255, 0)
        writer.write(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), captured_ns)
    ref = {"generation": writer.generation, "first_seq": first_seq, "count": samples}
    return ClipTask.model_validate(task.model_dump() | {"ring": ref})


def make_bench(folder: Path, models: Sequence[Path], batch: int = 4, stop_timeout_s: float = 20.0) -> Bench:
    """A pipeline in `folder` with these models, named m0, m1, ..."""
    init_pool(folder / "pool")
    (folder / "state").mkdir()
    (folder / "memory").mkdir()
    settings = Settings.model_validate(
        {
            "node": {"node_id": NODE, "state_dir": folder / "state", "stop_timeout_s": stop_timeout_s},
            "pool": [{"path": folder / "pool", "reserve_gb": 0}],
            "models": [{"name": f"m{n}", "file": path} for n, path in enumerate(models)],
            "inference": {"batch": batch},
        }
    )
    board = Board.create(folder / "memory" / "board", NODE, 1, 1, cells=4)
    cell = board.claim("inference:0", Kind.INFERENCE)
    ctx = WorkerContext("inference:0", settings, cell, Stop(), SystemClock(), folder / "memory")
    return Bench(ctx, MemoryBus(), board, Storage(settings.pools))
