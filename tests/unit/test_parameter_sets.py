"""Parameter sets of H.264 and H.265, and what tells one from the other."""

from __future__ import annotations

import pytest

from nodeagent.capture.parameter_sets import is_complete, other_codec

START = b"\x00\x00\x00\x01"
H264 = {7: b"\x67\x42\xc0\x1e\xd9", 8: b"\x68\xce\x0f\xc8"}
H265 = {32: b"\x40\x01\x0c\x01\xff", 33: b"\x42\x01\x01\x01\x60", 34: b"\x44\x01\xc1\x72\xb4"}
PICTURE = b"\x65\x88\x84\x00"


def units(*parts: bytes) -> bytes:
    return b"".join(START + part for part in parts)


def test_a_header_is_complete_with_one_set_of_each_kind() -> None:
    assert is_complete(units(*H264.values()), "h264")
    assert is_complete(units(*H265.values()), "hevc")
    assert is_complete(b"", "mjpeg")


@pytest.mark.parametrize("left_out", [7, 8])
def test_without_one_kind_it_is_not(left_out: int) -> None:
    assert not is_complete(units(*(body for kind, body in H264.items() if kind != left_out)), "h264")
    assert not is_complete(b"", "h264")
    assert not is_complete(units(*list(H265.values())[1:]), "hevc")


def test_the_header_of_mp4_tells_how_many_it_has() -> None:
    assert is_complete(b"\x01\x42\xc0\x0b\xff\xe1\x00\x17\x67", "h264")
    assert not is_complete(b"\x01\x42\xc0\x0b\xff\xe0\x00", "h264")
    assert not is_complete(b"\x01", "h264")
    assert is_complete(b"\x01" + bytes(21) + b"\x03" + bytes(30), "hevc")
    assert not is_complete(b"\x01" + bytes(21) + b"\x00" + bytes(30), "hevc")


def test_a_key_frame_of_the_other_codec_is_told_by_its_sets() -> None:
    assert other_codec(units(b"\x46\x01\x50", *H265.values(), PICTURE), "h264") == "hevc"
    assert other_codec(units(b"\x09\xf0", *H264.values(), PICTURE), "hevc") == "h264"
    # Behind the last picture of the one before, as FFmpeg cuts it.
    assert other_codec(units(b"\x09\xf0", b"\x41\x9b\x00", *H265.values()), "h264") == "hevc"


@pytest.mark.parametrize(("codec", "sets"), [("h264", H264), ("hevc", H265)])
def test_its_own_sets_a_picture_and_one_set_of_the_other_say_nothing(codec: str, sets: dict[int, bytes]) -> None:
    assert other_codec(units(*sets.values(), PICTURE), codec) == ""
    assert other_codec(units(PICTURE), codec) == ""
    assert other_codec(units(b"\x42\x01\x01", b"\x67\x42\x00"), codec) == ""
    assert other_codec(b"", codec) == ""
