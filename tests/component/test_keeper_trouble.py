"""The disk keeper on disks that hang, refuse, go away and come back as others, and on what cannot be read there."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.capture import disk_keeper, shelf
from nodeagent.capture import keeper as keeping
from nodeagent.capture.disk_keeper import FULL_LOOK_EVERY, REFUSED_MOST, DiskKeeper
from nodeagent.capture.keeper import Tidier
from nodeagent.capture.probes import Probes, probe
from nodeagent.capture.retention import Limits
from nodeagent.contract.clip import ClipId, StreamName, clip_file_name, part_file_name
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.report import Kind
from nodeagent.contract.states import State
from nodeagent.infra import disks
from nodeagent.infra.board import Board
from nodeagent.infra.clip_folders import HOUR_NS, hour_folder
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.disk_notes import DiskNotes
from nodeagent.infra.hours import hour_in, summary_path
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import GIB, PoolSettings
from nodeagent.infra.stop import Stop
from nodeagent.infra.storage import Storage, StorageMissing, free_bytes, init_pool
from nodeagent.infra.worker import WorkerContext
from tests.support.disks import Disk, mounted_disk
from tests.support.eventually import eventually
from tests.support.keeping import look

START = 1_699_999_200 * NS_PER_S
LATER = START + 48 * HOUR_NS
LENGTH = 5 * NS_PER_S
WEEK = Limits(max_age_ns=7 * 24 * HOUR_NS)
NEXT_MONTH = START + 31 * 24 * HOUR_NS


def add(disk: Path, start_ns: int, *, part: bool = False, camera: str = "cam", changed_ns: int = START) -> Path:
    """A clip of 100 bytes, or one that was left unfinished, in a folder that was changed last at that time."""
    clip = ClipId(camera_id=camera, epoch=1, start_ns=start_ns)
    folder = hour_folder(disk, camera, start_ns, "record")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (part_file_name(clip) if part else clip_file_name(clip, LENGTH))
    path.write_bytes(b"x" * 100)
    os.utime(folder, ns=(changed_ns, changed_ns))
    return path


def weekly(_camera_id: str, _stream: StreamName) -> Limits:
    return WEEK


@pytest.fixture
def pool(tmp_path: Path) -> PoolSettings:
    init_pool(tmp_path / "pool")
    return PoolSettings(path=tmp_path / "pool", reserve_gb=0)


@pytest.fixture
def sick(tmp_path: Path) -> Iterator[Disk]:
    with mounted_disk(tmp_path / "sick") as disk:
        init_pool(disk.folder)
        yield disk


class Worker:
    """The keeper's looks at these disks, whose clips may be a week old."""

    def __init__(self, folder: Path, disks: list[Path]) -> None:
        config = folder / "agent.toml"
        pools = "".join(f'[[pool]]\npath = "{disk}"\nreserve_gb = 0\n' for disk in disks)
        config.write_text(f'[node]\nstate_dir = "{folder / "state"}"\n{pools}')
        (folder / "state").mkdir(exist_ok=True)
        self.cell = Board.create(folder / "board", "n1", 1, 0).claim("storage", Kind.STORAGE)
        self.ctx = WorkerContext("storage", load_settings(config), self.cell, Stop(), SystemClock(), folder)
        self._tidiers: dict[Path, Tidier] = {}
        self._probes = Probes(DiskNotes(folder / "state"), self.ctx.clock)

    def look(self) -> State:
        """One look; what it showed."""
        pools = self.ctx.settings.pools
        keeping.look(self.ctx, pools, self._tidiers, self._probes, weekly, time.time_ns())
        return self.cell.current_state


