"""A whole capture process on a real RTSP server and a real Redis, while things around it die."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.capture.journal_lock import take_lock
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.gaps import GapReason
from nodeagent.infra.wanted import Wanted, write_wanted
from nodeagent.infra.worker import EXIT_OK
from tests.support.capturing import CaptureProcess
from tests.support.eventually import eventually
from tests.support.media import count_frames, make_video
from tests.support.rtsp import RtspServer, need_rtsp
from tests.support.verifying import assert_verifies

pytestmark = [pytest.mark.rtsp, pytest.mark.services]

#: Spacing of the test video's frames, and what clocks and sessions may add to it, ns.
FRAME_NS = NS_PER_S // 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RtspServer]:
    """One camera at 10 frames/s with a key frame each second."""
    need_rtsp()
    with RtspServer({"cam": make_video(tmp_path / "source.mp4", seconds=20)}, 10) as running:
        yield running


def assert_account_closes(capture: CaptureProcess) -> None:
    """Clips and gaps follow each other without a hole and without overlap, from the first to the last."""
    spans = sorted(
        [(clip.clip.start_ns, clip.end_ns) for clip in capture.clips()]
        + [(gap.from_ns, gap.to_ns) for gap in capture.gaps()]
    )
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert abs(start - end) <= 1.1 * FRAME_NS, (start - end) / NS_PER_S
    assert_verifies(capture.settings, "gate-1")


def assert_everything_is_announced(capture: CaptureProcess) -> None:
    """Each clip on the disk was announced, each announced clip is on the disk, and all of them decode."""
    eventually(
        lambda: {clip.clip for clip in capture.clips()} == {task.clip_id for task in capture.tasks()}, within_s=15
    )
    for clip in capture.clips():
        assert count_frames(clip.path)
    assert capture.storage.parts("gate-1") == []


def test_kill_9_loses_no_closed_clip_and_repairs_the_open(tmp_path: Path, server: RtspServer, redis_url: str) -> None:
    with CaptureProcess(tmp_path, server.url("cam"), redis_url) as capture:
        eventually(lambda: len(capture.clips()) >= 1, within_s=20)
        eventually(lambda: any(path.stat().st_size > 4000 for _, path in capture.storage.parts("gate-1")))
        capture.kill9()
        ((part, _),) = capture.storage.parts("gate-1")
        capture.start()
        eventually(lambda: capture.storage.find(part) is not None, within_s=15)
        eventually(lambda: capture.state is State.CAPTURING and len(capture.clips()) >= 3, within_s=25)
        assert capture.stop() == EXIT_OK
        assert_everything_is_announced(capture)
        tasks = {task.clip_seq: task for task in capture.tasks()}
        assert sorted(tasks) == list(range(len(tasks)))
        assert len({task.epoch for task in tasks.values()}) == 1
        assert GapReason.RESTART in {gap.reason for gap in capture.gaps()}
        assert_account_closes(capture)


def test_a_dead_a_frozen_and_a_returning_source(tmp_path: Path, server: RtspServer, redis_url: str) -> None:
    with CaptureProcess(tmp_path, server.url("cam"), redis_url) as capture:
        eventually(lambda: capture.state is State.CAPTURING and capture.storage.parts("gate-1"), within_s=20)
        server.kill9()
        eventually(lambda: capture.state is State.SOURCE_DOWN, within_s=10)
        server.start()
        eventually(lambda: capture.state is State.CAPTURING and capture.storage.parts("gate-1"), within_s=20)
        os.kill(server.pid, signal.SIGSTOP)
        eventually(lambda: capture.state is State.STALLED, within_s=10)
        os.kill(server.pid, signal.SIGCONT)
        eventually(lambda: capture.state is State.CAPTURING and len(capture.clips()) >= 3, within_s=30)
        assert capture.stop() == EXIT_OK
        assert_everything_is_announced(capture)
        assert {gap.reason for gap in capture.gaps()} >= {GapReason.SOURCE_DOWN, GapReason.STALLED}
        assert_account_closes(capture)


def test_an_outage_that_runs_when_the_capture_stops_is_told_with_its_reason(tmp_path: Path, redis_url: str) -> None:
    # Nobody listens on this port.
    with CaptureProcess(tmp_path, "rtsp://127.0.0.1:1/cam", redis_url) as capture:
        eventually(lambda: capture.state is State.SOURCE_DOWN and capture.count("reconnects") >= 2, within_s=15)
        assert capture.stop() == EXIT_OK
        told = capture.gaps()
        assert GapReason.SOURCE_DOWN in {gap.reason for gap in told}
        assert sum(gap.duration_ns for gap in told) >= NS_PER_S // 10


def test_wrong_password_no_video_and_the_right_one(tmp_path: Path, redis_url: str) -> None:
    need_rtsp()
    video = make_video(tmp_path / "source.mp4", seconds=10)
    with (
        RtspServer({"cam": video}, 10, "joe", "s3cret") as server,
        RtspServer({"mute": None}, 10) as mute,
        CaptureProcess(tmp_path, server.url("cam").replace("s3cret", "wr0ng"), redis_url) as capture,
    ):
        eventually(lambda: capture.state is State.AUTH_FAILED, within_s=15)
        assert capture.stop() == EXIT_OK
        capture.set_source(mute.url("mute"))
        capture.start()
        eventually(lambda: capture.state is State.NO_VIDEO, within_s=15)
        assert capture.stop() == EXIT_OK
        capture.set_source(server.url("cam"))
        capture.start()
        eventually(lambda: capture.state is State.CAPTURING, within_s=15)
        assert capture.stop() == EXIT_OK
        assert "wr0ng" not in capture.log()
        assert "s3cret" not in capture.log()


def test_another_picture_size_after_a_reconnect(tmp_path: Path, server: RtspServer, redis_url: str) -> None:
    with CaptureProcess(tmp_path, server.url("cam"), redis_url) as capture:
        eventually(lambda: capture.state is State.CAPTURING and capture.storage.parts("gate-1"), within_s=20)
        server.kill9()
        server.replace("cam", make_video(tmp_path / "small.mp4", width=128, height=96, seconds=10))
        server.start()
        eventually(lambda: len(capture.clips()) >= 3, within_s=30)
        assert capture.stop() == EXIT_OK
        assert_everything_is_announced(capture)
        sizes = [(t.sample_width, t.sample_height) for t in sorted(capture.tasks(), key=lambda t: t.start_ns)]
        assert sizes[0] == (160, 120)
        assert sizes[-1] == (128, 96)


def test_recording_goes_on_without_the_bus_and_everything_is_told_later(
    tmp_path: Path, redis_server: object, redis_url: str
) -> None:
    video = make_video(tmp_path / "source.mp4", seconds=20)
    with CaptureProcess(tmp_path, str(video), redis_url, loop=True) as capture:
        eventually(lambda: len(capture.tasks()) >= 1, within_s=20)
        redis_server.kill9()  # type: ignore[attr-defined]
        before = len(capture.clips())
        eventually(lambda: capture.state is State.BUS_DOWN and len(capture.clips()) >= before + 2, within_s=30)
        # Also a kill now costs no announcement: they are in the journal.
        capture.kill9()
        redis_server.start()  # type: ignore[attr-defined]
        capture.start()
        eventually(lambda: capture.state is State.CAPTURING, within_s=20)
        assert capture.stop() == EXIT_OK
        assert_everything_is_announced(capture)
        assert_account_closes(capture)


def test_a_file_at_its_end_is_said_and_an_unwanted_camera_leaves(tmp_path: Path, redis_url: str) -> None:
    video = make_video(tmp_path / "source.mp4", seconds=3)
    with CaptureProcess(tmp_path, str(video), redis_url, clip_s=5) as capture:
        eventually(lambda: capture.state is State.SOURCE_ENDED, within_s=20)
        assert [len(count_frames(clip.path)) for clip in capture.clips()] == [30]
        eventually(lambda: len(capture.tasks()) == 1)
        rings = capture.folder / "memory" / "rings"
        assert list(rings.iterdir())
        write_wanted(capture.state_dir / "wanted.json", Wanted(2, ()))
        assert capture.wait(10) == EXIT_OK
        assert list(rings.iterdir()) == []


def test_a_camera_that_comes_back_waits_for_who_finishes_its_clips(tmp_path: Path, redis_url: str) -> None:
    video = make_video(tmp_path / "source.mp4", seconds=3)
    capture = CaptureProcess(tmp_path, str(video), redis_url)
    lock = take_lock(capture.state_dir / "journal" / "gate-1.jsonl")
    assert lock is not None
    with capture:
        eventually(lambda: "when it was removed" in str(capture.cell.row(0)), within_s=10)
        assert capture.clips() == []
        os.close(lock)
        eventually(lambda: capture.state is State.SOURCE_ENDED and len(capture.clips()) >= 1, within_s=20)
