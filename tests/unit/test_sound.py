"""Where sound stands in a clip, and the headers that come before its packets."""

from __future__ import annotations

from nodeagent.capture.parameter_sets import jpeg_size
from nodeagent.capture.sound import OFF_NS, Line, adts_header
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S

#: Length of a packet of AAC at 48000 samples per second, ns.
STEP = NS_PER_S * 1024 // 48000


def test_sound_goes_on_by_its_own_stamps_while_it_is_near_its_picture() -> None:
    line = Line()
    assert line.place(7 * NS_PER_S, 10 * NS_PER_MS) == 10 * NS_PER_MS
    for n in range(1, 50):
        jitter = OFF_NS // 2 * (-1) ** n
        assert line.place(7 * NS_PER_S + n * STEP, 10 * NS_PER_MS + n * STEP + jitter) == 10 * NS_PER_MS + n * STEP


def test_sound_that_runs_away_or_jumps_is_put_to_its_picture() -> None:
    line = Line()
    line.place(0, 0)
    assert line.place(3 * NS_PER_S, NS_PER_S) == NS_PER_S
    assert line.place(-50 * NS_PER_S, 2 * NS_PER_S) == 2 * NS_PER_S


def test_sound_before_the_clip_or_before_other_sound_is_left_out() -> None:
    line = Line()
    assert line.place(0, -1) is None
    assert line.place(STEP, STEP) == STEP
    assert line.place(STEP, STEP) is None
    assert line.place(-9 * NS_PER_S, STEP - OFF_NS * 2) is None


def test_the_parameters_of_aac_are_read_from_the_header_before_a_packet() -> None:
    # 48000 samples per second, two channels, low complexity, without and with a checksum.
    assert adts_header(bytes.fromhex("fff14c80202ffc21") + b"\0\0") == (bytes.fromhex("1190"), 7)
    assert adts_header(bytes.fromhex("fff04c80202ffc21") + b"\0\0") == (bytes.fromhex("1190"), 9)
    assert adts_header(bytes.fromhex("211004608c1c0000ff")) is None
    assert adts_header(b"\xff\xf1") is None


def test_the_size_of_a_jpeg_is_read_from_its_head() -> None:
    head = bytes.fromhex("ffd8ffe00004000affc0000b0801680280011100")
    assert jpeg_size(head) == (640, 360)
    assert jpeg_size(head[:14]) is None
    assert jpeg_size(b"") is None
    assert jpeg_size(b"\0" * 50) is None
