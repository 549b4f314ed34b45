"""What hour folders hold: spans, the time line of a camera, and summaries that save listing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodeagent.capture.hour_folders import UNCOUNTED, use_of
from nodeagent.contract.clip import ClipId, clip_file_name, part_file_name
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.clip_folders import HOUR_NS, named
from nodeagent.infra.hours import summary_path
from nodeagent.infra.settings.sections import PoolSettings
from nodeagent.infra.spans import Span, joined, within
from nodeagent.infra.storage import Storage, init_pool

#: A full hour, UTC, and a time at which it is closed.
HOUR = 1_699_999_200 * NS_PER_S
LATER = HOUR + 100 * HOUR_NS
LENGTH = 5 * NS_PER_S


class Disk:
    """One disk with a camera's clips."""

    def __init__(self, path: Path) -> None:
        init_pool(path)
        self.storage = Storage([PoolSettings(path=path, reserve_gb=0.0)])

    def add(self, start_ns: int, epoch: int = 1) -> Path:
        clip = ClipId(camera_id="cam", epoch=epoch, start_ns=start_ns)
        path = self.storage.folder_for("cam", start_ns) / clip_file_name(clip, LENGTH)
        path.touch()
        return path

    def part(self, start_ns: int) -> Path:
        path = self.storage.folder_for("cam", start_ns) / part_file_name(
            ClipId(camera_id="cam", epoch=9, start_ns=start_ns)
        )
        path.touch()
        return path

    def summarise(self) -> None:
        """As the keeper does, for folders that nobody has changed since their hour."""
        for folder in self.storage.hour_folders("cam"):
            os.utime(folder, ns=(HOUR, HOUR))
            use_of(folder, UNCOUNTED, LATER)
            assert summary_path(folder).is_file()


def test_spans_join_over_holes_that_the_ledger_does_not_tell() -> None:
    second = NS_PER_S
    spans = [Span(10 * second, 15 * second), Span(0, 5 * second), Span(5 * second + second // 20, 9 * second)]
    assert joined(spans) == [Span(0, 9 * second), Span(10 * second, 15 * second)]
    assert joined([Span(0, 10), Span(2, 3)]) == [Span(0, 10)]
    assert within(joined(spans), 8 * second, 12 * second) == [
        Span(8 * second, 9 * second),
        Span(10 * second, 12 * second),
    ]
    assert within(joined(spans), 9 * second, 10 * second) == []


@pytest.mark.parametrize(
    "name", ["x_1_2_3", "x_1_2_3.part.mp4", "x_1_2.part.mp4", "1_2_3.mp4", "x_1_2_-3.mp4", "x_1_2_٣.mp4"]
)
def test_what_is_no_finished_clip_has_no_times(name: str) -> None:
    assert named(name) is None


def test_a_months_time_line_is_read_from_summaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Disk(tmp_path / "one"), Disk(tmp_path / "two")
    for hour in range(60):
        for n in range(3):
            (one, two)[hour % 2].add(HOUR + hour * HOUR_NS + n * LENGTH)
    # An hour that lies on both disks, and a clip that reaches into the next one.
    one.add(HOUR + HOUR_NS + 3 * LENGTH)
    two.add(HOUR + HOUR_NS - NS_PER_S)
    one.summarise()
    two.summarise()
    both = Storage([PoolSettings(path=tmp_path / name) for name in ("one", "two")])
    read: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: read.append(str(folder)) or scandir(folder))
    whole = both.timeline("cam", 0, 2**62)
    assert len(whole) == 60
    assert whole[1] == Span(HOUR + HOUR_NS - NS_PER_S, HOUR + HOUR_NS + 4 * LENGTH)
    cut = both.timeline("cam", HOUR + HOUR_NS + 1, HOUR + HOUR_NS + LENGTH)
    assert cut == [Span(HOUR + HOUR_NS + 1, HOUR + HOUR_NS + LENGTH)]
    assert both.newest_epoch("cam") == 1
    # Cameras and days only.
    assert not [path for path in read if len(Path(path).name) == 2]


def test_a_change_in_a_closed_hour_is_seen_at_once(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p")
    gone = disk.add(HOUR)
    disk.add(HOUR + LENGTH, epoch=4)
    disk.summarise()
    gone.unlink()
    assert disk.storage.timeline("cam", 0, 2**62) == [Span(HOUR + LENGTH, HOUR + 2 * LENGTH)]
    assert disk.storage.newest_epoch("cam") == 4


def test_parts_are_found_in_closed_hours(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "p")
    disk.add(HOUR)
    part = disk.part(HOUR + LENGTH)
    disk.summarise()
    assert [path for _, path in disk.storage.parts("cam")] == [part]
    # What was left since the summary was written.
    late = disk.part(HOUR + 2 * LENGTH)
    assert [path for _, path in disk.storage.parts("cam")] == [part, late]
