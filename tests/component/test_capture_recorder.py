"""The recorder on real H.264: clips back to back, equal samples on both paths, changes of the picture, full disks."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from nodeagent.capture.closing import Closer
from nodeagent.capture.journal import Journal
from nodeagent.capture.ledger import Ledger
from nodeagent.capture.recovery import LeftPart, epoch_for, last_recorded_ns, recover, salvage
from nodeagent.contract.clip import ClipTask
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.gaps import GapReason, read_gaps
from nodeagent.infra.settings.sections import PoolSettings
from nodeagent.infra.storage import StoredClip, init_pool
from nodeagent.infra.video import clip_samples
from nodeagent.ring.reader import RingReader
from tests.support.capturing import CAMERA, Bench
from tests.support.disks import mounted_tmpfs
from tests.support.media import count_frames, make_video


def assert_ring_equals_file(bench: Bench, task: ClipTask, clip: StoredClip) -> int:
    """Every sample of the ring is the byte-equal picture that the file gives; returns how many there are."""
    assert task.ring is not None
    ring = RingReader.open(bench.memory_dir, CAMERA, task.ring.generation)
    found = 0
    size = (task.sample_width, task.sample_height)
    for index, picture in clip_samples(clip.path, task.start_ns, task.sample_ns, *size):
        seen = ring.view(task.ring.first_seq + index)
        assert seen is not None
        assert seen[1] == task.sample_ns[index]
        assert np.array_equal(seen[0], picture)
        found += 1
    ring.close()
    assert found == len(task.sample_ns) == task.ring.count
    return found


@pytest.mark.parametrize(("gop", "b_frames"), [(25, 0), (50, 0), (50, 2), (100, 0)])
def test_clips_lie_back_to_back_and_samples_equal_those_of_the_ring(tmp_path: Path, gop: int, b_frames: int) -> None:
    video = make_video(tmp_path / "a.mp4", fps=25, gop=gop, seconds=24, b_frames=b_frames)
    bench = Bench(tmp_path, sample_width=160)
    assert bench.record(video).state is State.SOURCE_ENDED
    tasks, clips = bench.tasks(), bench.clips()
    assert len(tasks) == len(clips) >= 4
    assert [n for clip in clips for n in count_frames(clip.path)] == list(range(600))
    assert [task.clip_seq for task in tasks] == list(range(len(tasks)))
    for before, after in itertools.pairwise(tasks):
        assert before.end_ns == after.start_ns
    for clip in clips:
        with av.open(str(clip.path)) as container:
            # Its last picture is shown as long as any: a player goes on to the next clip without a leap.
            # With B-frames the muxer counts by decoding times, which begin two frames late.
            short_ns = b_frames * NS_PER_S // 25
            assert abs((container.duration or 0) * 1000 + short_ns - clip.duration_ns) <= 2 * NS_PER_MS
    samples = sum(assert_ring_equals_file(bench, task, clip) for task, clip in zip(tasks, clips, strict=True))
    assert 120 <= samples <= 121
    spacing = np.diff([ns for task in tasks for ns in task.sample_ns])
    assert spacing.max() < 0.25 * NS_PER_S
    assert bench.files() == [clip.path.name for clip in clips]


@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_file_that_starts_again_costs_no_frame_and_no_sample(tmp_path: Path, b_frames: int) -> None:
    # Slow enough to decode that the reading thread is at the next loop meanwhile.
    video = make_video(
        tmp_path / "a.mp4", width=1280, height=720, fps=25, gop=25, seconds=1, b_frames=b_frames, bit_rate=4_000_000
    )
    bench = Bench(tmp_path, sample_fps=25, sample_width=160)
    bench.record_loop(video, packets=300)
    assert (bench.counts["frames"], bench.counts["decode_errors"]) == (300, 0)
    tasks, clips = bench.tasks(), bench.clips()
    assert [n for clip in clips for n in count_frames(clip.path)] == 12 * list(range(25))
    samples = sum(assert_ring_equals_file(bench, task, clip) for task, clip in zip(tasks, clips, strict=True))
    assert 290 <= samples <= 300


def test_frames_that_nothing_refers_to_are_skipped_unless_they_are_samples(tmp_path: Path) -> None:
    bench = Bench(tmp_path, sample_width=160)
    bench.record(make_video(tmp_path / "a.mp4", fps=25, gop=50, seconds=10, b_frames=2))
    assert bench.counts["frames"] < 220
    assert 50 <= bench.counts["samples"] <= 51


def test_a_change_of_size_in_the_stream_begins_a_clip_and_a_ring(tmp_path: Path) -> None:
    parts = [
        make_video(tmp_path / "a.ts", fps=10, gop=10, seconds=7.5, container="mpegts"),
        make_video(tmp_path / "b.ts", width=160, height=120, fps=10, gop=10, seconds=7, container="mpegts"),
    ]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    bench = Bench(tmp_path)
    bench.record(both)
    tasks, clips = bench.tasks(), bench.clips()
    sizes = [(task.sample_width, task.sample_height) for task in tasks]
    assert sizes[0] == (320, 240)
    assert sizes[-1] == (160, 120)
    assert sum(len(count_frames(clip.path)) for clip in clips) == 145
    # The older ring lost its name with the change; the newer one holds the new size.
    for task, clip in zip(tasks, clips, strict=True):
        if (task.sample_width, task.sample_height) == sizes[-1]:
            assert assert_ring_equals_file(bench, task, clip)
    for clip in clips:
        with av.open(str(clip.path)) as file:
            assert (file.streams.video[0].width, file.streams.video[0].height) in {(320, 240), (160, 120)}


def test_a_killed_recorder_leaves_a_part_that_becomes_a_clip_with_the_same_samples(tmp_path: Path) -> None:
    # The last key frame, and so the last part, begins three seconds before the end, wherever the grid lies.
    video = make_video(tmp_path / "a.mp4", fps=25, gop=75, seconds=15)
    bench = Bench(tmp_path, sample_width=160)
    bench.record(video, close=False)
    done = len(bench.tasks())
    ((clip, part),) = bench.storage.parts(CAMERA)
    whole = part.read_bytes()
    # A kill in the middle of a fragment: the last 100 bytes never reached the file.
    part.write_bytes(whole[:-100])
    assert recover(bench.storage, bench.plan, (bench.closer, bench.ledger), CAMERA, SystemClock()) == 1
    task = bench.tasks()[-1]
    assert len(bench.tasks()) == done + 1
    assert (task.clip_id, task.clip_seq, task.epoch_started_ns) == (clip, done, bench.tasks()[0].sample_ns[0])
    stored = bench.storage.find(clip)
    assert stored is not None
    frames = count_frames(stored.path)
    assert frames == list(range(frames[0], frames[0] + len(frames)))
    assert task.ring is None
    live = bench.samples.end_clip()
    assert task.sample_ns == tuple(ns for ns in live.sample_ns if ns <= task.sample_ns[-1])
    assert bench.storage.parts(CAMERA) == []


def test_a_part_without_a_whole_fragment_is_removed_and_counted_as_a_gap(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.record(make_video(tmp_path / "a.mp4", seconds=3), close=False)
    ((clip, part),) = bench.storage.parts(CAMERA)
    part.write_bytes(part.read_bytes()[:500])
    bench.ledger.accounted_ns = clip.start_ns
    # The ledger takes the file's last change as the end of what was lost.
    recovered = recover(bench.storage, bench.plan, (bench.closer, bench.ledger), CAMERA, SystemClock())
    assert recovered == 0
    assert not part.exists()
    assert bench.files() == []
    assert read_gaps(bench.state_dir, CAMERA, 0, 2**62)[-1].reason is GapReason.LOST_TAIL


def test_without_a_journal_the_epoch_comes_from_the_part_or_is_above_all_that_is_known(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.record(make_video(tmp_path / "a.mp4", seconds=8), close=False)
    lost = Journal(tmp_path / "new" / "a.jsonl")
    assert epoch_for(bench.storage, lost, CAMERA, wall_ns=5_000_000) == 8
    assert epoch_for(bench.storage, lost, CAMERA, wall_ns=20_000_000) == 20
    recover(bench.storage, bench.plan, (Closer(lost), bench.ledger), CAMERA, SystemClock())
    assert lost.last is not None
    assert (lost.epoch, lost.last.task.epoch) == (7, 7)
    assert lost.epoch_started_ns == lost.last.task.sample_ns[0]
    assert epoch_for(bench.storage, lost, CAMERA, wall_ns=20_000_000) == 7


@pytest.mark.parametrize("analysed", [True, False], ids=["sub-stream-was-there", "sub-stream-was-away"])
def test_of_two_streams_that_were_killed_the_one_that_was_analysed_is_announced(tmp_path: Path, analysed: bool) -> None:
    bench = Bench(tmp_path)
    # One key frame, so one clip wherever the grid lies.
    bench.record(make_video(tmp_path / "a.mp4", seconds=4, gop=40), close=False)
    ((clip, part),) = bench.storage.parts(CAMERA)
    if analysed:
        shutil.copy(part, bench.storage.folder_for(CAMERA, clip.start_ns, "analyse") / part.name)
    books = (Closer(Journal(tmp_path / "new.jsonl")), bench.ledger)
    assert recover(bench.storage, bench.plan, books, CAMERA, SystemClock()) == 1 + analysed
    (closed,) = books[0].journal.all_unconfirmed()
    assert closed.task.stream == ("analyse" if analysed else "record")
    for stream in ("record", "analyse"):
        assert bench.storage.parts(CAMERA, stream) == []
        found = bench.storage.find(clip, stream)
        assert (found is not None) == (stream == "record" or analysed)
    (main,) = bench.clips()
    assert bench.ledger.accounted_ns == pytest.approx(main.end_ns, abs=NS_PER_MS)
    assert last_recorded_ns(bench.storage, books[0].journal, CAMERA) == pytest.approx(main.end_ns, abs=NS_PER_MS)


def test_repairing_twice_gives_the_same(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.record(make_video(tmp_path / "a.mp4", seconds=4), close=False)
    ((clip, part),) = bench.storage.parts(CAMERA)
    part.write_bytes(part.read_bytes() + b"\x00\x00\x10\x00moof half")
    path = bench.state_dir / "journal" / f"{CAMERA}.jsonl"
    before = path.read_bytes()
    left = LeftPart(part, clip, "record", announced=True)
    assert salvage(left, bench.plan, bench.closer, 5)
    first = bench.tasks()[-1]
    stored = bench.storage.find(clip)
    assert stored is not None
    # As if killed between the journal's record and the rename, with the record lost by a power cut.
    stored.path.rename(part)
    path.write_bytes(before)
    closer = Closer(Journal(path))
    assert salvage(left, bench.plan, closer, 5)
    assert closer.last is not None
    assert closer.last.task == first


def a_disk(folder: Path, quota_gb: float = 100.0) -> PoolSettings:
    init_pool(folder / "pool")
    return PoolSettings(path=folder / "pool", reserve_gb=0, quota_gb=quota_gb)


def events(caplog: pytest.LogCaptureFixture, name: str) -> int:
    return sum(getattr(record, "event", "") == name for record in caplog.records)


def assert_account_has_no_overlap(bench: Bench) -> None:
    spans = sorted(
        [(clip.clip.start_ns, clip.end_ns) for clip in bench.clips()]
        + [(gap.from_ns, gap.to_ns) for gap in read_gaps(bench.state_dir, CAMERA, 0, 2**62)]
    )
    for (_, end), (start, _) in itertools.pairwise(spans):
        # File names say milliseconds.
        assert start >= end - 2_000_000


def test_a_full_disk_is_a_state_and_a_gap_and_recording_goes_on_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with mounted_tmpfs(tmp_path / "disk", "1500k") as disk:
        bench = Bench(tmp_path)
        bench.use_pools(a_disk(disk))
        video = make_video(tmp_path / "a.mp4", fps=25, gop=25, seconds=20, bit_rate=1_500_000)
        # A camera is no faster than its disk: the file is, and would end clips before the first refusal is seen.
        bench.record(video, close=False, before=dict.fromkeys(range(0, 500, 5), bench.settle))
        assert bench.recorder.problem is not None
        assert bench.recorder.problem[0] is State.STORAGE_FULL
        # Tried anew at each key frame, and told once.
        assert (events(caplog, "not_recorded"), events(caplog, "recording_again")) == (1, 0)
        reasons = [gap.reason for gap in read_gaps(bench.state_dir, CAMERA, 0, 2**62)]
        assert reasons.count(GapReason.STORAGE_FULL) <= 1
        made = bench.clips()
        assert made
        # Space comes back (retention): the next session records again, and the hole is in the ledger.
        made[0].path.unlink()
        bench.record(make_video(tmp_path / "b.mp4", seconds=2))
        assert bench.recorder.problem is None
        assert GapReason.STORAGE_FULL in {gap.reason for gap in read_gaps(bench.state_dir, CAMERA, 0, 2**62)}
        for clip in bench.clips():
            assert count_frames(clip.path)
        assert all(name.endswith(".mp4") and ".part." not in name for name in _names(disk))


def _names(disk: Path) -> list[str]:
    return [path.name for path in (disk / "pool" / "clips").rglob("*") if path.is_file()]


def test_a_clip_whose_disk_fails_a_write_moves_to_another_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with mounted_tmpfs(tmp_path / "sick", "600k") as sick, mounted_tmpfs(tmp_path / "well", "20m") as well:
        bench = Bench(tmp_path)
        # As good as every hour is drawn for the first of them.
        bench.use_pools(a_disk(sick, quota_gb=1e6), a_disk(well, quota_gb=1e-6))
        bench.record(make_video(tmp_path / "a.mp4", fps=25, gop=25, seconds=20, bit_rate=1_500_000))
        assert bench.recorder.problem is None
        assert (events(caplog, "not_recorded"), events(caplog, "disk_aside")) == (0, 1)
        assert len([clip for clip in bench.clips() if clip.path.is_relative_to(well)]) >= 3
        assert [n for clip in bench.clips() for n in count_frames(clip.path)] == list(range(500))
        assert bench.storage.parts(CAMERA) == []
        assert_account_has_no_overlap(bench)


def fill(folder: Path) -> Path:
    """Leave no byte on the disk of this folder; returns the file to remove."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as out:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    out.write(b"x" * size)
    return filler


