"""The disk keeper on real folders: what it counts, what it need not count, and what it deletes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nodeagent.capture import keeper as keeping
from nodeagent.capture import shelf
from nodeagent.capture.classes import Classes
from nodeagent.capture.disk_keeper import FULL_LOOK_EVERY, DiskKeeper
from nodeagent.capture.hour_folders import RACY_NS
from nodeagent.capture.journal import Journal
from nodeagent.capture.probes import Probes
from nodeagent.capture.recovery import epoch_for
from nodeagent.capture.retention import Limits
from nodeagent.contract.clip import ClipId, StreamName, clip_file_name
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.report import Kind
from nodeagent.contract.states import State
from nodeagent.infra.board import Board
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.disk_notes import DiskNotes
from nodeagent.infra.hours import SUMMARY_SUFFIX
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import GIB, PoolSettings
from nodeagent.infra.stop import Stop
from nodeagent.infra.storage import Storage, init_pool
from nodeagent.infra.wanted import Wanted, write_wanted
from nodeagent.infra.worker import WorkerContext
from tests.support.eventually import eventually
from tests.support.keeping import look

HOUR_NS = 3600 * NS_PER_S
LENGTH = 5 * NS_PER_S
#: Half past an hour, UTC, and two days later, when its folder is closed.
START = 1_699_999_200 * NS_PER_S + HOUR_NS // 2
LATER = START + 48 * HOUR_NS


class Disk:
    """One disk of a pool, with clips of 100 bytes."""

    def __init__(self, path: Path, *, clips_kept: float = 1e6, reserve_gb: float = 0.0) -> None:
        init_pool(path)
        self.pool = PoolSettings(path=path, quota_gb=100 * clips_kept / GIB, reserve_gb=reserve_gb)
        self.storage = Storage([PoolSettings(path=path, reserve_gb=0)])

    def add(self, start_ns: int, camera: str = "cam", changed_ns: int = START) -> Path:
        """Write a clip, into a folder that was changed last at that time."""
        clip = ClipId(camera_id=camera, epoch=1, start_ns=start_ns)
        path = self.storage.folder_for(camera, start_ns) / clip_file_name(clip, LENGTH)
        path.write_bytes(b"x" * 100)
        os.utime(path.parent, ns=(changed_ns, changed_ns))
        return path

    def starts(self, camera: str = "cam") -> list[int]:
        """Starts of the clips that are left."""
        return [stored.clip.start_ns for stored in self.storage.clips(camera, 0, 2**62)]


def test_the_keeper_counts_and_drops_empty_folders_of_the_past(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p", clips_kept=1.5)
    first = disk.add(START)
    for n in (1, 2):
        disk.add(START + n * HOUR_NS)
    look(DiskKeeper(PoolSettings(path=disk.pool.path, reserve_gb=0)), LATER)
    assert first.parent.with_name(first.parent.name + SUMMARY_SUFFIX).exists()
    keeper = DiskKeeper(disk.pool)
    assert len(look(keeper, LATER)) == 2
    assert keeper.used == (1, 100)
    assert len(list(disk.storage.hour_folders("cam"))) == 1
    assert not first.parent.parent.exists() or len(list(first.parent.parent.iterdir())) == 2


def test_a_closed_hour_is_counted_once_and_again_when_its_folder_changed(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p")
    path = disk.add(START)
    summary = path.parent.with_name(path.parent.name + SUMMARY_SUFFIX)
    keeper = DiskKeeper(disk.pool)
    look(keeper, LATER)
    saved = {
        "v": 3,
        "inode": path.parent.stat().st_ino,
        "changed_ns": START,
        "clips": 1,
        "bytes": 100,
        "parts": 0,
        "epoch": 1,
        "spans": [[START, START + LENGTH]],
    }
    assert json.loads(summary.read_bytes()) == saved
    # The next process believes it ...
    summary.write_text(json.dumps(saved | {"clips": 7, "bytes": 700}))
    keeper = DiskKeeper(disk.pool)
    look(keeper, LATER)
    assert keeper.used == (7, 700)
    # ... unless the folder was changed since, or the summary is half a one, or an older version wrote it.
    disk.add(START + LENGTH, changed_ns=START + 9)
    keeper = DiskKeeper(disk.pool)
    look(keeper, LATER)
    assert keeper.used == (2, 200)
    for text in ('{"v": 3, "clips": 7', json.dumps(saved | {"v": 2, "changed_ns": START + 9})):
        summary.write_text(text)
        keeper = DiskKeeper(disk.pool)
        look(keeper, LATER)
        assert keeper.used == (2, 200)


def test_an_hour_that_was_watched_while_it_grew_has_a_summary_when_it_is_closed(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p")
    path = disk.add(START)
    summary = path.parent.with_name(path.parent.name + SUMMARY_SUFFIX)
    keeper = DiskKeeper(disk.pool)
    look(keeper, START + HOUR_NS)
    assert not summary.exists()
    for _ in range(FULL_LOOK_EVERY):
        look(keeper, LATER)
    assert json.loads(summary.read_bytes())["clips"] == 1
    # Once: it costs a listing.
    summary.unlink()
    for _ in range(FULL_LOOK_EVERY):
        look(keeper, LATER)
    assert not summary.exists()


def test_a_deletion_makes_the_summary_stale(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p", clips_kept=2.5)
    for n in range(4):
        disk.add(START + n * LENGTH)
    keeper = DiskKeeper(disk.pool)
    assert len(look(keeper, LATER)) == 2
    # As after kill -9 behind the last deletion: only the disk knows.
    again = DiskKeeper(disk.pool)
    assert look(again, LATER) == []
    assert again.used == keeper.used == (2, 200)


def test_a_change_that_may_be_followed_by_one_of_the_same_time_is_not_relied_on(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p")
    path = disk.add(START, changed_ns=LATER - RACY_NS // 2)
    look(DiskKeeper(disk.pool), LATER)
    assert not path.parent.with_name(path.parent.name + SUMMARY_SUFFIX).exists()


def test_a_look_lists_only_what_grows_and_now_and_then_everything(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p")
    for n in range(20):
        disk.add(START + n * HOUR_NS)
    beats: list[int] = []
    keeper = DiskKeeper(disk.pool, beat=lambda: beats.append(1))
    look(keeper, LATER)
    assert len(beats) >= 20
    beats.clear()
    disk.add(START + LENGTH, changed_ns=START + 1)
    disk.add(LATER, changed_ns=LATER)
    # Capture times run ahead of a clock that was set back.
    disk.add(LATER + 10 * HOUR_NS, changed_ns=LATER)
    look(keeper, LATER)
    assert keeper.used == (22, 2200)
    assert len(beats) <= 5
    for _ in range(FULL_LOOK_EVERY):
        look(keeper, LATER)
    assert keeper.used == (23, 2300)


def test_deletion_does_not_wait_for_the_first_count(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p", reserve_gb=900_000)
    for n in range(3):
        disk.add(START + n * HOUR_NS)
    keeper = DiskKeeper(disk.pool)
    keeper.find(LATER)
    assert len(list(keeper.clear(LATER))) == 3
    assert disk.starts() == []


def test_counting_goes_on_where_it_was_left(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p", clips_kept=0.5)
    for n in range(6):
        disk.add(START + n * HOUR_NS)
    keeper = DiskKeeper(disk.pool)
    keeper.find(LATER)
    for done, _ in enumerate(keeper.count(LATER), 1):
        if done == 2:
            break
    assert keeper.used == (2, 200)
    assert list(keeper.count(LATER)) == [None] * 4
    assert keeper.used == (6, 600)


def test_one_file_that_cannot_be_deleted_does_not_end_retention(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(tmp_path / "p")
    paths = [disk.add(START + n * LENGTH) for n in range(8)]
    # A folder with a clip's name: unlinking it is refused, whoever asks.
    paths[1].unlink()
    paths[1].mkdir()
    quota_gb = (paths[1].stat().st_size + 250) / GIB
    keeper = DiskKeeper(PoolSettings(path=disk.pool.path, quota_gb=quota_gb, reserve_gb=0))
    for _ in range(3):
        look(keeper, LATER)
    assert [path for path in paths if path.is_file()] == paths[-2:]
    assert caplog.text.count("cannot be deleted") == 1


def test_other_readers_do_not_see_summaries(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p")
    path = disk.add(START)
    look(DiskKeeper(disk.pool), LATER)
    assert len(list(path.parent.parent.iterdir())) == 2
    storage = disk.storage
    assert list(storage.hour_folders("cam")) == [path.parent]
    assert [stored.path for stored in storage.clips("cam", 0, 2**62)] == [path]
    assert storage.parts("cam") == []
    assert epoch_for(storage, Journal(tmp_path / "journal" / "cam.jsonl"), "cam", wall_ns=0) == 2


def test_the_worker_shows_a_disk_that_stays_under_its_reserve_and_goes_on_with_the_next(tmp_path: Path) -> None:
    full, good = Disk(tmp_path / "full", reserve_gb=900_000), Disk(tmp_path / "good")
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[node]\nnode_id = "n1"\nstate_dir = "{tmp_path / "state"}"\n'
        f'[[pool]]\npath = "{full.pool.path}"\nreserve_gb = 900000\n[[pool]]\npath = "{good.pool.path}"\n'
    )
    good.add(START)
    board = Board.create(tmp_path / "board", "n1", os.getpid(), 0)
    cell = board.claim("storage", Kind.STORAGE)
    ctx = WorkerContext("storage", load_settings(config), cell, Stop(), SystemClock(), tmp_path)
    probes = Probes(DiskNotes(tmp_path / "state"), ctx.clock)
    keeping.look(ctx, ctx.settings.pools, {}, probes, ages(), ctx.clock.wall_ns())
    assert cell.current_state is State.STORAGE_FULL
    assert (cell.get("clips"), cell.get("bytes")) == (1, 100)
    # Of a disk that cannot be used nothing is told: it is not empty.
    room = DiskNotes(tmp_path / "state").room()
    assert set(room) == {good.pool.path}
    assert 0 <= room[good.pool.path] <= 1


def ages(**of: Limits) -> Callable[[str, StreamName], Limits]:
    """Limits by camera; others by space alone."""
    return lambda camera_id, _stream: of.get(camera_id, Limits())


def test_clips_past_the_age_of_their_class_go_and_no_folder_is_read_before(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p")
    week = Limits(max_age_ns=7 * 24 * HOUR_NS)
    for n in range(3):
        for camera in ("short", "long"):
            disk.add(START + n * HOUR_NS, camera)
    beats: list[int] = []
    keeper = DiskKeeper(disk.pool, ages(short=week), lambda: beats.append(1))
    assert look(keeper, LATER) == []
    gone = look(keeper, START + 7 * 24 * HOUR_NS + HOUR_NS + 1)
    assert [held.start_ns for held in gone] == [START, START + HOUR_NS]
    assert (disk.starts("short"), len(disk.starts("long"))) == ([START + 2 * HOUR_NS], 3)
    # What is left is remembered: a look reads no folder, until the next clip's time has come.
    beats.clear()
    assert look(keeper, START + 7 * 24 * HOUR_NS + HOUR_NS + 2) == []
    assert beats == []
    assert len(look(keeper, START + 7 * 24 * HOUR_NS + 2 * HOUR_NS + 1)) == 1


def test_clips_of_the_sub_stream_count_and_go_by_limits_of_their_own(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p")
    clip = ClipId(camera_id="cam", epoch=1, start_ns=START)
    sub = disk.storage.folder_for("cam", START, "analyse") / clip_file_name(clip, LENGTH)
    sub.write_bytes(b"x" * 30)
    main = disk.add(START)
    settings = load_settings(write_config(tmp_path, disk.pool.path, ""))
    keeper = DiskKeeper(disk.pool, Classes(settings).limits)
    assert look(keeper, START + 24 * HOUR_NS) == []
    assert keeper.used == (2, 130)
    assert [held.name for held in look(keeper, START + 24 * HOUR_NS + 1)] == [str(sub)]
    assert main.exists()
    assert keeper.used == (1, 100)


def test_a_full_disk_reads_its_oldest_hour_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "REMEMBERED_MOST", 25)
    disk = Disk(tmp_path / "p", clips_kept=200)
    for camera in range(4):
        for n in range(50):
            disk.add(START + n * LENGTH, f"cam-{camera}")
    keeper = DiskKeeper(disk.pool)
    assert look(keeper, LATER) == []
    beats: list[int] = []
    keeper._beat = lambda: beats.append(1)
    for made in range(1, 21):
        disk.add(LATER + made * LENGTH, "cam-0", changed_ns=LATER + made)
        keeper.find(LATER)
        list(keeper.count(LATER))
        beats.clear()
        assert [held.start_ns for held in keeper.clear(LATER)] == [START + (made - 1) // 4 * LENGTH]
        # One for the clip; the four folders of the hour are read at the first of these looks alone.
        assert len(beats) == 1
    assert keeper.used == (200, 20_000)


def test_an_hour_of_more_clips_than_are_remembered_goes_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "REMEMBERED_MOST", 3)
    disk = Disk(tmp_path / "p", clips_kept=2)
    for n in range(20):
        disk.add(START + n * LENGTH, f"cam-{n % 3}")
    gone = look(DiskKeeper(disk.pool), LATER)
    assert [held.start_ns for held in gone] == [START + n * LENGTH for n in range(18)]


def test_a_pin_made_after_the_hour_was_read_keeps_the_bytes(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p", clips_kept=3)
    for n in range(4):
        disk.add(START + n * LENGTH)
    keeper = DiskKeeper(disk.pool)
    assert len(look(keeper, LATER)) == 1
    disk.storage.pin(disk.storage.clips("cam", 0, 2**62)[:1], "key")
    disk.add(START + 4 * LENGTH, changed_ns=START + 1)
    for _ in range(FULL_LOOK_EVERY):
        gone = look(keeper, LATER)
        if gone:
            break
    assert [(held.start_ns, held.pinned) for held in gone] == [(START + LENGTH, True)]
    assert [stored.path.read_bytes() for stored in disk.storage.pinned("key")] == [b"x" * 100]


def write_config(folder: Path, pool: Path, cameras: str) -> Path:
    path = folder / "nodeagent.toml"
    path.write_text(
        f'[node]\nnode_id = "n1"\nstate_dir = "{folder / "state"}"\n[[pool]]\npath = "{pool}"\n'
        '[[models]]\nname = "m"\nfile = "m.toml"\n'
        '[[retention]]\nname = "gate"\ndays = 7\nanalyse_hours = 2\nweight = 3\n'
        '[[retention]]\nname = "default"\ndays = 30\n' + cameras
    )
    return path


def test_a_camera_that_is_removed_keeps_the_class_it_had(tmp_path: Path) -> None:
    camera = '[[cameras]]\ncamera_id = "a"\nrecord = {{ url = "a.mp4" }}\nretention = "{}"\n'
    settings = load_settings(write_config(tmp_path, tmp_path / "p", camera.format("gate")))
    wanted = settings.node.state_dir / "wanted.json"
    wanted.parent.mkdir()
    week, month = Limits(7 * 24 * HOUR_NS, 3.0), Limits(30 * 24 * HOUR_NS)
    classes = Classes(settings)
    assert (classes.refresh(), classes.limits("a", "record")) == (False, month)
    write_wanted(wanted, Wanted(1, settings.cameras))
    assert (classes.refresh(), classes.limits("a", "record")) == (True, week)
    assert classes.limits("a", "analyse") == Limits(2 * HOUR_NS, 3.0)
    assert classes.limits("b", "record") == month
    write_wanted(wanted, Wanted(2, ()))
    assert (classes.refresh(), classes.limits("a", "record")) == (False, week)
    # The next process knows it too, until the camera comes back with another class.
    again = Classes(settings)
    assert again.limits("a", "record") == week
    write_wanted(wanted, Wanted(3, load_settings(write_config(tmp_path, tmp_path / "p", camera.format(""))).cameras))
    assert (again.refresh(), again.limits("a", "record")) == (True, month)
    wanted.with_name("retention.json").write_text("[]")
    assert Classes(settings).limits("a", "record") == month


def test_another_class_holds_for_the_clips_that_are_there(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p")
    for n in range(3):
        disk.add(START + n * HOUR_NS)
    of: dict[str, Limits] = {}
    keeper = DiskKeeper(disk.pool, lambda camera_id, _stream: of.get(camera_id, Limits()))
    assert look(keeper, LATER) == []
    of["cam"] = Limits(max_age_ns=24 * HOUR_NS)
    keeper.follow(disk.pool, lambda camera_id, _stream: of.get(camera_id, Limits()))
    assert len(look(keeper, LATER)) == 3
    assert keeper.used == (0, 0)


def test_a_lower_quota_holds_at_the_next_look_without_a_count(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p", clips_kept=4)
    for n in range(4):
        disk.add(START + n * HOUR_NS)
    beats: list[int] = []
    keeper = DiskKeeper(disk.pool, beat=lambda: beats.append(1))
    assert look(keeper, LATER) == []
    keeper.follow(disk.pool.model_copy(update={"quota_gb": 150 / GIB}), keeper._limits_of)
    beats.clear()
    assert [held.start_ns for held in look(keeper, LATER)] == [START, START + HOUR_NS, START + 2 * HOUR_NS]
    # Each of the three folders is read once, and each clip deleted once.
    assert len(beats) == 6


def test_the_worker_follows_the_class_of_a_wanted_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LOOK_S", 0.01)
    disk = Disk(tmp_path / "p")
    for camera in ("old", "kept"):
        disk.add(START, camera)
    camera = '[[cameras]]\ncamera_id = "old"\nrecord = { url = "a.mp4" }\nretention = "gate"\n'
    path = write_config(tmp_path, disk.pool.path, camera)
    path.write_text(path.read_text().replace("days = 30", "days = 0"))
    (tmp_path / "state").mkdir()
    settings, stop = load_settings(path), Stop()
    board = Board.create(tmp_path / "board", "n1", os.getpid(), 0)
    ctx = WorkerContext("storage", settings, board.claim("storage", Kind.STORAGE), stop, SystemClock(), tmp_path)
    worker = threading.Thread(target=keeping.main, args=(ctx, ""))
    worker.start()
    try:
        eventually(lambda: ctx.cell.get("clips") == 2)
        write_wanted(settings.node.state_dir / "wanted.json", Wanted(1, settings.cameras))
        eventually(lambda: (disk.starts("old"), disk.starts("kept")) == ([], [START]))
        eventually(lambda: ctx.cell.get("deleted") == 1)
    finally:
        stop.request()
        worker.join()
    assert disk.starts("kept") == [START]
