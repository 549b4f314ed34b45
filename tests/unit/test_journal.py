"""The journal keeps what was closed until it is confirmed, over any kill."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodeagent.capture import journal as module
from nodeagent.capture.closing import Closer, finish_renames
from nodeagent.capture.journal import Closed, Journal
from nodeagent.contract.clip import ClipTask, RingRef, clip_file_name, part_file_name


def closed(number: int, folder: Path = Path("/pool")) -> Closed:
    task = ClipTask(
        node_id="n1", camera_id="cam", epoch=5, epoch_started_ns=1000, clip_seq=number, start_ns=1000 + number * 10,
        duration_ns=10, sample_ns=(1000 + number * 10,), sample_width=64, sample_height=48,
        ring=RingRef(generation=1, first_seq=number, count=1), closed_ns=9,
    )  # fmt: skip
    return Closed(task, folder, 1000 + number * 10 + 8)


def test_unconfirmed_clips_come_back_in_order_without_their_place_in_the_ring(tmp_path: Path) -> None:
    path = tmp_path / "journal" / "cam.jsonl"
    journal = Journal(path)
    journal.begin_epoch(5, 1000)
    for number in range(4):
        journal.close_clip(closed(number))
    first = journal.first_unconfirmed()
    assert first == closed(0)
    journal.confirm(closed(0).key)
    journal.confirm(closed(2).key)
    journal.confirm(closed(2).key)
    again = Journal(path)
    assert (again.epoch, again.epoch_started_ns) == (5, 1000)
    assert [c.task.clip_seq for c in again.all_unconfirmed()] == [1, 3]
    assert all(c.task.ring is None for c in again.all_unconfirmed())
    assert again.last is not None
    assert again.last.last_frame_ns == closed(3).last_frame_ns


def test_a_cut_at_any_byte_loses_the_cut_record_only(tmp_path: Path) -> None:
    path = tmp_path / "cam.jsonl"
    journal = Journal(path)
    journal.begin_epoch(5, 1000)
    for number in range(2):
        journal.close_clip(closed(number))
    body = path.read_bytes()
    lines = body.count(b"\n")
    for cut in range(0, len(body), 17):
        path.write_bytes(body[:cut])
        left = Journal(path)
        whole = body[:cut].count(b"\n")
        at_end = body[cut : cut + 1] == b"\n"
        assert left.unconfirmed == max(0, whole - 1 + (at_end and whole < lines and whole > 0))
        left.close_clip(closed(7))
        assert Journal(path).last == Closed(closed(7).task.model_copy(update={"ring": None}), Path("/pool"), 1078)


def test_a_long_journal_is_rewritten_and_keeps_what_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPACT_LINES", 20)
    journal = Journal(tmp_path / "cam.jsonl")
    journal.begin_epoch(5, 1000)
    for number in range(200):
        journal.close_clip(closed(number))
        if number != 150:
            journal.confirm(closed(number).key)
    assert (tmp_path / "cam.jsonl").read_bytes().count(b"\n") < 25
    again = Journal(tmp_path / "cam.jsonl")
    assert [c.task.clip_seq for c in again.all_unconfirmed()] == [150]
    assert again.last is not None
    assert again.last.task.clip_seq == 199
    assert again.epoch == 5


@contextmanager
def no_file_may_grow_beyond(size: int) -> Iterator[None]:
    """As on a disk that is full: what would make a file longer than this is refused."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_rewrite_that_the_disk_refuses_leaves_the_journal_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPACT_LINES", 20)
    monkeypatch.setattr(module, "COMPACT_AGAIN_LINES", 10)
    path = tmp_path / "cam.jsonl"
    journal = Journal(path)
    # Nothing can be written under the name that the new file has at first.
    beside = tmp_path / ".cam.jsonl.tmp"
    beside.mkdir()
    for number in range(12):
        journal.close_clip(closed(number))
        journal.confirm(closed(number).key)
    # A file that is opened now gets the number of any descriptor that was let go.
    with (tmp_path / "other").open("w+b") as other:
        journal.close_clip(closed(12))
        assert other.read() == b""
    assert path.read_bytes().count(b"\n") == 25
    again = Journal(path)
    assert [c.task.clip_seq for c in again.all_unconfirmed()] == [12]
    assert again.last is not None
    assert again.last.task.clip_seq == 12
    beside.rmdir()
    for number in range(13, 30):
        journal.close_clip(closed(number))
        journal.confirm(closed(number).key)
    assert path.read_bytes().count(b"\n") < 25
    assert [c.task.clip_seq for c in Journal(path).all_unconfirmed()] == [12]