def test_a_full_state_folder_delays_clips_and_loses_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with mounted_tmpfs(tmp_path / "state", "64k"):
        bench = Bench(tmp_path)
        bench.record(make_video(tmp_path / "a.mp4", seconds=10))
        filler = fill(bench.state_dir)
        bench.record(make_video(tmp_path / "b.mp4", seconds=30), close=False)
        bench.recorder.tick()
        assert bench.storage.parts(CAMERA)
        assert "state folder" in bench.closer.trouble
        assert bench.recorder.problem is None
        filler.unlink()
        bench.recorder.tick()
        # The open one is left.
        assert len(bench.storage.parts(CAMERA)) == 1
        bench.recorder.end_session(GapReason.SOURCE_ENDED, "")
        bench.settle()
        assert (bench.closer.trouble, bench.storage.parts(CAMERA)) == ("", [])
        assert events(caplog, "closing_state") == 2
        tasks = bench.tasks()
        assert [task.clip_seq for task in tasks] == list(range(len(tasks)))
        assert [task.clip_id for task in tasks] == [clip.clip for clip in bench.clips()]
        assert len({task.epoch_started_ns for task in tasks}) == 1
        assert sum(len(count_frames(clip.path)) for clip in bench.clips()) == 400
        assert_account_has_no_overlap(bench)