def test_a_disk_that_hangs_keeps_no_other_from_being_tidied(
    tmp_path: Path, pool: PoolSettings, sick: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LOOK_S", 0.2)
    monkeypatch.setattr(keeping, "STEP_ALLOW_S", 0.4)
    monkeypatch.setattr(disk_keeper, "FULL_LOOK_EVERY", 1)
    on_sick = add(sick.folder, START)
    worker = Worker(tmp_path, [sick.folder, pool.path])
    sick.freeze()
    try:
        for n in range(3):
            gone = add(pool.path, START + n * LENGTH)
            worker.look()
            assert not gone.exists()
        eventually(lambda: worker.look() is State.DISK_ASIDE)
        assert worker.cell.get("deleted") == 3
        # One thread for tidying and one for probes, however often it is looked at.
        assert len([thread for thread in threading.enumerate() if str(sick.folder) in thread.name]) <= 2
    finally:
        sick.thaw()
    eventually(lambda: worker.look() is State.RUNNING and not on_sick.exists(), within_s=15)
    assert worker.cell.get("deleted") == 4


def test_a_read_only_disk_is_a_state_and_no_line_of_the_log_at_each_look(
    tmp_path: Path, sick: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(50):
        add(sick.folder, START + n * LENGTH)
    worker = Worker(tmp_path, [sick.folder])
    subprocess.run(["mount", "-o", "remount,ro", str(sick.folder)], check=True)
    eventually(lambda: worker.look() is State.DISK_ASIDE)
    for _ in range(5):
        worker.look()
    assert "cannot be deleted" not in caplog.text
    assert worker.cell.get("clips") == 50


def test_deletions_that_are_refused_are_told_once_and_do_not_walk_the_disk(
    pool: PoolSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(100):
        add(pool.path, START + n * LENGTH)
    asked: list[Path] = []

    def refuse(path: Path, missing_ok: bool = False) -> None:
        asked.append(path)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "unlink", refuse)
    keeper = DiskKeeper(pool, weekly)
    for _ in range(3):
        assert look(keeper, NEXT_MONTH) == []
    assert len(asked) == 3 * REFUSED_MOST
    assert caplog.text.count("cannot be deleted") == 1


def test_another_disk_in_the_place_of_one_is_counted_anew(tmp_path: Path) -> None:
    first, second, place = (tmp_path / name for name in ("first", "second", "place"))
    for disk, clips in ((first, 10), (second, 4)):
        init_pool(disk)
        for n in range(clips):
            add(disk, START + n * LENGTH)
    place.symlink_to(first)
    keeper = DiskKeeper(PoolSettings(path=place, quota_gb=1000 / GIB, reserve_gb=0))
    assert look(keeper, START + HOUR_NS) == []
    assert keeper.used == (10, 1000)
    place.unlink()
    place.symlink_to(second)
    # It has room for all that it holds: what the other one held does not count here.
    assert look(keeper, START + HOUR_NS) == []
    assert keeper.used == (4, 400)


def test_a_disk_that_was_away_is_counted_anew_and_its_mount_point_stays_empty(sick: Disk) -> None:
    paths = [add(sick.folder, START + n * HOUR_NS) for n in range(4)]
    keeper = DiskKeeper(PoolSettings(path=sick.folder, quota_gb=400 / GIB, reserve_gb=0))
    assert look(keeper, LATER) == []
    sick.unmount()
    with pytest.raises(StorageMissing):
        keeper.find(LATER)
    # Away between the look for folders and the rest of it.
    assert list(keeper.count(LATER)) == []
    assert list(keeper.clear(NEXT_MONTH)) == []
    assert list(sick.folder.iterdir()) == []
    sick.mount()
    paths[0].unlink()
    assert look(keeper, LATER) == []
    assert keeper.used == (3, 300)


def test_a_disk_that_goes_in_the_middle_of_a_look_is_not_written_below(sick: Disk) -> None:
    for n in range(6):
        add(sick.folder, START + n * HOUR_NS)
    keeper = DiskKeeper(PoolSettings(path=sick.folder, quota_gb=250 / GIB, reserve_gb=0))
    keeper.find(LATER)
    for done, _ in enumerate(keeper.count(LATER), 1):
        if done == 3:
            sick.unmount()
    for done, _ in enumerate(keeper.clear(LATER), 1):
        assert done < 6
    assert list(sick.folder.iterdir()) == []


def test_a_disk_that_goes_after_it_showed_its_marker_is_not_written_below(
    sick: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = PoolSettings(path=sick.folder, reserve_gb=0)
    asked: list[int] = []

    def gone_meanwhile(path: Path) -> int:
        asked.append(free_bytes(path))
        sick.unmount()
        return asked[-1]

    monkeypatch.setattr(disks, "free_bytes", gone_meanwhile)
    with pytest.raises(StorageMissing):
        disks.prepare(pool, "cam", START, "record")
    with pytest.raises(StorageMissing):
        probe(sick.folder, SystemClock())
    assert list(sick.folder.iterdir()) == []


def test_an_hour_that_cannot_be_read_leaves_no_summary_and_counts_when_it_can(
    pool: PoolSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = add(pool.path, START).parent
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path) == folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return scandir(path)

    keeper = DiskKeeper(pool)
    with monkeypatch.context() as broken:
        broken.setattr(os, "scandir", refuse)
        look(keeper, LATER)
        look(keeper, LATER)
    assert not summary_path(folder).exists()
    assert caplog.text.count("cannot be read") == 1
    for _ in range(FULL_LOOK_EVERY):
        look(keeper, LATER)
    assert keeper.used == (1, 100)
    assert hour_in(folder).clips == 1


def test_clips_that_cannot_be_looked_at_do_not_keep_the_keeper_for_ever(
    pool: PoolSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "REMEMBERED_MOST", 5)
    for n in range(12):
        add(pool.path, START + n * LENGTH)
    add(pool.path, START + HOUR_NS)
    lstat = os.lstat

    def refuse(path: str) -> os.stat_result:
        if f"_{START + 11 * LENGTH}_" in path or f"_{START + HOUR_NS}_" in path:
            return lstat(path)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "lstat", refuse)
    gone = look(DiskKeeper(pool, weekly), NEXT_MONTH)
    assert [held.start_ns for held in gone] == [START + 11 * LENGTH, START + HOUR_NS]


def test_an_hour_of_unfinished_clips_alone_keeps_its_summary(pool: PoolSettings) -> None:
    folder = add(pool.path, START, part=True).parent
    keeper = DiskKeeper(pool)
    for _ in range(3):
        look(keeper, LATER)
    assert keeper.used == (0, 100)
    assert summary_path(folder).is_file()
    assert hour_in(folder).parts == 1


def test_unfinished_clips_of_closed_hours_go_with_the_others_of_their_age(pool: PoolSettings) -> None:
    # Nobody finishes them: the disk comes from another node, or the camera's capture never started again.
    left = [add(pool.path, START, part=True), add(pool.path, START + LENGTH)]
    fresh = add(pool.path, NEXT_MONTH - 6 * 24 * HOUR_NS, part=True)
    keeper = DiskKeeper(pool, weekly)
    assert [held.name for held in look(keeper, NEXT_MONTH)] == [str(path) for path in left]
    assert fresh.exists()
    assert keeper.used == (0, 100)
    assert not left[0].parent.exists()


def test_a_clip_that_is_being_written_stays_whatever_is_too_much(pool: PoolSettings) -> None:
    growing, clip = add(pool.path, START, part=True), add(pool.path, START + LENGTH)
    keeper = DiskKeeper(PoolSettings(path=pool.path, quota_gb=50 / GIB, reserve_gb=0))
    assert [held.name for held in look(keeper, START + HOUR_NS)] == [str(clip)]
    assert growing.exists()
    assert look(keeper, START + HOUR_NS) == []


def test_two_disks_copied_into_one_hold_the_clips_of_both(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for n, disk in enumerate((one, two)):
        init_pool(disk)
        add(disk, START + n * 60 * LENGTH)
        look(DiskKeeper(PoolSettings(path=disk, reserve_gb=0)), LATER)
    # As `cp -a` does: the folder has all files, the time of the one copied, and that one's summary beside it.
    shutil.copytree(one / "clips", two / "clips", dirs_exist_ok=True)
    assert len(Storage([PoolSettings(path=two)]).timeline("cam", 0, 2**62)) == 2
    keeper = DiskKeeper(PoolSettings(path=two, reserve_gb=0))
    look(keeper, LATER)
    assert keeper.used == (2, 200)


def test_hours_days_and_cameras_of_the_same_name_are_told_apart(pool: PoolSettings) -> None:
    for camera in ("2023-11-14", "22", "clips", "analyse", "cam_1_2_3"):
        add(pool.path, START, camera=camera)
    keeper = DiskKeeper(pool)
    look(keeper, LATER)
    assert keeper.used == (5, 500)
    only = DiskKeeper(pool, lambda camera_id, _stream: WEEK if camera_id == "2023-11-14" else Limits())
    assert [Path(held.name).name.partition("_")[0] for held in look(only, NEXT_MONTH)] == ["2023-11-14"]
    assert Storage([pool]).cameras() == ["22", "analyse", "cam_1_2_3", "clips"]
