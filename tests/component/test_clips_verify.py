"""`nodeagent clips --verify` on pools, ledgers and clips as they lie on a disk."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nodeagent.capture.ledger import Ledger
from nodeagent.cli.demo_config import MODEL
from nodeagent.cli.main import main
from nodeagent.contract.clip import ClipId, part_file_name
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.gaps import Gap, GapReason, append_gap
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.storage import Storage, init_pool
from tests.support.clip_files import cut_clips
from tests.support.media import make_video

S = NS_PER_S
#: 2026-11-24T15:59:50Z: ten seconds before midnight in Shanghai.
T = 1_795_535_990 * S
CONFIG = f"""
[site]
time_zone = "Asia/Shanghai"
[node]
node_id = "n1"
state_dir = "state"
[[pool]]
path = "disk-1"
reserve_gb = 0
[[models]]
name = "person"
file = "{MODEL}"
"""


class Node:
    """A pool with clips, and a ledger."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "nodeagent.toml"
        self.config.write_text(CONFIG)
        self.settings = load_settings(self.config)
        self.state_dir = self.settings.node.state_dir
        self.state_dir.mkdir()
        init_pool(folder / "disk-1")
        self.storage = Storage(self.settings.pools)
        self.video = make_video(folder / "source.mp4", width=160, height=120, seconds=30)

    def clips(self, *starts_s: float, epoch: int = 7) -> list[Path]:
        """Clips of 3 s that begin at these times."""
        starts = [T + round(start * S) for start in starts_s]
        return [stored.path for stored in cut_clips(self.storage, self.video, starts, epoch=epoch)]

    def gap(self, from_s: float, to_s: float) -> None:
        gap = Gap(from_ns=T + round(from_s * S), to_ns=T + round(to_s * S), reason=GapReason.STALLED)
        append_gap(self.state_dir, "gate", gap)

    def verify(self, *options: str) -> Result:
        arguments = ["clips", "-c", str(self.config), "--verify", *options]
        return CliRunner(env={"COLUMNS": "200"}).invoke(main, arguments)

    def documents(self, *options: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.verify("--json", *options).output.splitlines()]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr("nodeagent.cli.clips_verify.AGAIN_S", 0.0)
    return Node(tmp_path)