def test_clips_that_wait_for_the_state_folder_survive_a_kill_in_their_order(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "state", "64k"):
        bench = Bench(tmp_path)
        filler = fill(bench.state_dir)
        bench.record(make_video(tmp_path / "a.mp4", seconds=20), close=False)
        parts = [clip for clip, _ in bench.storage.parts(CAMERA)]
        assert len(parts) >= 3
        filler.unlink()
        # The next process: it knows what is on the disks, and nothing else.
        bench.journal.close()
        journal = Journal(bench.state_dir / "journal" / f"{CAMERA}.jsonl")
        ledger = Ledger(bench.state_dir, CAMERA, None, parts[0].start_ns - NS_PER_S)
        repaired = recover(bench.storage, bench.plan, (Closer(journal), ledger), CAMERA, SystemClock())
        assert repaired >= len(parts) - 1
        tasks = [closed.task for closed in journal.all_unconfirmed()]
        assert [(task.clip_id, task.clip_seq) for task in tasks] == list(
            zip(parts[:repaired], range(repaired), strict=True)
        )
        # What lies before the first of them is told too, though its own process had not written it yet.
        gaps = read_gaps(bench.state_dir, CAMERA, 0, 2**62)
        assert (gaps[0].from_ns, gaps[0].to_ns) == (parts[0].start_ns - NS_PER_S, parts[0].start_ns)


