"""What disks are asked for, and a pool disk that fails in the middle of a clip: no frame is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodeagent.capture import disk_writer
from nodeagent.capture.recovery import recover
from nodeagent.contract.clip import part_file_name
from nodeagent.contract.states import State
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.files import syncs
from nodeagent.infra.gaps import GapReason, read_gaps
from nodeagent.infra.settings.sections import PoolSettings
from nodeagent.infra.storage import Storage, init_pool
from tests.support.capturing import CAMERA, Bench
from tests.support.disks import Disk, mounted_disk
from tests.support.eventually import eventually
from tests.support.media import count_frames, make_video

#: Short enough for a test, long against a sync of these small disks.
STALL_S = 0.6
FRAMES = 300
#: The packet before which the disk is hurt, when the first clip is complete, wherever its grid lies.
HURT_AT = 215


@pytest.fixture
def sick(tmp_path: Path) -> Iterator[Disk]:
    with mounted_disk(tmp_path / "sick") as disk:
        yield disk


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return make_video(tmp_path / "a.mp4", fps=25, gop=25, seconds=FRAMES / 25, bit_rate=1_500_000)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_writer, "STALL_S", STALL_S)


def two_disks(tmp_path: Path, sick: Disk) -> tuple[Bench, PoolSettings]:
    """A recorder that writes to the sick disk as long as that one takes anything."""
    bench = Bench(tmp_path)
    pools = [
        PoolSettings(path=sick.folder, reserve_gb=0, quota_gb=1e6),
        PoolSettings(path=tmp_path / "well", reserve_gb=0, quota_gb=1e-6),
    ]
    for pool in pools:
        init_pool(pool.path)
    bench.use_pools(*pools)
    return bench, pools[1]


def frames_of(bench: Bench) -> list[int]:
    return [n for clip in bench.clips() for n in count_frames(clip.path)]


@pytest.mark.parametrize("hurt", [Disk.read_only, Disk.fill])
def test_a_disk_that_refuses_costs_no_frame(
    tmp_path: Path, sick: Disk, video: Path, hurt: Callable[[Disk], object]
) -> None:
    bench, well = two_disks(tmp_path, sick)
    bench.record(video, before={HURT_AT: lambda: (bench.settle(), hurt(sick))})
    assert frames_of(bench) == list(range(FRAMES))
    assert bench.recorder.problem is None
    assert any(clip.path.is_relative_to(sick.folder) for clip in bench.clips())
    assert any(clip.path.is_relative_to(well.path) for clip in bench.clips())
    assert {gap.reason for gap in read_gaps(bench.state_dir, CAMERA, 0, 2**62)} <= {GapReason.START}


def test_a_disk_that_is_unmounted_costs_no_frame_and_its_mount_point_stays_empty(
    tmp_path: Path, sick: Disk, video: Path
) -> None:
    bench, well = two_disks(tmp_path, sick)
    bench.record(video, before={HURT_AT: lambda: (bench.settle(), sick.unmount())})
    assert list(sick.folder.iterdir()) == []
    away = frames_of(bench)
    assert all(clip.path.is_relative_to(well.path) for clip in bench.clips())
    sick.mount()
    assert frames_of(bench) == list(range(FRAMES))
    # The half clip came back with its disk, and goes when a clip begins there.
    assert len(bench.storage.parts(CAMERA)) == 1
    bench.use_pools(PoolSettings(path=sick.folder, reserve_gb=0))
    bench.record(video)
    bench.use_pools(PoolSettings(path=sick.folder, reserve_gb=0), well)
    assert bench.storage.parts(CAMERA) == []
    # What was being written when the disk left is on the other one, from its first frame on.
    assert away == list(range(away[0], FRAMES))
    assert 0 < away[0] <= HURT_AT


def test_a_disk_that_hangs_costs_no_frame_and_holds_nothing_up(tmp_path: Path, sick: Disk, video: Path) -> None:
    bench, well = two_disks(tmp_path, sick)
    slowest = 0.0

    def hang() -> None:
        bench.settle()
        sick.freeze()

    def wait() -> None:
        nonlocal slowest
        time.sleep(STALL_S * 1.5)
        began = time.monotonic()
        bench.recorder.tick()
        slowest = time.monotonic() - began

    try:
        bench.record(video, before={HURT_AT: hang, HURT_AT + 20: wait})
        assert slowest < STALL_S
        at_hang = frames_of(bench)
        assert at_hang == list(range(FRAMES))
        assert any(clip.path.is_relative_to(well.path) for clip in bench.clips())
    finally:
        sick.thaw()
    # The half clip that hung is removed by the thread that hung.
    eventually(lambda: not list(sick.folder.rglob("*.part.mp4")), within_s=5)
    assert frames_of(bench) == list(range(FRAMES))


def test_the_only_disk_hangs_for_a_while_and_the_clip_waits_in_memory(tmp_path: Path, sick: Disk, video: Path) -> None:
    bench = Bench(tmp_path)
    pool = PoolSettings(path=sick.folder, reserve_gb=0)
    init_pool(pool.path)
    bench.use_pools(pool)

    def hiccup() -> None:
        time.sleep(STALL_S * 1.5)
        bench.recorder.tick()
        assert bench.recorder.recording
        sick.thaw()

    try:
        bench.record(video, before={HURT_AT: sick.freeze, HURT_AT + 5: hiccup})
    finally:
        sick.thaw()
    assert frames_of(bench) == list(range(FRAMES))
    assert bench.recorder.problem is None or bench.recorder.problem[0] is not State.STORAGE_FULL


def test_what_is_left_of_clips_that_moved_makes_no_second_clip(tmp_path: Path, sick: Disk, video: Path) -> None:
    bench, well = two_disks(tmp_path, sick)
    bench.record(video, close=False, before={HURT_AT: lambda: (bench.settle(), sick.fill())})
    (sick.folder / "filler").unlink()
    first = bench.clips()[0]
    ((clip, part),) = bench.storage.parts(CAMERA)
    # As if killed before they were removed: both clips have half a file there.
    leftovers = [
        first.path.with_name(part_file_name(first.clip)),
        sick.folder / "clips" / part.relative_to(well.path / "clips"),
    ]
    for path, whole in zip(leftovers, (first.path, part), strict=True):
        path.write_bytes(whole.read_bytes()[:-200_000])
    assert recover(bench.storage, bench.plan, (bench.closer, bench.ledger), CAMERA, SystemClock()) == 1
    assert not any(path.exists() for path in leftovers)
    assert bench.storage.parts(CAMERA) == []
    assert [task.clip_id for task in bench.tasks()] == [stored.clip for stored in bench.clips()]
    assert bench.clips()[-1].path.is_relative_to(well.path)
    assert bench.clips()[-1].clip == clip


def test_a_start_waits_for_no_disk_that_is_set_aside(tmp_path: Path, sick: Disk, video: Path) -> None:
    bench, well = two_disks(tmp_path, sick)
    bench.record(video, close=False)
    ((_, part),) = bench.storage.parts(CAMERA)
    assert part.is_relative_to(sick.folder)
    # Half a fragment, which a repair has to cut off.
    part.write_bytes(part.read_bytes() + (1000).to_bytes(4, "big") + b"moof")
    storage = Storage([PoolSettings(path=sick.folder), well], bench.state_dir)
    assert storage.notes is not None
    storage.notes.set_aside(sick.folder, "no answer", time.time_ns())
    sick.freeze()
    try:
        assert recover(storage, bench.plan, (bench.closer, bench.ledger), CAMERA, SystemClock()) == 0
    finally:
        sick.thaw()
    storage.notes.bring_back(sick.folder)
    assert recover(storage, bench.plan, (bench.closer, bench.ledger), CAMERA, SystemClock()) == 1
    assert bench.storage.parts(CAMERA) == []


def test_a_clip_costs_three_syncs(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.record(make_video(tmp_path / "a.mp4", seconds=6))
    # The epoch and the hour's folders are there by now; the next hour is not that near.
    made, told, before = len(bench.clips()), len(read_gaps(bench.state_dir, CAMERA, 0, 2**62)), syncs()
    video = make_video(tmp_path / "b.mp4", seconds=30)
    bench.record(video)
    clips = bench.clips()[made:]
    folders = {clip.path.parent for clip in clips} - {bench.clips()[0].path.parent}
    gaps = len(read_gaps(bench.state_dir, CAMERA, 0, 2**62)) - told
    # Its content, the journal's record, the name in its folder.
    assert 3 * len(clips) <= syncs() - before <= 3 * len(clips) + gaps + 2 * len(folders)