def test_an_account_that_closes_is_shown_by_day(node: Node) -> None:
    node.clips(0, 3, 6, 9, 20)
    node.gap(12, 20)
    result = node.verify()
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines() if "gate" in line and "2026" in line]
    shown = {row[3]: [float(cell) for cell in row[5::2]] for row in rows if row[1] == "gate"}
    assert shown == {
        "2026-11-24": [10.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        "2026-11-25": [13.0, 5.0, 8.0, 0.0, 0.0, 0.0, 0.0],
    }
    assert "verified from 2026-11-24 23:59:50 to 2026-11-25 00:00:13" in result.output
    (document,) = node.documents()
    assert (document["well"], document["to_ns"]) == (True, T + 23 * S)
    assert [day["difference_ns"] for day in document["days"]] == [0, 0]


def test_a_hole_is_named_with_its_place_and_the_exit_code_says_so(node: Node) -> None:
    node.clips(0, 3, 10)
    node.gap(8, 10)
    result = node.verify()
    assert result.exit_code == 1
    assert f"MISSING 2.0 s from 2026-11-24 23:59:56 to 2026-11-24 23:59:58 (UTC ns {T + 6 * S} to" in result.output
    assert node.documents()[0]["days"][0]["missing"] == [{"from_ns": T + 6 * S, "to_ns": T + 8 * S}]
    assert node.verify("--from", "2026-11-24T23:59:58", "--to", "2026-11-25").exit_code == 0
    # Also when the asked time begins in it, or lies in it.
    for end in ("23:59:59", "23:59:57.5"):
        assert node.verify("--from", "2026-11-24T23:59:57", "--to", f"2026-11-24T{end}").exit_code == 1
    assert node.verify("--to", "2026-11-24T23:59:50").exit_code == 0


def test_owners_that_overlap_and_a_clip_that_is_open(node: Node) -> None:
    node.clips(0, 3)
    node.clips(4, 7, 20, epoch=8)
    growing = ClipId(camera_id="gate", epoch=8, start_ns=T + 10 * S)
    part = node.storage.folder_for("gate", growing.start_ns) / part_file_name(growing)
    part.write_bytes(b"x")
    os.utime(part, ns=(T + 20 * S, T + 20 * S))
    result = node.verify()
    assert result.exit_code == 0, result.output
    (document,) = node.documents()
    assert [day["recorded_ns"] for day in document["days"]] == [10 * S, 3 * S]
    assert document["days"][1]["unfinished"] == [{"from_ns": T + 10 * S, "to_ns": T + 20 * S}]


def test_what_retention_took_is_no_gap(node: Node) -> None:
    oldest, *_ = node.clips(0, 3, 13)
    node.gap(6, 13)
    node.gap(-50, -40)
    oldest.unlink()
    (document,) = node.documents()
    assert (document["well"], document["from_ns"]) == (True, T + 3 * S)
    (document,) = node.documents("--from", "2026-11-24T23:00")
    assert document["well"]
    assert document["days"][0]["aged"] == [{"from_ns": T - 40 * S, "to_ns": T + 3 * S}]


def test_disks_that_keep_for_different_times_and_one_that_is_not_there(node: Node, tmp_path: Path) -> None:
    node.clips(0, 3, 6)
    node.config.write_text(CONFIG + f'[[pool]]\npath = "{tmp_path / "disk-2"}"\n')
    result = node.verify()
    assert result.exit_code == 0
    assert f"disk {tmp_path / 'disk-2'} has no mark" in result.output
    # The clip in the middle was on the second disk, which lets clips go sooner.
    init_pool(tmp_path / "disk-2")
    later = node.clips(60)[0]
    target = tmp_path / "disk-2" / later.relative_to(tmp_path / "disk-1")
    target.parent.mkdir(parents=True)
    shutil.move(later, target)
    (document,) = node.documents()
    assert document["well"]
    assert document["days"][-1]["aged"][-1]["to_ns"] == T + 60 * S


def test_clips_that_do_not_decode_are_named(node: Node) -> None:
    _, damaged, empty = node.clips(0, 3, 6)
    body = bytearray(damaged.read_bytes())
    middle = len(body) // 2
    body[middle : middle + 2000] = random.Random(7).randbytes(2000)
    damaged.write_bytes(body)
    empty.write_bytes(b"")
    assert node.verify().exit_code == 0
    result = node.verify("--decode")
    assert result.exit_code == 1
    assert [str(path) in result.output for path in (damaged, empty)] == [True, True]
    (document,) = node.documents("--decode")
    assert [row["path"] for row in document["broken"]] == [str(damaged), str(empty)]
    assert node.verify("--decode", "--to", "2026-11-24T23:59:53").exit_code == 0


def test_a_camera_that_never_recorded_and_one_that_was_removed(node: Node) -> None:
    node.gap(0, 30)
    node.config.write_text(CONFIG + '[[cameras]]\ncamera_id = "new"\nrecord = { url = "rtsp://127.0.0.1/x" }\n')
    result = node.verify("--camera", "gate")
    assert (result.exit_code, "verified from" in result.output) == (0, True)
    assert "new: of that time there is no clip" in node.verify().output
    assert node.verify("--camera", "gone").exit_code == 0


def test_a_clock_that_was_set_back_is_no_hole(node: Node) -> None:
    # Capture times go on above what is accounted for, whatever the clock says.
    ledger = Ledger(node.state_dir, "gate", None, T)
    node.clips(0, 3)
    ledger.begin(T)
    ledger.end(T + 6 * S)
    ledger.outage(GapReason.SOURCE_DOWN, "", T - 3000 * S)
    ledger.tick(T - 2900 * S)
    ledger.begin(T + 6 * S + S // 2)
    node.clips(6.5)
    ledger.end(T + 9 * S + S // 2)
    (document,) = node.documents()
    assert (document["well"], document["to_ns"]) == (True, T + 9 * S + S // 2)


def test_a_hole_that_may_be_closed_yet_is_looked_at_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = (time.time_ns() - T) // S
    node.clips(now_s - 20, now_s - 10)
    looks: list[float] = []

    def close_it(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            node.gap(now_s - 17, now_s - 10)

    monkeypatch.setattr("nodeagent.cli.clips_verify.time.sleep", close_it)
    assert node.verify().exit_code == 0
    assert len(looks) == 3
    # What is old stays as it is.
    node.clips(-90, -80)
    assert node.verify("--to", "2026-11-24T23:59").exit_code == 1
    assert len(looks) == 4


def test_decode_goes_with_verify_only(node: Node) -> None:
    result = CliRunner().invoke(main, ["clips", "-c", str(node.config), "--decode"])
    assert (result.exit_code, "--decode goes with --verify" in result.output) == (2, True)
