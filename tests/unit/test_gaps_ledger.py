"""The account of a camera closes: clips and gaps follow each other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodeagent.capture.ledger import PIECE_LAG_NS, PIECE_NS, Ledger
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.gaps import Gap, GapReason, append_gap, read_gaps

T = 1_700_000_000 * NS_PER_S
S = NS_PER_S


def spans(folder: Path) -> list[tuple[int, int, str]]:
    return [((g.from_ns - T) // S, (g.to_ns - T) // S, g.reason.value) for g in read_gaps(folder, "cam", 0, 2**62)]


def test_start_outage_and_restart_are_accounted_for(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "cam", None, T)
    ledger.begin(T + 2 * S)
    ledger.end(T + 12 * S)
    ledger.begin(T + 12 * S)
    ledger.end(T + 20 * S)
    ledger.outage(GapReason.STALLED, "no packet", T + 24 * S)
    ledger.outage(GapReason.SOURCE_DOWN, "refused", T + 30 * S)
    ledger.begin(T + 40 * S)
    ledger.end(T + 50 * S)
    after = Ledger(tmp_path, "cam", T + 50 * S, T + 90 * S)
    after.begin(T + 60 * S)
    assert spans(tmp_path) == [
        (0, 2, "start"),
        (20, 30, "stalled"),
        (30, 40, "source_down"),
        (50, 60, "restart"),
    ]
    assert after.gap_ns == 10 * S


def test_killed_again_and_again_before_the_first_clip_the_account_still_begins_at_the_first_start(
    tmp_path: Path,
) -> None:
    for start_s in (0, 7, 20):
        ledger = Ledger(tmp_path, "cam", None, T + start_s * S)
        ledger.outage(GapReason.SOURCE_DOWN, "refused", T + start_s * S)
    ledger.begin(T + 26 * S)
    assert spans(tmp_path) == [(0, 7, "start"), (7, 20, "restart"), (20, 26, "source_down")]


def test_a_state_folder_that_is_full_at_the_first_start_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "gaps").write_text("in the way")
    assert Ledger(tmp_path, "cam", None, T).accounted_ns == T


def test_a_long_gap_is_written_in_pieces(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "cam", T, T)
    ledger.outage(GapReason.AUTH_FAILED, "401", T)
    for second in range(100):
        ledger.tick(T + second * S)
    ledger.begin(T + 100 * S)
    found = spans(tmp_path)
    assert (found[0][0], found[-1][1]) == (0, 100)
    assert [a[1] for a in found[:-1]] == [b[0] for b in found[1:]]
    assert len(found) == (100 * S - PIECE_LAG_NS) // PIECE_NS + 1
    # A restart in the middle of a gap goes on where the ledger ended.
    assert Ledger(tmp_path, "cam", T, T + 200 * S).accounted_ns == T + 100 * S


def test_an_outage_that_runs_when_the_capture_stops_keeps_its_reason(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "cam", T, T)
    ledger.outage(GapReason.AUTH_FAILED, "401", T)
    ledger.close(T + 12 * S)
    assert spans(tmp_path) == [(0, 12, "auth_failed")]
    after = Ledger(tmp_path, "cam", T, T + 20 * S)
    after.begin(T + 15 * S)
    after.end(T + 20 * S)
    # A clip was open to the end: there is no outage.
    after.close(T + 21 * S)
    assert spans(tmp_path) == [(0, 12, "auth_failed"), (12, 15, "restart")]


def test_a_ledger_that_cannot_be_written_stops_nothing_and_says_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "gaps").write_text("no folder")
    ledger = Ledger(tmp_path, "cam", T, T)
    ledger.outage(GapReason.STALLED, "no packet", T)
    for second in range(100):
        ledger.tick(T + second * S)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    (tmp_path / "gaps").unlink()
    ledger.begin(T + 100 * S)
    assert spans(tmp_path) == [(0, 100, "stalled")]


def test_gaps_that_end_while_the_ledger_cannot_be_written_are_written_later(tmp_path: Path) -> None:
    (tmp_path / "gaps").write_text("no folder")
    ledger = Ledger(tmp_path, "cam", T, T)
    for start in (10, 30):
        ledger.outage(GapReason.STALLED, "no packet", T + start * S)
        ledger.begin(T + (start + 5) * S)
        ledger.end(T + (start + 20) * S)
    assert ledger.accounted_ns == T + 50 * S
    (tmp_path / "gaps").unlink()
    ledger.end(T + 55 * S)
    assert spans(tmp_path) == [(0, 10, "restart"), (10, 15, "stalled"), (30, 35, "stalled")]
    ledger.end(T + 60 * S)
    assert len(spans(tmp_path)) == 3
    assert ledger.gap_ns == 20 * S


def test_the_oldest_of_too_many_waiting_gaps_is_given_up_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nodeagent.capture.ledger.WAITING_MAX", 2)
    (tmp_path / "gaps").write_text("no folder")
    ledger = Ledger(tmp_path, "cam", T, T)
    for start in (10, 20, 30):
        ledger.write(T + start * S, T + (start + 5) * S, GapReason.STALLED, "")
    assert "a gap of 5.0 s is in no ledger" in caplog.text
    (tmp_path / "gaps").unlink()
    ledger.end(T + 40 * S)
    assert spans(tmp_path) == [(20, 25, "stalled"), (30, 35, "stalled")]


def test_half_a_line_spoils_no_other(tmp_path: Path) -> None:
    append_gap(tmp_path, "cam", Gap(from_ns=T, to_ns=T + S, reason=GapReason.STALLED, detail="é" * 10))
    (path,) = (tmp_path / "gaps" / "cam").iterdir()
    path.write_bytes(path.read_bytes() + b'{"v":1,"from_ns":17')
    append_gap(tmp_path, "cam", Gap(from_ns=T + 2 * S, to_ns=T + 3 * S, reason=GapReason.RESTART))
    assert spans(tmp_path) == [(0, 1, "stalled"), (2, 3, "restart")]
    assert read_gaps(tmp_path, "cam", T + S, T + 2 * S) == []
    assert len(read_gaps(tmp_path, "cam", T + S - 1, T + 2 * S)) == 1


def test_a_gap_of_weeks_is_found_from_each_of_its_days(tmp_path: Path) -> None:
    day = 24 * 3600 * S
    append_gap(tmp_path, "cam", Gap(from_ns=T - 9 * day, to_ns=T - 8 * day, reason=GapReason.STALLED))
    # The agent was stopped for three weeks.
    ledger = Ledger(tmp_path, "cam", T, T + 21 * day)
    ledger.begin(T + 21 * day)
    for since in (T - day, T + day, T + 20 * day):
        (found,) = read_gaps(tmp_path, "cam", since, since + 2 * day)
        assert (found.from_ns, found.to_ns) == (T, T + 21 * day)
    assert read_gaps(tmp_path, "cam", T + 22 * day, T + 23 * day) == []


def test_a_line_that_the_disk_takes_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    append_gap(tmp_path, "cam", Gap(from_ns=T, to_ns=T + S, reason=GapReason.STALLED, detail="no packet"))
    assert spans(tmp_path) == [(0, 1, "stalled")]
