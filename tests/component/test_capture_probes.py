"""The keeper's probes on a real disk: set aside when it fails, taken back when it works."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.capture import probes
from nodeagent.capture.disk_writer import Hands
from nodeagent.capture.keeper import Tidier, look
from nodeagent.capture.places import Places
from nodeagent.capture.probes import Probes
from nodeagent.capture.retention import Limits
from nodeagent.contract.clip import ClipId
from nodeagent.contract.report import Kind
from nodeagent.contract.states import State
from nodeagent.infra.board import Board
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.disk_notes import DiskNotes
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import PoolSettings
from nodeagent.infra.stop import Stop
from nodeagent.infra.storage import Storage, init_pool
from nodeagent.infra.worker import WorkerContext
from tests.support.disks import Disk, mounted_disk
from tests.support.eventually import eventually


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted_disk(tmp_path / "sick") as disk:
        init_pool(disk.folder)
        yield disk


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "WELL_S", 0.1)
    monkeypatch.setattr(probes, "ASIDE_S", 0.1)
    monkeypatch.setattr(probes, "STALL_S", 0.3)


def test_the_board_shows_a_disk_that_fails_and_its_return(tmp_path: Path, disk: Disk) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'[node]\nstate_dir = "{tmp_path / "state"}"\n[[pool]]\npath = "{disk.folder}"\nreserve_gb = 0\n')
    (tmp_path / "state").mkdir()
    cell = Board.create(tmp_path / "board", "n1", 1, 0).claim("storage", Kind.STORAGE)
    ctx = WorkerContext("storage", load_settings(config), cell, Stop(), SystemClock(), tmp_path)
    notes = DiskNotes(tmp_path / "state")
    tidiers: dict[Path, Tidier] = {}
    tries = Probes(notes, ctx.clock)

    def shown() -> State:
        look(ctx, ctx.settings.pools, tidiers, tries, lambda _camera_id, _stream: Limits(), time.time_ns())
        return cell.current_state

    assert shown() is State.RUNNING
    disk.read_only()
    eventually(lambda: shown() is State.DISK_ASIDE)
    (note,) = notes.aside(time.time_ns()).values()
    assert "Read-only" in note.why
    disk.unmount()
    assert shown() is State.STORAGE_MISSING
    assert list(disk.folder.iterdir()) == []
    disk.mount()
    eventually(lambda: shown() is State.RUNNING)
    assert notes.aside(time.time_ns()) == {}
    disk.freeze()
    eventually(lambda: shown() is State.DISK_ASIDE)
    disk.thaw()
    eventually(lambda: shown() is State.RUNNING)
    assert 0 < notes.measured()[disk.folder] < 60
    assert not [path.name for path in disk.folder.iterdir() if "probe" in path.name]


def test_a_probe_of_before_brings_no_disk_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WELL_S", "ASIDE_S"):
        monkeypatch.setattr(probes, name, 3600.0)
    disk = tmp_path / "disk"
    init_pool(disk)
    notes = DiskNotes(tmp_path / "state")
    tries = Probes(notes, SystemClock())
    tries.step([disk])
    notes.set_aside(disk, "refused", time.time_ns())
    for _ in range(20):
        assert list(tries.step([disk])) == [disk]
        time.sleep(0.01)


def test_what_one_capture_learns_of_a_disk_all_others_know(tmp_path: Path, disk: Disk) -> None:
    well = tmp_path / "well"
    init_pool(well)
    pools = [
        PoolSettings(path=disk.folder, reserve_gb=0, quota_gb=1e6),
        PoolSettings(path=well, reserve_gb=0, quota_gb=1e-6),
    ]
    clock = SystemClock()
    one, other = (Places(Storage(pools, tmp_path / "state"), Hands(), clock) for _ in range(2))
    clip = ClipId(camera_id="cam", epoch=1, start_ns=1_699_999_200_000_000_000)
    assert other.find(clip, "record").hand.disk == disk.folder
    one.set_aside(disk.folder, "refused")
    assert other.find(clip, "record").hand.disk == well
    DiskNotes(tmp_path / "state").bring_back(disk.folder)
    assert other.find(clip, "record").hand.disk == disk.folder
