"""A judge on RabbitMQ unbinds the cameras that its node serves no more, and only those."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.codec import Message, encode_detections
from nodeagent.contract.errors import Refused
from nodeagent.contract.report import Kind
from nodeagent.infra.board import Board
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.topology import CLIPS, CLIPS_SPILL, DETECTIONS, clips_queue
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.redis import connect_redis
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.stop import Stop
from nodeagent.infra.wanted import Wanted, write_wanted
from nodeagent.infra.worker import EXIT_OK, WorkerContext
from nodeagent.judge import leavers
from nodeagent.judge.store import JudgeStore
from nodeagent.judge.worker import JudgeWorker, _Peers
from tests.support.buses import make_bus, trying
from tests.support.eventually import eventually
from tests.support.scenarios import Scene, changed

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]

CLIP = Scene((), 5.0).clips()[0]
#: Of an unbound camera nothing comes within this long.
AFTER_S = 0.5


@dataclass
class Bench:
    """A judge in a thread, and a bus of our own beside its."""

    folder: Path
    rabbitmq_url: str
    redis_url: str
    stop: Stop = field(default_factory=Stop)
    version: int = 0
    code: int | None = None

    def __post_init__(self) -> None:
        self.bus: Bus = make_bus(self.rabbitmq_url)
        self.judges: Bus = make_bus(self.rabbitmq_url)
        trying(self.bus.declare)

    def want(self, *cameras: str) -> None:
        self.version += 1
        specs = [CameraSpec.model_validate({"camera_id": name, "record": {"url": "a.mp4"}}) for name in cameras]
        write_wanted(self.folder / "wanted.json", Wanted(self.version, tuple(specs)))

    def judge(self) -> None:
        settings = Settings.model_validate({"node": {"node_id": "n1", "state_dir": str(self.folder)}})
        cell = Board.create(self.folder / "board", "n1", 1, 1).claim("judge:0", Kind.JUDGE)
        ctx = WorkerContext("judge:0", settings, cell, self.stop, SystemClock(), self.folder)
        store = JudgeStore(connect_redis(self.redis_url), self.folder, ctx.clock)
        worker = JudgeWorker(ctx, 0, _Peers(self.judges, store))

        def run() -> None:
            self.code = worker.run()

        self.thread = threading.Thread(target=run)
        self.thread.start()
        eventually(lambda: cell.is_ready)
        self.cell = cell

    def routed(self, camera: str) -> bool:
        """Whether this camera's detections go anywhere."""
        try:
            self.bus.publish(DETECTIONS, camera, encode_detections(changed(CLIP, camera_id=camera)))
        except Refused:
            return False
        return True

    def close(self) -> None:
        self.stop.request()
        self.thread.join(20)
        self.bus.close()
        self.judges.close()
        assert self.code == EXIT_OK


@pytest.fixture
def bench(tmp_path: Path, rabbitmq_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(leavers, "UNBIND_AFTER_S", AFTER_S)
    made = Bench(tmp_path, rabbitmq_url, redis_url)
    yield made
    made.close()


def test_a_camera_that_is_removed_is_unbound_and_no_other(bench: Bench) -> None:
    bench.want("cam", "stays")
    for camera in ("cam", "stays"):
        bench.bus.bind_camera(camera)
    bench.judge()
    assert bench.routed("cam")
    eventually(lambda: bench.cell.get("cameras") == 2)
    bench.want("stays")
    assert eventually(lambda: not bench.routed("cam"), 20)
    bench.bus.publish(CLIPS, "cam", Message(b"spills"))
    assert eventually(lambda: bench.bus.depth(CLIPS_SPILL) == 1)
    assert bench.bus.depth(clips_queue("n1")) == 0
    assert bench.routed("stays")


def test_a_camera_that_was_removed_while_no_judge_ran_is_unbound_at_its_next_clip(bench: Bench) -> None:
    bench.want("stays")
    bench.bus.bind_camera("cam")
    bench.judge()
    assert bench.routed("cam")
    assert eventually(lambda: not bench.routed("cam"), 20)


def test_a_camera_that_comes_back_right_before_it_is_unbound_is_bound_in_the_end(bench: Bench) -> None:
    """Between the judge's look at the wanted cameras and its word to the broker, the capture may start and bind."""
    bench.want("cam")
    bench.bus.bind_camera("cam")
    unbind, unbound = bench.judges.unbind_camera, threading.Event()

    def came_back(camera_id: str) -> None:
        bench.want("cam")
        bench.bus.bind_camera(camera_id)
        unbind(camera_id)
        unbound.set()

    bench.judges.unbind_camera = came_back  # type: ignore[method-assign]
    bench.judge()
    eventually(lambda: bench.cell.get("cameras") == 1)
    bench.want()
    assert unbound.wait(20)
    assert eventually(lambda: bench.routed("cam"))
    assert eventually(lambda: bench.cell.get("clips") == 1)
