"""What packets show of a source that was opened without a look at it."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import av
import pytest

from nodeagent.capture.brief import Doubt, Packet
from tests.unit.test_parameter_sets import H264, H265, PICTURE, units

#: A JPEG's head as far as its size, which is 2 by 1.
JPEG = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x01\x00\x02\x01\x00\x00\x00"


def packet(body: bytes = b"x", dts_ms: int | None = None, *, key: bool = False) -> Packet:
    made = cast("Packet", av.Packet(body))
    made.time_base, made.dts, made.is_keyframe = Fraction(1, 1000), dts_ms, key
    return made


TOLD = [
    ("h264", units(*H264.values()), PICTURE),
    ("h264", b"", units(*H264.values(), PICTURE)),
    ("hevc", b"", units(*H265.values(), PICTURE)),
    ("mjpeg", b"", JPEG),
]


@pytest.mark.parametrize(("codec", "header", "body"), TOLD)
def test_sets_of_the_session_description_or_of_the_first_key_frame_are_enough(
    codec: str, header: bytes, body: bytes
) -> None:
    assert Doubt(codec, header).about(packet(body, key=True)) == ""


UNTOLD = [
    ("h264", b"", units(PICTURE)),
    ("h264", units(H264[7]), units(H264[8], PICTURE)),
    ("hevc", b"", units(*list(H265.values())[1:])),
    ("mjpeg", b"", JPEG[:4]),
]


@pytest.mark.parametrize(("codec", "header", "body"), UNTOLD)
def test_a_key_frame_that_leaves_something_open_is_told(codec: str, header: bytes, body: bytes) -> None:
    doubt = Doubt(codec, header)
    assert doubt.about(packet(body)) == ""
    assert "neither" in doubt.about(packet(body, key=True))


def test_only_the_first_key_frame_is_asked() -> None:
    doubt = Doubt("h264", b"")
    assert doubt.about(packet(units(*H264.values()), key=True)) == ""
    assert doubt.about(packet(units(PICTURE), key=True)) == ""


@pytest.mark.parametrize(
    ("codec", "dts_ms", "doubts"),
    [
        ("hevc", (0, 120, 80), True),
        ("hevc", (0, 40, None, 40, 80), False),
        # A clock that was set.
        ("hevc", (5000, 5040, 40, 80), False),
        ("h264", (0, 120, 80), False),
    ],
)
def test_decoding_times_that_go_back_a_little_are_pictures_out_of_order(
    codec: str, dts_ms: tuple[int | None, ...], doubts: bool
) -> None:
    doubt = Doubt(codec, units(*(H265 if codec == "hevc" else H264).values()))
    # Before the first key frame nothing is recorded.
    assert not any(doubt.about(packet(dts_ms=dts)) for dts in (120, 80))
    told = [doubt.about(packet(dts_ms=dts, key=n == 0)) for n, dts in enumerate(dts_ms)]
    assert any("out of order" in why for why in told) is doubts
