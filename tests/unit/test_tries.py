"""How often a clip ended its worker: counted on disk, by all workers of a node together."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from nodeagent.contract.clip import ClipId
from nodeagent.contract.ids import NS_PER_S
from nodeagent.inference.tries import FORGOTTEN_S, Tries
from nodeagent.inference.work import Cancelled
from tests.support.inference import EPOCH_NS

CLIP = ClipId(camera_id="cam_1", epoch=1, start_ns=EPOCH_NS)
OTHER = ClipId(camera_id="cam", epoch=1, start_ns=EPOCH_NS)


def opened(folder: Path, now_ns: int = 0) -> Tries:
    """As a worker that starts sees them."""
    return Tries(folder / "inference", threading.Event(), now_ns)


def test_what_was_begun_and_not_concluded_is_charged_in_every_worker(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        opened(tmp_path).begin(CLIP)
        assert (opened(tmp_path).of(CLIP), opened(tmp_path).of(OTHER)) == (number, 0)
    opened(tmp_path).conclude(CLIP)
    assert opened(tmp_path).of(CLIP) == 0
    assert not list((tmp_path / "inference").iterdir())


def test_a_worker_that_ends_in_good_order_takes_its_try_back(tmp_path: Path) -> None:
    opened(tmp_path).begin(CLIP)
    tries = opened(tmp_path)
    tries.begin(CLIP)
    tries.begin(OTHER)
    tries.give_back_all()
    assert (tries.of(CLIP), tries.of(OTHER)) == (1, 0)
    tries.give_back(CLIP)
    assert tries.of(CLIP) == 1


@pytest.mark.parametrize("content", [b"", b"\x00", b"not what we wrote", b"\xff" * 10_000])
def test_any_content_is_a_number_of_tries(tmp_path: Path, content: bytes) -> None:
    tries = opened(tmp_path)
    (tmp_path / "inference" / f"cam_1_1_{EPOCH_NS}").write_bytes(content)
    assert tries.of(CLIP) == len(content)
    tries.begin(CLIP)
    tries.conclude(CLIP)
    assert tries.of(CLIP) == 0


def test_a_disk_that_refuses_costs_the_count_and_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "inference").write_text("a file where the folder should be")
    tries = opened(tmp_path)
    for _ in range(3):
        tries.begin(CLIP)
        assert tries.of(CLIP) == 0
        tries.conclude(CLIP)
    assert len(caplog.records) == 1


def test_old_files_are_forgotten_at_a_start(tmp_path: Path) -> None:
    opened(tmp_path).begin(CLIP)
    opened(tmp_path).begin(OTHER)
    old = tmp_path / "inference" / f"cam_1_{EPOCH_NS}"
    os.utime(old, (1000, 1000))
    fresh_ns = (tmp_path / "inference" / f"cam_1_1_{EPOCH_NS}").stat().st_mtime_ns
    tries = opened(tmp_path, fresh_ns + NS_PER_S)
    assert FORGOTTEN_S > 1
    assert (tries.of(CLIP), tries.of(OTHER)) == (1, 0)


def test_waiting_for_room_ends_when_a_clip_does_or_the_worker(tmp_path: Path) -> None:
    over = threading.Event()
    tries = Tries(tmp_path / "inference", over, 0)
    tries.begin(CLIP)
    tries.wait_for_room(2, alive=lambda: None)
    timer = threading.Timer(0.05, tries.conclude, (CLIP,))
    timer.start()
    tries.wait_for_room(1, alive=lambda: None)
    timer.join()
    tries.begin(CLIP)
    with pytest.raises(Cancelled):
        tries.wait_for_room(1, alive=over.set)