def test_a_full_disk_refuses_a_clip_and_takes_a_confirmation_for_granted(tmp_path: Path) -> None:
    path = tmp_path / "cam.jsonl"
    journal = Journal(path)
    journal.begin_epoch(5, 1000)
    for number in range(2):
        journal.close_clip(closed(number))
    with no_file_may_grow_beyond(path.stat().st_size + 10):
        journal.confirm(closed(0).key)
        with pytest.raises(OSError, match=r"large|space"):
            journal.close_clip(closed(2))
        assert [c.task.clip_seq for c in journal.all_unconfirmed()] == [1]
        # A start on a disk that is still full: nothing is forgotten, the lost confirmation is asked for once more.
        journal = Journal(path)
        assert [c.task.clip_seq for c in journal.all_unconfirmed()] == [0, 1]
    journal.close_clip(closed(3))
    assert [c.task.clip_seq for c in Journal(path).all_unconfirmed()] == [0, 1, 3]


def test_a_confirmation_that_comes_after_the_end_goes_into_no_other_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "cam.jsonl")
    journal.close_clip(closed(0))
    number = journal._file
    journal.close()
    with (tmp_path / "other").open("w+b") as other:
        os.dup2(other.fileno(), number)
        journal.confirm(closed(0).key)
        with pytest.raises(OSError, match="descriptor"):
            journal.close_clip(closed(1))
        os.close(number)
        assert other.read() == b""
    assert [c.task.clip_seq for c in Journal(tmp_path / "cam.jsonl").all_unconfirmed()] == [0]


def test_half_a_line_on_a_disk_that_cannot_be_rewritten_swallows_no_other(tmp_path: Path) -> None:
    path = tmp_path / "cam.jsonl"
    Journal(path).close_clip(closed(0))
    path.write_bytes(path.read_bytes() + b'{"r":"clo')
    (tmp_path / ".cam.jsonl.tmp").mkdir()
    journal = Journal(path)
    journal.close_clip(closed(1))
    assert [c.task.clip_seq for c in journal.all_unconfirmed()] == [0, 1]
    assert [c.task.clip_seq for c in Journal(path).all_unconfirmed()] == [0, 1]
    assert os.path.samestat(os.fstat(journal._file), path.stat())


def test_a_clip_is_renamed_once_wherever_the_kill_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "cam.jsonl")
    item = closed(0, tmp_path)
    part = tmp_path / part_file_name(item.task.clip_id)
    final = tmp_path / clip_file_name(item.task.clip_id, 10)
    part.write_bytes(b"clip")
    journal.close_clip(item)
    finish_renames(Journal(tmp_path / "cam.jsonl"))
    assert final.read_bytes() == b"clip"
    finish_renames(Journal(tmp_path / "cam.jsonl"))
    assert not part.exists()
    other = closed(1, tmp_path)
    (tmp_path / part_file_name(other.task.clip_id)).write_bytes(b"next")
    Closer(journal).close(other)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".jsonl", ".mp4", ".mp4"]


def test_a_clip_that_its_disk_held_back_past_a_change_of_epoch_keeps_its_number_and_its_epochs_beginning(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal" / "cam.jsonl"
    closer = Closer(Journal(path))

    def close(epoch: int, start_ns: int) -> tuple[int, int]:
        started_ns = closer.epoch_started_ns(epoch)
        fields = {
            "epoch": epoch, "start_ns": start_ns, "clip_seq": closer.next_seq(epoch),
            "epoch_started_ns": start_ns if started_ns is None else started_ns,
        }  # fmt: skip
        task = closed(0).task.model_copy(update=fields)
        closer.close(Closed(task, tmp_path, start_ns + 8))
        return task.clip_seq, task.epoch_started_ns

    told = [close(5, 1000), close(5, 1010), close(9, 1030), close(5, 1020), close(9, 1040)]
    assert told == [(0, 1000), (1, 1000), (0, 1030), (2, 1000), (1, 1030)]
    # Killed after the clip that was held back, the next life goes on where the newest epoch is.
    close(5, 1025)
    closer = Closer(Journal(path))
    assert close(9, 1050) == (2, 1030)
