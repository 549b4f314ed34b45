"""The two ways of a clip, ring and file, on the demo video with the demo model: equal bytes, equal rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from nodeagent.contract.detections import ClipDetections
from nodeagent.inference.letterbox import Letterbox
from nodeagent.inference.model import load_model
from nodeagent.infra.video import clip_samples
from nodeagent.ring import RingReader
from tests.support.eventually import eventually
from tests.support.inference import DEMO, Bench, make_bench

MODEL = DEMO / "person_demo.toml"
VIDEO = DEMO / "crossing.mp4"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = make_bench(tmp_path, [MODEL])
    yield made
    made.close()


def by_path(bench: Bench) -> dict[str, list[ClipDetections]]:
    found: dict[str, list[ClipDetections]] = {"ring": [], "clip": [], "none": []}
    for one in bench.bus.published:
        found[one.header.path].append(one)
    return found


def test_ring_and_clip_give_equal_pictures_and_equal_rows(bench: Bench) -> None:
    tasks = [bench.task(clip, width=640, height=480) for clip in bench.cut(VIDEO, gops=2, clips=3)[1:]]
    assert [len(task.sample_ns) for task in tasks] == [20, 20]
    for task in tasks:
        stored = bench.storage.find(task.clip_id)
        assert stored is not None
        durable = [i420 for _, i420 in clip_samples(stored.path, task.start_ns, task.sample_ns, 640, 480)]
        assert all(np.array_equal(a, b) for a, b in zip(durable, bench.live_samples(task), strict=True))
    with bench.running() as code:
        for task in tasks:
            bench.offer(bench.fill_ring(task))
            bench.offer(task)
        eventually(lambda: len(bench.bus.acked) == 4, within_s=60)
    assert code == [0]
    found = by_path(bench)
    assert [len(found[way]) for way in ("ring", "clip", "none")] == [2, 2, 0]
    for ring, clip in zip(found["ring"], found["clip"], strict=True):
        assert len(ring.rows) > 40
        assert np.array_equal(ring.rows, clip.rows)
        assert ring.header.sample_ns == clip.header.sample_ns
        assert ring.header.labels == ("person",)
        assert set(ring.header.timings) == {"closed", "inference_started", "inference_done"}
    counted = {name: bench.ctx.cell.get(name) for name in ("clips", "samples", "from_ring", "from_clip", "boxes")}
    boxes = sum(len(one.rows) for one in bench.bus.published)
    assert counted == {"clips": 4, "samples": 80, "from_ring": 2, "from_clip": 2, "boxes": boxes}
    assert bench.ctx.cell.get("infer_ms") > 0


def test_a_clip_that_the_ring_lost_comes_whole_from_its_file(bench: Bench) -> None:
    (clip,) = bench.cut(VIDEO, gops=2, clips=1)
    task = bench.task(clip)
    lost = bench.fill_ring(task, slots=10)
    with bench.running():
        bench.offer(lost)
        bench.offer(task)
        eventually(lambda: len(bench.bus.acked) == 2, within_s=60)
    first, second = bench.bus.published
    assert first.header.path == second.header.path == "clip"
    assert np.array_equal(first.rows, second.rows)


@pytest.mark.parametrize("overwritten_at", [1, 6])
def test_a_sample_overwritten_while_it_was_used_voids_the_try(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, overwritten_at: int
) -> None:
    (clip,) = bench.cut(VIDEO, gops=2, clips=1)
    task = bench.fill_ring(bench.task(clip))
    asked: list[int] = []

    def still(_: RingReader, seq: int) -> bool:
        asked.append(seq)
        return len(asked) != overwritten_at

    monkeypatch.setattr(RingReader, "still", still)
    with bench.running():
        bench.offer(task)
        bench.offer(task)
        eventually(lambda: len(bench.bus.acked) == 2, within_s=60)
    lost, whole = bench.bus.published
    assert (lost.header.path, whole.header.path) == ("clip", "ring")
    assert np.array_equal(lost.rows, whole.rows)
    assert len(asked) == overwritten_at + len(task.sample_ns)


@pytest.mark.parametrize("stale_from", [0, 7])
def test_another_clips_samples_in_the_ring_are_not_taken_for_ours(bench: Bench, stale_from: int) -> None:
    """Half-way too: what the engine already saw of the ring's samples is void."""
    (clip,) = bench.cut(VIDEO, gops=2, clips=1)
    task = bench.task(clip)
    times = [ns if i < stale_from else ns + 1 for i, ns in enumerate(task.sample_ns)]
    writer_task = bench.fill_ring(task)
    writer = bench.writers["cam1"]
    for captured_ns, i420 in zip(times, bench.live_samples(task), strict=True):
        writer.write(i420 if captured_ns in task.sample_ns else 255 - i420, captured_ns)
    assert writer_task.ring is not None
    moved = writer_task.ring.model_copy(update={"first_seq": len(times)})
    with bench.running():
        bench.offer(task.model_copy(update={"ring": moved}))
        bench.offer(writer_task)
        eventually(lambda: len(bench.bus.acked) == 2, within_s=60)
    from_file, from_ring = bench.bus.published
    assert (from_file.header.path, from_ring.header.path) == ("clip", "ring")
    assert np.array_equal(from_file.rows, from_ring.rows)


def test_the_demo_model_finds_what_its_card_says() -> None:
    """20 frames of the demo video; tolerance of the model's card."""
    model = load_model(MODEL, threads=1)
    card = json.loads((DEMO / "detections.json").read_text())
    wanted = {frame["frame"]: np.array(frame["boxes"]).reshape(-1, 5) for frame in card["frames"]}
    letterbox = Letterbox(768, 576, model.description.input)
    inputs = np.empty((1, 416, 416, 3), np.uint8)
    matched = expected = 0
    with av.open(str(VIDEO)) as source:
        for number, frame in enumerate(source.decode(video=0)):
            if number not in wanted:
                continue
            letterbox(frame.to_ndarray(format="yuv420p"), inputs[0])
            rows = model.find(model.engine.infer(inputs)[0], letterbox.placement, 0)
            got = np.stack([rows[name] for name in ("x1", "y1", "x2", "y2")], axis=1) * (768, 576, 768, 576)
            sure = wanted[number][wanted[number][:, 4] > 0.45]
            expected += len(sure)
            matched += sum(_agrees(box, got, rows["score"]) for box in sure)
            assert abs(len(rows) - len(wanted[number])) <= 2
    assert expected > 90
    assert matched >= 0.97 * expected, f"{matched} of {expected} boxes agree"


def _agrees(box: np.ndarray, got: np.ndarray, scores: np.ndarray) -> bool:
    low, high = np.maximum(got[:, :2], box[:2]), np.minimum(got[:, 2:], box[2:4])
    inner = np.clip(high - low, 0, None).prod(axis=1)
    outer = (got[:, 2:] - got[:, :2]).prod(axis=1) + (box[2:4] - box[:2]).prod() - inner
    return bool(((inner / outer > 0.9) & (abs(scores - box[4]) < 0.05)).any())
