"""The pool: markers, clips by identity and time, pins."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path

import pytest

from nodeagent.capture.disk_keeper import DiskKeeper
from nodeagent.contract.clip import ClipId, StreamName, clip_file_name, part_file_name
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.clip_folders import HOUR_NS
from nodeagent.infra.disk_notes import ASIDE_NS, SLOW_WEIGHT, Aside, DiskNotes, weights_of
from nodeagent.infra.disks import Marker, drawn_order, read_marker, write_marker
from nodeagent.infra.pool_list import POOLS, write_pools
from nodeagent.infra.settings.sections import GIB, PoolSettings
from nodeagent.infra.storage import (
    Listing,
    Storage,
    StorageFull,
    StorageMissing,
    init_pool,
    is_pool,
)
from tests.support.disks import mounted_tmpfs
from tests.support.keeping import look

#: Five seconds before a full hour, UTC.
LATE = 1_699_999_200 * NS_PER_S - 5 * NS_PER_S
LENGTH = 5 * NS_PER_S


def a_pool(folder: Path, **limits: float) -> PoolSettings:
    init_pool(folder)
    return PoolSettings(path=folder, **({"reserve_gb": 0.0} | limits))


def add_clip(
    storage: Storage, start_ns: int, camera: str = "cam", size: int = 100, stream: StreamName = "record"
) -> ClipId:
    clip = ClipId(camera_id=camera, epoch=3, start_ns=start_ns)
    (storage.folder_for(camera, start_ns, stream) / clip_file_name(clip, LENGTH)).write_bytes(b"x" * size)
    return clip


def test_a_pool_keeps_its_id_and_one_without_marker_is_never_written(tmp_path: Path) -> None:
    assert init_pool(tmp_path / "a") == init_pool(tmp_path / "a") != init_pool(tmp_path / "b")
    (tmp_path / "bare").mkdir()
    with pytest.raises(StorageMissing, match="missing: no marker"):
        Storage([PoolSettings(path=tmp_path / "bare")]).folder_for("cam", LATE)
    assert list((tmp_path / "bare").iterdir()) == []
    unanswered = tmp_path / ("x" * 300)
    with pytest.raises(StorageMissing):
        Storage([PoolSettings(path=unanswered)]).folder_for("cam", LATE)


def test_a_disk_under_its_reserve_is_full_and_another_is_taken(tmp_path: Path) -> None:
    full = a_pool(tmp_path / "full", reserve_gb=900_000.0)
    with pytest.raises(StorageFull, match="full: "):
        Storage([full]).folder_for("cam", LATE)
    both = Storage([full, a_pool(tmp_path / "free")])
    assert both.folder_for("cam", LATE).is_relative_to(tmp_path / "free")


def test_a_disk_that_answers_with_an_error_is_missing_and_stops_no_other(tmp_path: Path) -> None:
    # A name that no file system takes: any question about it is an error, and not "there is no such file".
    sick = PoolSettings(path=tmp_path / ("x" * 300), reserve_gb=0)
    assert not is_pool(sick.path)
    with pytest.raises(StorageMissing):
        Storage([sick]).folder_for("cam", LATE)
    both = Storage([sick, a_pool(tmp_path / "well")])
    assert both.folder_for("cam", LATE).is_relative_to(tmp_path / "well")


def disk_of(storage: Storage, start_ns: int, camera: str = "cam") -> str:
    return storage.folder_for(camera, start_ns).parents[3].name


def test_hours_are_spread_over_the_disks_by_quota_and_stay_where_they_are(tmp_path: Path) -> None:
    pools = [a_pool(tmp_path / name, quota_gb=quota) for name, quota in (("a", 100.0), ("b", 300.0), ("c", 200.0))]
    storage, hours = Storage(pools), [LATE + n * 3600 * NS_PER_S for n in range(60)]
    drawn = [disk_of(storage, hour, f"cam-{n}") for n in range(10) for hour in hours]
    assert [round(drawn.count(name) / 100) for name in "abc"] == [1, 3, 2]
    assert storage.folder_for("cam", LATE) == storage.folder_for("cam", LATE - 3000 * NS_PER_S)
    # The same in every process, in whatever order they are configured; a disk that goes takes only its own hours along.
    turned, fewer = Storage(pools[::-1]), Storage(pools[:2])
    for hour in hours:
        assert disk_of(turned, hour) == (chosen := disk_of(storage, hour))
        assert chosen in ("c", disk_of(fewer, hour))


def test_a_slow_disk_gets_a_smaller_share(tmp_path: Path) -> None:
    pools = [a_pool(tmp_path / "a"), a_pool(tmp_path / "b")]
    weights = weights_of({pools[0].path: 1.0, pools[1].path: 0.02}, {})
    hours = [LATE + n * 3600 * NS_PER_S for n in range(400)]
    first = [drawn_order(pools, "cam", hour, weights)[0] for hour in hours]
    assert 50 < first.count(pools[0]) < 110
    # Slow beside the others, not slow as such; and a few milliseconds are nothing.
    assert weights_of({pools[0].path: 1.0, pools[1].path: 0.9}, {}) == {}
    assert weights_of({pools[0].path: 0.2, pools[1].path: 0.01}, {}) == {}


def test_an_empty_disk_beside_a_full_one_gets_twice_its_share(tmp_path: Path) -> None:
    pools = [a_pool(tmp_path / "a"), a_pool(tmp_path / "b")]
    weights = weights_of({}, {pools[0].path: 0.0, pools[1].path: 1.0})
    hours = [LATE + n * 3600 * NS_PER_S for n in range(600)]
    first = [drawn_order(pools, "cam", hour, weights)[0] for hour in hours]
    assert 350 < first.count(pools[1]) < 450
    # Where all are full, quotas alone count; and nobody who writes nonsense empties a disk's share.
    assert set(weights_of({}, dict.fromkeys((pool.path for pool in pools), 0.0)).values()) == {1.0}
    assert weights_of({}, {pools[0].path: -3.0, pools[1].path: 9.0}) == {pools[0].path: 1.0, pools[1].path: 2.0}


def test_notes_are_shared_and_run_out(tmp_path: Path) -> None:
    mine, theirs = DiskNotes(tmp_path), DiskNotes(tmp_path)
    now_ns = time.time_ns()
    mine.set_aside(Path("/a"), "refused", now_ns)
    theirs.set_aside(Path("/a"), "another reason", now_ns)
    assert theirs.aside(now_ns) == {Path("/a"): Aside(Path("/a"), "refused", now_ns)}
    assert theirs.aside(now_ns + ASIDE_NS + NS_PER_S) == {}
    theirs.bring_back(Path("/a"))
    assert mine.aside(now_ns) == {}
    assert mine.weights() == {}
    mine.write_measured({Path("/a"): 2.0, Path("/b"): 0.1}, {Path("/b"): 0.52})
    assert theirs.measured() == {Path("/a"): 2.0, Path("/b"): 0.1}
    assert theirs.weights() == {Path("/a"): SLOW_WEIGHT, Path("/b"): 1.5}


def test_the_list_of_disks_is_followed_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    first, second = a_pool(tmp_path / "a"), a_pool(tmp_path / "b")
    storage = Storage([first], tmp_path)
    assert storage.pools == (first,)
    write_pools(tmp_path, [first, second])
    assert storage.pools == (first, second)
    (tmp_path / POOLS).write_text("{half")
    assert storage.pools == (first, second)
    write_pools(tmp_path, [second])
    assert storage.pools == (second,)


def test_a_retired_disk_takes_no_clip_and_keeps_what_it_has(tmp_path: Path) -> None:
    pools = [a_pool(tmp_path / "a"), a_pool(tmp_path / "b")]
    storage = Storage(pools)
    marker = read_marker(pools[0].path)
    assert marker is not None
    write_marker(pools[0].path, Marker(marker.pool_id, retired=True))
    hours = [LATE + n * 3600 * NS_PER_S for n in range(12)]
    assert {disk_of(storage, hour) for hour in hours} == {"b"}
    assert init_pool(pools[0].path) == marker.pool_id
    with pytest.raises(StorageFull, match="retired"):
        Storage(pools[:1]).folder_for("cam", LATE)


@pytest.mark.parametrize("sick", ["a", "b"])
def test_a_disk_that_went_read_only_is_passed_by(tmp_path: Path, sick: str) -> None:
    with mounted_tmpfs(tmp_path / "a") as a, mounted_tmpfs(tmp_path / "b") as b:
        storage = Storage([a_pool(a / "pool"), a_pool(b / "pool")])
        hours = [LATE + n * 3600 * NS_PER_S for n in range(12)]
        assert {disk_of(storage, hour) for hour in hours} == {"pool"}
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / sick)], check=True)
        assert not any(storage.folder_for("cam", hour).is_relative_to(tmp_path / sick) for hour in hours)


def test_clips_are_found_by_identity_and_by_time_over_hours_and_disks(tmp_path: Path) -> None:
    first, second = (Storage([a_pool(tmp_path / name)]) for name in ("one", "two"))
    clips = [add_clip((first, second)[n % 2], LATE + n * LENGTH) for n in range(4)]
    add_clip(first, LATE, camera="other")
    both = Storage([PoolSettings(path=tmp_path / name) for name in ("one", "two")])
    assert [s.clip for s in both.clips("cam", 0, 2**62)] == clips
    assert [s.clip for s in both.clips("cam", LATE + LENGTH, LATE + 2 * LENGTH)] == [clips[1]]
    assert [s.clip for s in both.clips("cam", LATE + LENGTH - 1, LATE + 2 * LENGTH + 1)] == clips[:3]
    found = both.find(clips[2])
    assert found is not None
    assert (found.duration_ns, found.end_ns) == (LENGTH, LATE + 3 * LENGTH)
    assert both.find(ClipId(camera_id="cam", epoch=4, start_ns=LATE)) is None
    assert both.cameras() == ["cam", "other"]


def test_the_two_streams_of_a_camera_lie_apart_and_on_one_disk(tmp_path: Path) -> None:
    storage = Storage([a_pool(tmp_path / "a"), a_pool(tmp_path / "b")])
    main = add_clip(storage, LATE)
    assert storage.find(main, "analyse") is None
    assert add_clip(storage, LATE, stream="analyse") == main
    later = add_clip(storage, LATE + LENGTH, stream="analyse")
    sub = storage.find(main, "analyse")
    assert sub is not None
    assert sub.path.parts[-5:-1] == ("analyse", "cam", "2023-11-14", "21")
    assert disk_of(storage, LATE) == sub.path.parents[4].name
    assert [s.clip for s in storage.clips("cam", 0, 2**62)] == [main]
    assert [s.clip for s in storage.clips("cam", 0, 2**62, stream="analyse")] == [main, later]
    part = storage.folder_for("cam", LATE, "analyse") / part_file_name(later)
    part.touch()
    assert (storage.parts("cam"), storage.parts("cam", "analyse")) == ([], [(later, part)])
    add_clip(storage, LATE, camera="watched", stream="analyse")
    assert storage.cameras() == ["cam", "watched"]


def test_the_newest_end_is_found_in_the_newest_folders_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disks = [Storage([a_pool(tmp_path / name)]) for name in ("a", "b")]
    both = Storage([PoolSettings(path=tmp_path / name) for name in ("a", "b")])
    assert both.newest_end("cam") is None
    for hour in range(60):
        add_clip(disks[hour % 2], LATE + hour * HOUR_NS)
    add_clip(disks[0], LATE + 58 * HOUR_NS - LENGTH)
    # A folder that a capture has just made, or that retention has emptied.
    disks[1].folder_for("cam", LATE + 61 * HOUR_NS)
    read: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: read.append(str(folder)) or scandir(folder))
    assert both.newest_end("cam") == LATE + 59 * HOUR_NS + LENGTH
    # Of each disk: its days, the newest day's or two, and the newest hour's or two.
    assert len(read) <= 10
    assert both.newest_end("cam", "analyse") is None


def test_what_a_disk_does_not_give_is_told_once_and_the_other_disks_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = (Storage([a_pool(tmp_path / name)]) for name in ("good", "bad"))
    both = Storage([PoolSettings(path=tmp_path / name, reserve_gb=0.0) for name in ("bad", "good")])
    clip = add_clip(good, LATE)
    hour = bad.folder_for("cam", LATE)
    hour.rmdir()
    # A link to itself: the system refuses to read it, as it does with a folder of a broken disk.
    hour.symlink_to(hour)
    with caplog.at_level("INFO"):
        for _ in range(3):
            assert [s.clip for s in both.clips("cam", LATE, LATE + LENGTH)] == [clip]
            assert both.find(clip) is not None
        hour.unlink()
        hour.mkdir()
        assert both.find(clip) is not None
        (hour / "loop.mp4").symlink_to("loop.mp4")
        for _ in range(3):
            assert [s.clip for s in both.clips("cam", LATE, LATE + LENGTH)] == [clip]
    refused = " cannot be read: Too many levels of symbolic links"
    told = [record.message.partition(str(hour))[2] for record in caplog.records]
    assert told == [refused, " can be read again", refused]


def test_a_disk_that_cannot_make_a_pin_durable_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage([a_pool(tmp_path / "p")])
    add_clip(storage, LATE)

    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("nodeagent.infra.pins.sync_file", fail)
    with pytest.raises(StorageFull, match="pins of a1b2: Input/output error"):
        storage.pin(storage.clips("cam", LATE, LATE + LENGTH), "a1b2")


def test_a_window_reads_its_own_hours_only_and_once_for_all_that_share_a_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage([a_pool(tmp_path / "p")])
    clips = [add_clip(storage, LATE + hour * HOUR_NS) for hour in range(-60, 60)]
    read: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: read.append(str(folder)) or scandir(folder))
    listing: Listing = {}
    for _ in range(3):
        assert [s.clip for s in storage.clips("cam", LATE, LATE + LENGTH, listing)] == [clips[60]]
    assert [path.rpartition("/cam/")[2] for path in read] == ["2023-11-14/20", "2023-11-14/21", "2023-11-14/22"]
    assert [s.clip for s in storage.clips("cam", LATE - 55 * HOUR_NS, LATE + LENGTH)] == clips[5:61]


def test_parts_are_listed_and_are_no_clips(tmp_path: Path) -> None:
    storage = Storage([a_pool(tmp_path / "p")])
    clip = ClipId(camera_id="cam", epoch=3, start_ns=LATE)
    path = storage.folder_for("cam", LATE) / part_file_name(clip)
    path.touch()
    (path.parent / "stranger.mp4").touch()
    assert storage.parts("cam") == [(clip, path)]
    assert storage.clips("cam", 0, 2**62) == []


def test_pinned_clips_survive_retention_and_unpin_lets_them_go(tmp_path: Path) -> None:
    pool = a_pool(tmp_path / "p", quota_gb=250 / GIB)
    storage = Storage([pool])
    clips = [add_clip(storage, LATE + n * LENGTH) for n in range(5)]
    wanted = storage.clips("cam", LATE, LATE + 2 * LENGTH)
    gone = storage.clips("cam", LATE + 4 * LENGTH, LATE + 5 * LENGTH)
    gone[0].path.unlink()
    assert [s.clip for s in storage.pin([*wanted, *gone], "a1b2")] == clips[:2]
    storage.pin(wanted, "a1b2")
    deleted = look(DiskKeeper(pool), LATE)
    assert [held.start_ns for held in deleted] == [LATE, LATE + LENGTH]
    assert [s.clip for s in storage.clips("cam", 0, 2**62)] == clips[2:4]
    pinned = storage.pinned("a1b2")
    assert [s.clip for s in pinned] == clips[:2]
    assert pinned[0].path.read_bytes() == b"x" * 100
    storage.unpin("a1b2")
    storage.unpin("a1b2")
    assert storage.pinned("a1b2") == []


def test_a_pin_stays_on_its_disk_also_below_another_one(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "outer" / "disk") as disk:
        outer, inner = a_pool(tmp_path / "outer"), a_pool(disk)
        add_clip(Storage([inner]), LATE)
        storage = Storage([outer, inner])
        (kept,) = storage.pin(storage.clips("cam", LATE, LATE + LENGTH), "a1b2")
        assert kept.path.is_relative_to(disk)


def test_a_pin_makes_nothing_where_its_disk_was(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk") as disk:
        storage = Storage([a_pool(disk)])
        add_clip(storage, LATE)
        found = storage.clips("cam", LATE, LATE + LENGTH)
    assert storage.pin(found, "a1b2") == []
    assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.parametrize("key", ["../x", "", ".hidden", "a/b"])
def test_a_pin_key_is_never_a_path(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="pin key"):
        Storage([a_pool(tmp_path / "p")]).pinned(key)
