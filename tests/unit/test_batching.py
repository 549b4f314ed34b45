"""How a clip's samples are cut into batches, and how they are void when a try failed."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from nodeagent.contract.clip import ClipId
from nodeagent.contract.codec import Message
from nodeagent.inference.description import ModelDescription
from nodeagent.inference.engine import EngineInfo, Numbers, Pixels
from nodeagent.inference.letterbox import Letterbox
from nodeagent.inference.loader import Filling, Items
from nodeagent.inference.model import Model
from nodeagent.inference.postprocess import BoxFinder
from nodeagent.inference.work import BUFFERS, Batch, Buffers, Cancelled, Channel, Job, Tally
from nodeagent.infra.bus.port import Delivery
from tests.support.inference import EPOCH_NS, bare_task


class NoEngine:
    def infer(self, batch: Pixels) -> list[Numbers]:
        raise AssertionError("not run here")

    def describe(self) -> EngineInfo:
        return EngineInfo("none", "none", 0, None, (), 0.0)


class Desk:
    """A filling with room for its batches."""

    def __init__(self, batch: int) -> None:
        description = ModelDescription.model_validate(
            {
                "name": "m",
                "file": "m.onnx",
                "labels": ["a"],
                "input": {"width": 32, "height": 32},
                "output": {"layout": "yolov8"},
            }
        )
        self.model = Model(description, "1", NoEngine(), BoxFinder(description))
        self.over = threading.Event()
        self.buffers = Buffers(batch, self.over)
        self.buffers.add(self.model)
        self.out: Items = Channel(self.over, 100)
        self.steps = 0
        task = bare_task(ClipId(camera_id="c", epoch=1, start_ns=EPOCH_NS), [])
        self.job = Job(Delivery("q", "c", Message(b""), 1), task, self.model, 0)

    def alive(self) -> None:
        self.steps += 1

    def filling(self) -> Filling:
        letterbox = Letterbox(32, 32, self.model.description.input)
        return Filling(self.job, self.model, letterbox, self.buffers, self.out, self.alive)

    def taken(self) -> list[Batch]:
        found = []
        while (item := self.out.poll(0)) is not None:
            assert isinstance(item, Batch)
            found.append(item)
            self.buffers.give(item.model, item.buffer)
        return found


@pytest.mark.parametrize(
    ("samples", "cut"), [(1, [(0, 1)]), (4, [(0, 4)]), (5, [(0, 4), (4, 1)]), (9, [(0, 4), (4, 4), (8, 1)])]
)
def test_samples_are_cut_in_order(samples: int, cut: list[tuple[int, int]]) -> None:
    desk = Desk(batch=4)
    filling = desk.filling()
    for index in range(samples):
        filling.slot()[:] = index
        filling.keep(EPOCH_NS + index)
    ended = filling.end("ring")
    batches = desk.taken()
    assert [(batch.first, len(batch.frames)) for batch in batches] == cut
    assert np.concatenate([batch.frames[:, 0, 0, 0] for batch in batches]).tolist() == list(range(samples))
    assert ended.sample_ns == tuple(EPOCH_NS + index for index in range(samples))
    assert desk.steps >= samples


def test_a_dropped_try_gives_its_input_back() -> None:
    desk = Desk(batch=4)
    for _ in range(BUFFERS * 2):
        filling = desk.filling()
        filling.slot()
        assert filling.drop() is False
    assert desk.taken() == []


def test_waiting_for_an_input_ends_with_the_worker() -> None:
    desk = Desk(batch=1)
    filling = desk.filling()
    for _ in range(BUFFERS):
        filling.slot()
        filling.keep(EPOCH_NS)
    desk.over.set()
    with pytest.raises(Cancelled):
        filling.slot()


def test_waiting_for_room_ends_with_the_worker() -> None:
    over = threading.Event()
    channel: Channel[int] = Channel(over, 1)
    channel.put(1, lambda: None)
    over.set()
    with pytest.raises(Cancelled):
        channel.put(2, lambda: None)
    assert channel.take(lambda: None) == 1


def test_counts_are_handed_over_once() -> None:
    tally = Tally()
    tally.add("clips")
    tally.add("clips", 2)
    assert tally.drain() == {"clips": 3}
    assert tally.drain() == {}
