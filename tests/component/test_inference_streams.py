"""The whole worker on a real broker (Redis Streams): from a task on the queue to detections on theirs."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest

from nodeagent.contract.codec import decode_detections, encode_clip_task
from nodeagent.contract.report import Kind
from nodeagent.contract.states import State
from nodeagent.inference import worker
from nodeagent.infra.board import Board
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.port import Bus, Delivery
from nodeagent.infra.bus.topology import CLIPS, detections_queue
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.stop import Stop
from tests.support.eventually import eventually
from tests.support.inference import DEMO, NODE, make_bench

pytestmark = pytest.mark.services


def taken(bus: Bus) -> Delivery:
    delivery = eventually(lambda: bus.get(0.5), within_s=30)
    assert delivery is not None
    bus.ack(delivery)
    return delivery


def test_clips_go_in_and_equal_detections_come_out(tmp_path: Path, redis_url: str) -> None:
    bench = make_bench(tmp_path, [DEMO / "person_demo.toml"])
    settings = Settings.model_validate(bench.ctx.settings.model_dump() | {"redis": {"url": redis_url}})
    cell = Board.create(tmp_path / "board", NODE, 1, 1, cells=1).claim("inference:0", Kind.INFERENCE)
    ctx = dataclasses.replace(bench.ctx, settings=settings, cell=cell, stop=Stop())
    (clip,) = bench.cut(DEMO / "crossing.mp4", gops=1, clips=1)
    task = bench.task(clip)
    code: list[int] = []
    thread = threading.Thread(target=lambda: code.append(worker.main(ctx, "0")))
    thread.start()
    ours = open_bus(settings)
    try:
        eventually(lambda: cell.current_state is State.RUNNING, within_s=20)
        ours.bind_camera("cam1")
        ours.consume(detections_queue(NODE, 0), prefetch=4)
        for wanted in (bench.fill_ring(task), task):
            ours.publish(CLIPS, "cam1", encode_clip_task(wanted))
        found = [decode_detections(taken(ours).message) for _ in range(2)]
    finally:
        ctx.stop.request()
        thread.join(30)
        ours.close()
        bench.close()
    assert code == [0]
    assert [one.header.path for one in found] == ["ring", "clip"]
    assert np.array_equal(found[0].rows, found[1].rows)
    assert len(found[0].rows) > 10
