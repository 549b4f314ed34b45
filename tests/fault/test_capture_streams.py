"""A camera with a main and a sub-stream, each of which goes away and comes back."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodeagent.capture import chooser, worker
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.gaps import GapReason
from nodeagent.infra.stop import Stop
from nodeagent.infra.video import clip_samples
from nodeagent.infra.worker import EXIT_OK, WorkerContext
from tests.support.capturing import CAMERA, CaptureProcess
from tests.support.eventually import eventually
from tests.support.media import count_frames, make_video
from tests.support.rtsp import RtspServer, need_rtsp

pytestmark = [pytest.mark.rtsp, pytest.mark.services]


@contextmanager
def running(capture: CaptureProcess) -> Iterator[None]:
    """The capture's worker in a thread of this process, where its patience can be shortened."""
    stop, codes = Stop(), []
    context = WorkerContext(
        f"capture:{CAMERA}", capture.settings, capture.cell, stop, SystemClock(), capture.folder / "memory"
    )
    capture.cell.begin(SystemClock().wall_ns())
    thread = threading.Thread(target=lambda: codes.append(worker.main(context, CAMERA)))
    thread.start()
    try:
        yield
    finally:
        stop.request()
        thread.join(20)
    assert codes == [EXIT_OK]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[RtspServer, RtspServer]]:
    """The main stream at 10 frames/s, the sub-stream of another size and shape at 8."""
    need_rtsp()
    large = make_video(tmp_path / "main.mp4", width=192, height=112, seconds=20)
    small = make_video(tmp_path / "sub.mp4", width=128, height=96, fps=8, gop=8, seconds=20)
    with RtspServer({"main": large}, 10) as main, RtspServer({"sub": small}, 8) as sub:
        yield main, sub


def sizes(capture: CaptureProcess) -> list[tuple[str, int, int]]:
    """Stream and picture size of each announcement so far."""
    tasks = sorted(capture.tasks(), key=lambda task: task.start_ns)
    return [(task.stream, task.sample_width, task.sample_height) for task in tasks]


@pytest.fixture
def capture(tmp_path: Path, servers: tuple[RtspServer, RtspServer], redis_url: str) -> Iterator[CaptureProcess]:
    """A camera with both streams, not started yet."""
    main, sub = servers
    made = CaptureProcess(tmp_path, main.url("main"), redis_url, analyse=sub.url("sub"), clip_s=2)
    yield made
    # Else it would go on to take the announcements that later tests wait for.
    made.bus.close()


def test_the_sub_stream_is_analysed_and_the_main_one_while_it_is_away(
    capture: CaptureProcess, servers: tuple[RtspServer, RtspServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chooser, "PATIENCE_S", 0.5)
    monkeypatch.setattr(chooser, "TRUST_S", 1.0)
    main, sub = servers
    with running(capture):
        eventually(lambda: sizes(capture)[-1:] == [("analyse", 128, 96)], within_s=20)
        eventually(lambda: "streams aligned by sender reports" in capture.detail, within_s=20)
        # The first frames stand where they arrived; what that was off is made up within a second or two.
        eventually(lambda: abs(capture.count("stream_offset_ms")) <= 60, within_s=10)
        sub.kill9()
        eventually(lambda: capture.state is State.ANALYSE_DOWN, within_s=10)
        assert capture.detail.startswith("source_down: ")
        eventually(lambda: sizes(capture)[-1:] == [("record", 160, 94)], within_s=20)
        sub.start()
        eventually(lambda: capture.state is State.CAPTURING and sizes(capture)[-1][0] == "analyse", within_s=30)
        main.kill9()
        eventually(lambda: capture.state is State.SOURCE_DOWN, within_s=10)
        before = len(sizes(capture))
        eventually(lambda: len(sizes(capture)) >= before + 1, within_s=20)
    tasks = sorted(capture.tasks(), key=lambda task: task.start_ns)
    assert [task.clip_seq for task in tasks] == list(range(len(tasks)))
    times = [time_ns for task in tasks for time_ns in task.sample_ns]
    assert all(earlier < later for earlier, later in itertools.pairwise(times))
    for task in tasks:
        stored = capture.storage.find(task.clip_id, task.stream)
        assert stored is not None
        found = list(clip_samples(stored.path, task.start_ns, task.sample_ns, task.sample_width, task.sample_height))
        assert [index for index, _ in found] == list(range(len(task.sample_ns)))
        assert task.luma is not None
    for clip in capture.clips():
        assert count_frames(clip.path)
    assert {gap.reason for gap in capture.gaps()} <= {GapReason.START, GapReason.SOURCE_DOWN}
    recorded = sum(clip.duration_ns for clip in capture.clips()) + sum(gap.duration_ns for gap in capture.gaps())
    whole = max(gap.to_ns for gap in capture.gaps()) - min(gap.from_ns for gap in capture.gaps())
    assert recorded == pytest.approx(whole, abs=NS_PER_S // 4)