def test_a_disk_that_does_not_answer_keeps_no_camera_from_starting(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    sick = PoolSettings(path=tmp_path / ("x" * 300), reserve_gb=0)
    bench.use_pools(sick, a_disk(tmp_path / "well"))
    assert recover(bench.storage, bench.plan, (bench.closer, bench.ledger), CAMERA, SystemClock()) == 0
    assert epoch_for(bench.storage, bench.journal, CAMERA, wall_ns=20_000_000) == 20
    bench.record(make_video(tmp_path / "a.mp4", seconds=3))
    assert bench.recorder.problem is None
    assert sum(len(count_frames(clip.path)) for clip in bench.clips()) == 30


def test_a_disk_without_its_marker_is_never_written(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (tmp_path / "pool" / ".nodeagent-pool").unlink()
    bench.record(make_video(tmp_path / "a.mp4", seconds=2), close=False)
    assert bench.recorder.problem is not None
    assert bench.recorder.problem[0] is State.STORAGE_MISSING
    assert list((tmp_path / "pool").iterdir()) == []


def test_what_is_no_video_ends_as_a_bad_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all" * 1000)
    assert Bench(tmp_path).record(path).state is State.BAD_STREAM
    assert Bench(tmp_path).record(tmp_path / "missing.mp4").state is State.SOURCE_DOWN


def test_short_shared_memory_costs_the_fast_path_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.memory_dir.write_text("no folder can be made here")
    bench.record(make_video(tmp_path / "a.mp4", seconds=6))
    assert "shm" in bench.samples.ring_trouble
    assert all(task.ring is None and task.sample_ns for task in bench.tasks())
    assert len(bench.clips()) == len(bench.tasks())
