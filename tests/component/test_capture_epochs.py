"""Granted epochs: continued after a restart, followed without losing a picture, never gone back from."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from nodeagent.capture.journal import Journal
from nodeagent.capture.recovery import epoch_for
from nodeagent.contract.clip import ClipTask
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.worker import EXIT_OK
from tests.support.capturing import CAMERA, Bench, CaptureProcess
from tests.support.eventually import eventually
from tests.support.media import count_frames, make_video

#: The bench records with this epoch.
EPOCH = 7


@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        pytest.param(0, EPOCH, id="nobody grants"),
        pytest.param(EPOCH, EPOCH, id="the same again"),
        pytest.param(EPOCH + 5, EPOCH + 5, id="a later one"),
        pytest.param(EPOCH - 1, EPOCH, id="an old snapshot"),
    ],
)
def test_the_epoch_of_a_camera_that_was_recorded_here(tmp_path: Path, granted: int, expected: int) -> None:
    bench = Bench(tmp_path)
    bench.record(make_video(tmp_path / "a.mp4", seconds=3))
    assert bench.journal.epoch == EPOCH
    assert epoch_for(bench.storage, bench.journal, CAMERA, 20_000_000, granted) == expected


@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        pytest.param(EPOCH, EPOCH + 1, id="its clips cannot be continued"),
        pytest.param(EPOCH - 1, EPOCH + 1, id="clips know a later one"),
        pytest.param(EPOCH + 5, EPOCH + 5, id="above all clips"),
    ],
)
def test_the_epoch_when_the_journal_is_lost(tmp_path: Path, granted: int, expected: int) -> None:
    bench = Bench(tmp_path)
    bench.record(make_video(tmp_path / "a.mp4", seconds=3))
    assert epoch_for(bench.storage, Journal(tmp_path / "new" / "a.jsonl"), CAMERA, 20_000_000, granted) == expected


def by_epoch(tasks: list[ClipTask]) -> dict[int, list[ClipTask]]:
    return {epoch: list(of) for epoch, of in itertools.groupby(tasks, key=lambda task: task.epoch)}


def test_a_later_grant_begins_a_clip_at_the_next_key_frame_and_loses_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, sample_width=160)

    def grant() -> None:
        bench.recorder.next_epoch = 9

    # 10 frames/s, a key frame each second; the grant comes between two of them.
    bench.record(make_video(tmp_path / "a.mp4", seconds=12), before={73: grant})
    tasks = by_epoch(bench.tasks())
    assert list(tasks) == [EPOCH, 9]
    old, new = tasks[EPOCH], tasks[9]
    assert [task.clip_seq for task in old] == list(range(len(old)))
    assert [task.clip_seq for task in new] == list(range(len(new)))
    # One place for both: where the old epoch's last clip ends, at the key frame behind the grant, the new one begins.
    assert old[-1].end_ns == new[0].start_ns
    assert new[0].start_ns - old[0].start_ns == pytest.approx(8 * NS_PER_S, abs=NS_PER_S // 100)
    assert {task.epoch_started_ns for task in old} == {old[0].sample_ns[0]}
    assert {task.epoch_started_ns for task in new} == {new[0].sample_ns[0]}
    assert [n for clip in bench.clips() for n in count_frames(clip.path)] == list(range(120))
    # The samples go on in the same ring.
    assert len({task.ring.generation for task in bench.tasks() if task.ring}) == 1
    assert bench.journal.epoch == 9


@pytest.mark.services
def test_a_capture_follows_its_grants_without_a_restart(tmp_path: Path, redis_url: str) -> None:
    video = make_video(tmp_path / "source.mp4", seconds=20)
    with CaptureProcess(tmp_path, str(video), redis_url, loop=True, clip_s=1.0, epoch=40) as capture:
        eventually(lambda: len(capture.clips()) >= 2, within_s=20)
        assert capture.cell.get("epoch") == 40
        pid = capture.pid
        capture.grant(50)
        eventually(lambda: capture.cell.get("epoch") == 50, within_s=10)
        eventually(lambda: sum(clip.clip.epoch == 50 for clip in capture.clips()) >= 2, within_s=20)
        assert (capture.pid, capture.cell.get("reconnects")) == (pid, 0)
        # The same grant after a kill: the epoch goes on where it was, the open clip is repaired.
        capture.kill9()
        closed = len(capture.clips())
        capture.start()
        eventually(lambda: len(capture.clips()) >= closed + 3, within_s=20)
        # A grant that comes while it is down begins the next epoch; what was not announced is still.
        capture.kill9()
        capture.grant(60)
        capture.start()
        eventually(lambda: sum(clip.clip.epoch == 60 for clip in capture.clips()) >= 1, within_s=20)
        assert capture.stop() == EXIT_OK
        eventually(lambda: {clip.clip for clip in capture.clips()} == {task.clip_id for task in capture.tasks()})
        told = {task.clip_id: task for task in capture.tasks()}
        tasks = by_epoch(sorted(told.values(), key=lambda task: task.start_ns))
        assert list(tasks) == [40, 50, 60]
        for of in tasks.values():
            assert [task.clip_seq for task in of] == list(range(len(of)))
            assert len({task.epoch_started_ns for task in of}) == 1
        assert capture.storage.parts(CAMERA) == []
