"""The pipeline on RabbitMQ: the order of clips after an outage, and detections that are large."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodeagent.contract.clip import ClipTask
from nodeagent.contract.codec import decode_detections, encode_clip_task
from nodeagent.contract.ids import NS_PER_S
from nodeagent.inference.description import LABELS_MAX
from nodeagent.inference.engine import Numbers, Pixels
from nodeagent.inference.model import Model, load_models
from nodeagent.inference.onnx_engine import OnnxEngine
from nodeagent.inference.pipeline import Pipeline
from nodeagent.infra.bus import rabbitmq_layout
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.topology import CLIPS, CLIPS_SPILL, clips_queue, detections_queue
from tests.support.buses import make_bus, take
from tests.support.eventually import eventually
from tests.support.inference import EPOCH_NS, NODE, Bench, in_ring, make_bench
from tests.support.models import marker_model

pytestmark = pytest.mark.services

#: Time after which a waiting clip goes to the spill, seconds.
TTL_S = 2.0
CLIPS_OF_OUTAGE = 16
FRESH_CLIPS = 6


@pytest.fixture
def buses(rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bus, Bus]]:
    """What the test uses and what the pipeline uses, everything declared."""
    monkeypatch.setattr(rabbitmq_layout, "CLIPS_TTL_S", TTL_S)
    ours, its = make_bus(rabbitmq_url), make_bus(rabbitmq_url)
    ours.declare()
    ours.bind_camera("cam1")
    yield ours, its
    ours.close()
    its.close()


@contextmanager
def served(bench: Bench, bus: Bus, models: dict[str, Model]) -> Iterator[None]:
    pipeline = Pipeline(bench.ctx, bus, models)
    thread = threading.Thread(target=pipeline.run)
    thread.start()
    try:
        yield
    finally:
        bench.ctx.stop.request()
        thread.join(30)
        bench.close()


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that takes its time, so that clips wait for it."""
    infer = OnnxEngine.infer

    def slowly(self: OnnxEngine, batch: Pixels) -> list[Numbers]:
        time.sleep(0.1)
        return infer(self, batch)

    monkeypatch.setattr(OnnxEngine, "infer", slowly)


def test_after_an_outage_the_oldest_clips_are_served_first(
    tmp_path: Path, buses: tuple[Bus, Bus], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, its = buses
    slow(monkeypatch)
    bench = make_bench(tmp_path, [marker_model(tmp_path)])

    def publish(number: int) -> None:
        task: ClipTask = in_ring(bench, start_ns=EPOCH_NS + number * 5 * NS_PER_S)
        ours.publish(CLIPS, "cam1", encode_clip_task(task))

    for number in range(CLIPS_OF_OUTAGE):
        publish(number)
    eventually(lambda: ours.depth(CLIPS_SPILL) == CLIPS_OF_OUTAGE, within_s=TTL_S * 5)
    for number in range(CLIPS_OF_OUTAGE, CLIPS_OF_OUTAGE + FRESH_CLIPS):
        publish(number)
    assert ours.depth(clips_queue(NODE)) == FRESH_CLIPS
    ours.consume(detections_queue(NODE, 0), prefetch=4)
    order = []
    with served(bench, its, load_models(bench.ctx.settings)):
        while len(order) < CLIPS_OF_OUTAGE + FRESH_CLIPS:
            got = take(ours)
            ours.ack(got)
            order.append((decode_detections(got.message).header.start_ns - EPOCH_NS) // (5 * NS_PER_S))
    assert order == list(range(CLIPS_OF_OUTAGE + FRESH_CLIPS))


def test_a_model_of_ten_thousand_labels_is_served(tmp_path: Path, buses: tuple[Bus, Bus]) -> None:
    """Their names are longer than one frame of AMQP, in which all headers of a message must fit."""
    ours, its = buses
    labels = tuple(f"{number:05}" + "x" * 59 for number in range(LABELS_MAX))
    bench = make_bench(tmp_path, [marker_model(tmp_path)])
    (model,) = load_models(bench.ctx.settings).values()
    ours.consume(detections_queue(NODE, 0), prefetch=4)
    ours.publish(CLIPS, "cam1", encode_clip_task(in_ring(bench)))
    many = dataclasses.replace(model, description=model.description.model_copy(update={"labels": labels}))
    with served(bench, its, {"m0": many}):
        got = take(ours)
    found = decode_detections(got.message)
    assert found.header.labels == labels
    assert found.rows["sample"].tolist() == [2, 5]
