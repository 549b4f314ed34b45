"""The connection's table and delays; fragments; parameter sets."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from nodeagent.capture.fragments import wholeness
from nodeagent.capture.link import GOOD_AFTER_S, NEXT, Event, Link, Phase
from nodeagent.capture.parameter_sets import parameter_sets
from nodeagent.contract.phases import IllegalStep, step
from nodeagent.contract.states import State


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_what_is_not_in_the_table_raises(phase: Phase, event: Event) -> None:
    if event in NEXT[phase]:
        assert step(NEXT, phase, event) in Phase
    else:
        with pytest.raises(IllegalStep):
            step(NEXT, phase, event)


def fail(link: Link, now_s: float) -> float:
    link.open()
    link.failed(State.SOURCE_DOWN, "refused", now_s)
    return link.retry_at_s - now_s


def test_delays_double_up_to_the_longest_and_never_end() -> None:
    link = Link(0.5, 15.0, lambda: 0.5)
    assert [fail(link, 0.0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 15, 15, 15]
    assert not link.due(14.9)
    assert link.due(15.0)


def test_a_good_stream_resets_the_delay_and_a_short_one_does_not() -> None:
    link = Link(0.5, 15.0, lambda: 0.5)
    for _ in range(4):
        fail(link, 0.0)
    link.open()
    link.opened(100.0)
    link.failed(State.STALLED, "silent", 101.0)
    assert link.retry_at_s - 101.0 == 8
    link.open()
    link.opened(200.0)
    assert link.state is State.CAPTURING
    link.failed(State.STALLED, "silent", 200.0 + GOOD_AFTER_S)
    assert link.retry_at_s - 200.0 - GOOD_AFTER_S == 0.5


def test_jitter_spreads_attempts() -> None:
    assert fail(Link(1.0, 15.0, lambda: 0.0), 0.0) == 0.5
    assert fail(Link(1.0, 15.0, lambda: 0.999), 0.0) == pytest.approx(1.5, abs=0.01)


def test_a_file_at_its_end_is_never_opened_again() -> None:
    link = Link(0.5, 15.0, lambda: 0.5)
    link.open()
    link.opened(0.0)
    link.finished()
    assert link.state is State.SOURCE_ENDED
    assert not link.due(1e9)


def box(kind: bytes, size: int) -> bytes:
    return struct.pack(">I4s", size, kind) + b"x" * (size - 8)


def test_every_cut_of_a_file_keeps_its_whole_fragments(tmp_path: Path) -> None:
    parts = [box(b"ftyp", 20), box(b"moov", 40), box(b"moof", 16), box(b"mdat", 50), box(b"moof", 16), box(b"mdat", 9)]
    body = b"".join(parts) + box(b"mfra", 12)
    ends = [sum(map(len, parts[: n + 1])) for n in (3, 5)]
    path = tmp_path / "a.mp4"
    for cut in range(len(body) + 1):
        path.write_bytes(body[:cut])
        found = wholeness(path)
        assert found.length == max((end for end in ends if end <= cut), default=0)
        assert found.finished == (cut == len(body))


def test_zeros_and_a_missing_header_end_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(box(b"ftyp", 20) + box(b"moov", 40) + box(b"moof", 16) + box(b"mdat", 50) + bytes(4096))
    assert wholeness(path).length == 126
    path.write_bytes(box(b"moof", 16) + box(b"mdat", 50))
    assert wholeness(path).length == 0


def test_parameter_sets_are_found_before_the_picture() -> None:
    sps, pps, idr = b"\x67\x42\x01", b"\x68\xce", b"\x65" + b"p" * 50
    body = b"\x00\x00\x00\x01" + sps + b"\x00\x00\x00\x01" + pps + b"\x00\x00\x01" + idr
    assert parameter_sets(body, "h264") == {sps, pps}
    assert parameter_sets(body, "mjpeg") == frozenset()
    assert parameter_sets(b"\x00\x00\x01\x40\x01a\x00\x00\x01\x26\x01", "hevc") == {b"\x40\x01a"}
