"""The pool: markers, clips by identity and time, pins."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.capture.keeper import DiskKeeper
from nodeagent.contract.clip import ClipId, clip_file_name, part_file_name
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.settings.sections import GIB, PoolSettings
from nodeagent.infra.storage import Storage, StorageFull, StorageMissing, init_pool

#: Five seconds before a full hour, UTC.
LATE = 1_699_999_200 * NS_PER_S - 5 * NS_PER_S
LENGTH = 5 * NS_PER_S


def a_pool(folder: Path, **limits: float) -> PoolSettings:
    init_pool(folder)
    return PoolSettings(path=folder, **({"reserve_gb": 0.0} | limits))


def add_clip(storage: Storage, start_ns: int, camera: str = "cam", size: int = 100) -> ClipId:
    clip = ClipId(camera_id=camera, epoch=3, start_ns=start_ns)
    (storage.folder_for(camera, start_ns) / clip_file_name(clip, LENGTH)).write_bytes(b"x" * size)
    return clip


def test_a_pool_keeps_its_id_and_one_without_marker_is_never_written(tmp_path: Path) -> None:
    assert init_pool(tmp_path / "a") == init_pool(tmp_path / "a") != init_pool(tmp_path / "b")
    (tmp_path / "bare").mkdir()
    with pytest.raises(StorageMissing, match="missing: no marker"):
        Storage([PoolSettings(path=tmp_path / "bare")]).folder_for("cam", LATE)
    assert list((tmp_path / "bare").iterdir()) == []


def test_a_disk_under_its_reserve_is_full_and_another_is_taken(tmp_path: Path) -> None:
    full = a_pool(tmp_path / "full", reserve_gb=900_000.0)
    with pytest.raises(StorageFull, match="full: "):
        Storage([full]).folder_for("cam", LATE)
    both = Storage([full, a_pool(tmp_path / "free")])
    assert both.folder_for("cam", LATE).is_relative_to(tmp_path / "free")


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
    deleted = list(DiskKeeper(pool).tidy(LATE))
    assert [held.start_ns for held in deleted] == [LATE, LATE + LENGTH]
    assert [s.clip for s in storage.clips("cam", 0, 2**62)] == clips[2:4]
    pinned = storage.pinned("a1b2")
    assert [s.clip for s in pinned] == clips[:2]
    assert pinned[0].path.read_bytes() == b"x" * 100
    storage.unpin("a1b2")
    storage.unpin("a1b2")
    assert storage.pinned("a1b2") == []


@pytest.mark.parametrize("key", ["../x", "", ".hidden", "a/b"])
def test_a_pin_key_is_never_a_path(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="pin key"):
        Storage([a_pool(tmp_path / "p")]).pinned(key)


def test_the_keeper_counts_and_drops_empty_folders_of_the_past(tmp_path: Path) -> None:
    pool = a_pool(tmp_path / "p", quota_gb=150 / GIB)
    storage = Storage([pool])
    for n in range(3):
        add_clip(storage, LATE + n * 3600 * NS_PER_S)
    keeper = DiskKeeper(pool)
    assert len(list(keeper.tidy(LATE + 48 * 3600 * NS_PER_S))) == 2
    assert keeper.used == (1, 100)
    assert len(list(storage.hour_folders("cam"))) == 1
