"""The inference worker where things go wrong: no clip, no model, alien messages, engines that fail, hang or kill."""

from __future__ import annotations

import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.clip import ClipId
from nodeagent.contract.codec import Message
from nodeagent.contract.errors import BadModel
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.inference import worker
from nodeagent.inference.engine import EngineInfo
from nodeagent.inference.intake import PREFETCH
from nodeagent.inference.model import load_models
from nodeagent.inference.onnx_engine import OnnxEngine
from nodeagent.inference.outcomes import FAULT_CLIPS
from nodeagent.inference.pipeline import FIRST_CALL_S, SLOWER
from nodeagent.inference.tries import TRIES_MAX, Tries
from nodeagent.infra.bus.port import Delivery
from nodeagent.infra.wanted import Wanted, write_wanted
from nodeagent.infra.worker import EXIT_FATAL
from nodeagent.ring import ring_path
from tests.support.eventually import eventually
from tests.support.inference import DEMO, EPOCH_NS, NODE, Bench, bare_task, in_ring, make_bench
from tests.support.inference_child import live
from tests.support.models import marker_model


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    models = tmp_path / "models"
    models.mkdir()
    made = make_bench(tmp_path, [marker_model(models), marker_model(models, "yolox", name="other")])
    write_cameras(made, cam1="", cam2="m1")
    yield made
    made.close()


def write_cameras(bench: Bench, **models: str) -> None:
    cameras = tuple(
        CameraSpec.model_validate({"camera_id": name, "record": {"url": "/v.mp4"}, "model": model})
        for name, model in models.items()
    )
    write_wanted(bench.ctx.wanted_path, Wanted(1, cameras))


def test_samples_in_the_ring_become_rows(bench: Bench) -> None:
    with bench.running() as code:
        eventually(lambda: bench.ctx.cell.is_ready)
        bench.offer(in_ring(bench))
        bench.settled(1)
        assert bench.ctx.cell.current_state is State.RUNNING
    (found,) = bench.bus.published
    assert found.rows["sample"].tolist() == [2, 5]
    assert found.rows["label"].tolist() == [1, 1]
    assert np.allclose(found.rows["x1"], 32 / 128)
    assert np.allclose(found.rows["y2"], 32 / 96)
    assert (found.header.outcome, found.header.samples_expected) == ("ok", 6)
    assert (found.header.model, found.header.labels) == ("markers", ("red", "green", "blue"))
    assert bench.bus.history == ["published", "acked"]
    assert bench.bus.consumed == {f"clips.{NODE}": PREFETCH, "clips.spill": PREFETCH}
    assert code == [0]


def test_each_camera_has_its_model(bench: Bench) -> None:
    with bench.running():
        bench.offer(in_ring(bench, "cam1"))
        bench.offer(in_ring(bench, "cam2"))
        bench.settled(2)
    first, second = bench.bus.published
    assert (first.header.model, second.header.model) == ("markers", "other")
    assert first.rows["sample"].tolist() == second.rows["sample"].tolist() == [2, 5]
    assert np.allclose(first.rows["x1"], second.rows["x1"])


def test_a_camera_that_changed_its_model_gets_it_with_the_next_clip(bench: Bench) -> None:
    with bench.running():
        bench.offer(in_ring(bench))
        bench.settled(1)
        write_cameras(bench, cam1="m1")
        bench.offer(in_ring(bench))
        bench.settled(2)
    assert [one.header.model for one in bench.bus.published] == ["markers", "other"]


def test_no_guess_between_models_for_a_camera_nobody_named(bench: Bench) -> None:
    with bench.running():
        bench.offer(in_ring(bench, "stranger"))
        bench.settled(1)
    (found,) = bench.bus.published
    assert found.header.outcome == "unknown"
    assert "several models" in found.header.reason


def test_a_clip_that_is_gone_is_unknown_and_acknowledged(bench: Bench) -> None:
    task = bare_task(ClipId(camera_id="cam1", epoch=1, start_ns=EPOCH_NS), [EPOCH_NS, EPOCH_NS + 1])
    with bench.running():
        bench.offer(task)
        bench.settled(1)
    (found,) = bench.bus.published
    assert (found.header.outcome, found.header.path, found.header.samples_expected) == ("unknown", "none", 2)
    assert "not in the storage pool" in found.header.reason
    assert len(bench.bus.acked) == 1
    assert bench.ctx.cell.get("unknown") == 1


