"""Small promises of the contract's models."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from pydantic import ValidationError

from nodeagent.contract.alarm import dedup_key
from nodeagent.contract.camera import REVEAL, CameraSpec, StreamSpec, redact_url
from nodeagent.contract.clip import ClipId, clip_file_name, parse_clip_name, parse_part_name, part_file_name
from nodeagent.contract.detections import DETECTION_DTYPE, rows_from_npy
from nodeagent.contract.errors import DecodeError
from nodeagent.contract.geometry import crosses_itself, polygon_area
from nodeagent.contract.report import COUNTERS, Kind
from nodeagent.contract.states import MEANING, State


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://user:pw@host:554/live", "rtsp://***@host:554/live"),
        ("rtsp://user:p@ss/w?rd@host/live", "rtsp://***@host/live"),
        ("rtsp://host/user=admin&password=pw&channel=1", "rtsp://host/user=admin&password=***&channel=1"),
        ("https://hook.example/send?access_token=abc&to=x", "https://hook.example/send?access_token=***&to=x"),
        ("http://user:p@ss@host/live.flv?token=abc", "http://***@host/live.flv?token=***"),
        ("rtmp://host/bcs/ch0.bcs?user=a&password=pw", "rtmp://host/bcs/ch0.bcs?user=a&password=***"),
        ("rtsp://host:554/live", "rtsp://host:554/live"),
        ("/srv/video.mp4", "/srv/video.mp4"),
        ("rtsp://[broken:pw@x", "rtsp://***@x"),
    ],
)
def test_redact_url_hides_credentials(url: str, shown: str) -> None:
    assert redact_url(url) == shown


def test_a_stream_is_written_in_clear_only_when_asked() -> None:
    stream = StreamSpec(url="rtsp://u:pw@h/x")  # type: ignore[arg-type]
    assert "pw" not in stream.model_dump_json() + repr(stream)
    assert "u:pw@h" in stream.model_dump_json(context=REVEAL)


def test_capture_part_ignores_rules_and_names() -> None:
    record = {"url": "a.mp4"}
    rule = {"rule_id": "r", "kind": "intrusion", "zones": [{"name": "z", "polygon": [[0, 0], [1, 0], [0, 1]]}]}
    plain = CameraSpec.model_validate({"camera_id": "a", "record": record})
    ruled = CameraSpec.model_validate({"camera_id": "a", "record": record, "rules": [rule], "name": "A"})
    faster = CameraSpec.model_validate({"camera_id": "a", "record": record, "sample_fps": 10})
    assert plain.capture_part == ruled.capture_part
    assert plain.capture_part != faster.capture_part


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "-x", "", "a" * 64, "ä", "a b", "a\n"])
def test_an_id_is_never_a_path(name: str) -> None:
    with pytest.raises(ValidationError):
        ClipId(camera_id=name, epoch=1, start_ns=0)


def test_clip_names_carry_the_identity() -> None:
    clip = ClipId(camera_id="gate_2_x", epoch=7, start_ns=1_700_000_000_123_456_789)
    assert parse_clip_name(clip_file_name(clip, 5_000_000_000)) == (clip, 5_000_000_000)
    assert parse_part_name(part_file_name(clip)) == clip
    assert parse_clip_name(part_file_name(clip)) is None


@pytest.mark.parametrize(
    "name", ["x.mp4", "_1_2_3.mp4", "a_0_2_3.mp4", "a_1_2_-3.mp4", "../a_1_2_3.mp4", "a_1_2_3.mkv", "a_١_2_3.mp4", ""]
)
def test_other_file_names_are_no_clips(name: str) -> None:
    assert parse_clip_name(name) is None
    assert parse_part_name(name) is None


def test_dedup_key_depends_on_every_part() -> None:
    keys = {
        dedup_key("a", "b", "c", 1),
        dedup_key("ab", "", "c", 1),
        dedup_key("a", "b", "c", 2),
        dedup_key("a", "bc", "", 1),
    }
    assert len(keys) == 4
    assert dedup_key("a", "b", "c", 1) == dedup_key("a", "b", "c", 1)


def test_an_object_array_is_refused_without_unpickling() -> None:
    bomb = np.lib.format.magic(1, 0)
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    body = bomb + len(header).to_bytes(2, "little") + header + b"cos\nsystem\n(S'false'\ntR."
    with pytest.raises(DecodeError):
        rows_from_npy(body)


def test_rows_of_another_type_are_refused() -> None:
    rows = np.zeros(3, DETECTION_DTYPE)
    for other in (np.zeros(3), rows.reshape(3, 1), rows[["sample", "x1"]]):
        out = io.BytesIO()
        np.save(out, other)
        with pytest.raises(DecodeError):
            rows_from_npy(out.getvalue())


def test_geometry() -> None:
    square = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    bow = ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0))
    assert abs(polygon_area(square)) == pytest.approx(1.0)
    assert polygon_area(square) == -polygon_area(square[::-1])
    assert crosses_itself(bow)
    assert not crosses_itself(square)


def test_every_state_has_a_meaning_and_every_problem_a_hint() -> None:
    assert set(MEANING) == set(State)
    assert all(bool(meaning.hint) == meaning.problem for meaning in MEANING.values())


def test_every_kind_has_counters_and_no_name_twice() -> None:
    assert set(COUNTERS) == set(Kind)
    assert all(len(set(names)) == len(names) for names in COUNTERS.values())


def test_a_newer_sender_can_be_read() -> None:
    assert ClipId.model_validate_json(json.dumps({"camera_id": "a", "epoch": 1, "start_ns": 2, "new": 3})).epoch == 1