def test_a_clip_that_is_no_video_is_unknown_and_the_next_is_served(bench: Bench) -> None:
    (clip,) = bench.cut(DEMO / "crossing.mp4", gops=1, clips=1)
    task = bench.task(clip)
    stored = bench.storage.find(clip)
    assert stored is not None
    stored.path.write_bytes(b"no video" * 1000)
    with bench.running():
        bench.offer(task)
        bench.offer(in_ring(bench, "cam2"))
        bench.settled(2)
    assert [one.header.outcome for one in bench.bus.published] == ["unknown", "ok"]
    assert "clip cannot be read" in bench.bus.published[0].header.reason


def test_a_cut_off_clip_gives_the_samples_that_it_has(bench: Bench) -> None:
    (clip,) = bench.cut(DEMO / "crossing.mp4", gops=1, clips=1)
    task = bench.task(clip)
    beyond = tuple(task.sample_ns[-1] + (i + 1) * NS_PER_S for i in range(3))
    with bench.running():
        bench.offer(task.model_copy(update={"sample_ns": task.sample_ns + beyond}))
        bench.settled(1)
    (found,) = bench.bus.published
    assert found.header.sample_ns == task.sample_ns
    assert found.header.samples_expected == len(task.sample_ns) + 3


def test_a_clip_without_samples_is_ok_and_empty(bench: Bench) -> None:
    with bench.running():
        bench.offer(bare_task(ClipId(camera_id="cam1", epoch=1, start_ns=EPOCH_NS), []))
        bench.settled(1)
    (found,) = bench.bus.published
    assert (found.header.outcome, found.header.path, len(found.rows)) == ("ok", "none", 0)


def test_an_alien_message_is_put_aside_with_its_reason(bench: Bench) -> None:
    with bench.running():
        bench.bus.offer(Message(b"hello", {"type": "greeting"}))
        bench.offer(in_ring(bench))
        bench.settled(2)
    ((delivery, reason),) = bench.bus.put_aside
    assert delivery.message.body == b"hello"
    assert "clip_task" in reason
    assert len(bench.bus.published) == 1
    eventually(lambda: bench.ctx.cell.get("refused") == 1)


def test_a_clip_that_keeps_ending_its_worker_is_told_and_put_aside(bench: Bench) -> None:
    task = in_ring(bench)
    earlier = Tries(bench.ctx.settings.node.state_dir / "inference", threading.Event(), 0)
    for _ in range(TRIES_MAX):
        earlier.begin(task.clip_id)
    with bench.running():
        bench.offer(task)
        bench.settled(1)
        eventually(lambda: earlier.of(task.clip_id) == 0)
        bench.offer(task, attempt=50)
        bench.settled(2)
    assert [one.header.outcome for one in bench.bus.published] == ["unknown", "ok"]
    ((_, reason),) = bench.bus.put_aside
    assert "after 3 tries" in reason
    assert bench.bus.history == ["published", "dead", "published", "acked"]


def test_a_clip_that_kills_its_worker_is_given_up_and_no_other(tmp_path: Path) -> None:
    lives = [live(tmp_path, [1, 2, 3, 4, 5, 6, 7, 8], poison=3) for _ in range(TRIES_MAX)]
    assert [code for code, _ in lives] == [-signal.SIGKILL] * TRIES_MAX
    code, said = live(tmp_path, [1, 2, 3, 4, 5, 6, 7, 8], poison=3)
    assert code == 0
    assert said == {number: "unknown" if number == 3 else "ok" for number in range(1, 9)}
    assert not list((tmp_path / "state" / "inference").iterdir())


def test_the_loop_beats_and_ring_memory_goes_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.inference.loader.SWEEP_S", 0.05)
    with bench.running():
        bench.offer(in_ring(bench))
        bench.settled(1)
        first = bench.ctx.cell.beat_monotonic_s
        assert first is not None
        eventually(lambda: (bench.ctx.cell.beat_monotonic_s or 0) > first)
        path = ring_path(bench.ctx.memory_dir, "cam1", bench.writers["cam1"].generation)
        maps = Path("/proc/self/maps")
        assert str(path) in maps.read_text()
        bench.writers.pop("cam1").close()
        path.unlink()
        eventually(lambda: str(path) not in maps.read_text())


def test_the_first_engine_call_may_take_what_the_dry_run_showed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    describe = OnnxEngine.describe

    def slow(engine: OnnxEngine) -> EngineInfo:
        info = describe(engine)
        assert 0 < info.sample_s < FIRST_CALL_S
        return dataclasses.replace(info, sample_s=2.0)

    monkeypatch.setattr(OnnxEngine, "describe", slow)
    with bench.running():
        eventually(lambda: bench.ctx.cell.allow_s == SLOWER * 2.0 * bench.ctx.settings.inference.batch)
        bench.offer(in_ring(bench))
        bench.settled(1)
        # The other model's first call is still to come.
        assert bench.ctx.cell.allow_s == SLOWER * 2.0 * bench.ctx.settings.inference.batch


def test_a_quick_engine_that_hangs_is_soon_noticed(bench: Bench) -> None:
    with bench.running():
        eventually(lambda: bench.ctx.cell.allow_s == FIRST_CALL_S)
        bench.offer(in_ring(bench))
        bench.settled(1)
        eventually(lambda: (bench.ctx.cell.allow_s or 0) < FIRST_CALL_S)


def test_an_engine_that_fails_means_unknown(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise BadModel("m.onnx: the engine could not run it: out of memory")

    caplog.set_level(logging.INFO)
    cell = bench.ctx.cell
    with bench.running() as code:
        with monkeypatch.context() as patch:
            patch.setattr("nodeagent.inference.onnx_engine.OnnxEngine.infer", broken)
            for number in range(FAULT_CLIPS):
                assert cell.current_state is not State.ANALYSIS_FAILING
                bench.offer(in_ring(bench))
                bench.settled(number + 1)
            eventually(lambda: cell.current_state is State.ANALYSIS_FAILING)
            row = cell.row(time.monotonic())
            assert row is not None
            assert row.detail == "cam1: m.onnx: the engine could not run it: out of memory"
        bench.offer(in_ring(bench))
        bench.settled(FAULT_CLIPS + 1)
        eventually(lambda: cell.current_state is State.RUNNING)
    assert [one.header.outcome for one in bench.bus.published] == ["unknown"] * FAULT_CLIPS + ["ok"]
    assert "out of memory" in bench.bus.published[0].header.reason
    events = [getattr(record, "event", "") for record in caplog.records]
    assert events == ["clip_unknown", "clips_known"]
    assert code == [0]


@pytest.mark.parametrize("part", ["intake.decode_clip_task", "publisher.encode_detections"])
def test_an_error_nobody_foresaw_ends_the_worker_for_a_new_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(f"nodeagent.inference.{part}", broken)
    with bench.running() as code:
        bench.offer(in_ring(bench))
        eventually(lambda: code, within_s=20)
    assert code == [1]
    assert bench.bus.acked == []
    assert "ZeroDivisionError" in caplog.text


def test_a_bad_model_is_fatal_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = marker_model(tmp_path)
    (tmp_path / "markers.onnx").write_bytes(b"nothing")
    bench = make_bench(tmp_path, [path])
    with caplog.at_level(logging.INFO):
        assert worker.main(bench.ctx, "0") == EXIT_FATAL
    assert bench.ctx.cell.current_state is State.BAD_MODEL
    assert len(caplog.records) == 1
    assert "markers.onnx: file: expected an ONNX model" in caplog.text


def test_no_model_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="at least one"):
        load_models(make_bench(tmp_path, []).ctx.settings)


def test_a_thread_that_hangs_stops_the_beat(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.inference.pipeline.STUCK_S", 1.0)
    hang, wake = threading.Event(), threading.Event()
    take = bench.bus.get

    def get(timeout_s: float) -> Delivery | None:
        if hang.is_set():
            wake.wait(30)
        return take(timeout_s)

    monkeypatch.setattr(bench.bus, "get", get)
    with bench.running():
        eventually(lambda: bench.ctx.cell.beat_monotonic_s)
        hang.set()
        eventually(lambda: time.monotonic() - (bench.ctx.cell.beat_monotonic_s or 0) > 2.5)
        hang.clear()
        wake.set()
        eventually(lambda: time.monotonic() - (bench.ctx.cell.beat_monotonic_s or 0) < 1)
