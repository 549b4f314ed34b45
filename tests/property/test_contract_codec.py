"""The codec gives back what it was given, and answers any bytes at all with a message or a DecodeError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.contract.alarm import AlarmMessage, Evidence, EvidenceBox
from nodeagent.contract.clip import (
    ClipId,
    ClipTask,
    RingRef,
    SampleLuma,
    clip_file_name,
    parse_clip_name,
    parse_part_name,
)
from nodeagent.contract.codec import (
    MAX_BODY_BYTES,
    Message,
    decode_alarm,
    decode_clip_task,
    decode_detections,
    encode_alarm,
    encode_clip_task,
    encode_detections,
)
from nodeagent.contract.detections import DETECTION_DTYPE, ClipDetections, DetectionsHeader
from nodeagent.contract.errors import DecodeError

ids = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
epochs = st.integers(1, 2**63 - 1)
times = st.integers(0, 2**63 - 1)
units = st.floats(0, 1, width=32)
sizes = st.integers(2, 8192)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
timings = st.dictionaries(st.sampled_from(["closed", "inference_started", "judged"]), times)

ring_refs = st.builds(
    RingRef, generation=st.integers(1, 99), first_seq=st.integers(0, 2**40), count=st.integers(0, 10_000)
)
levels = st.floats(0, 65025)


def with_luma(message: ClipTask) -> st.SearchStrategy[ClipTask]:
    """The message with the brightness of its samples."""
    count = len(message.sample_ns)
    rows = st.tuples(*[levels] * count)
    luma = st.builds(SampleLuma, mean=rows, variance=rows, difference=st.tuples(*[st.none() | levels] * count))
    return luma.map(lambda found: message.model_copy(update={"luma": found}))


clip_tasks = st.builds(
    ClipTask,
    node_id=ids,
    camera_id=ids,
    epoch=epochs,
    epoch_started_ns=times,
    clip_seq=st.integers(0, 2**31),
    start_ns=times,
    duration_ns=st.integers(0, 10**12),
    stream=st.sampled_from(["record", "analyse"]),
    sample_ns=st.lists(times, max_size=5).map(tuple),
    sample_width=sizes,
    sample_height=sizes,
    ring=st.none() | ring_refs,
    closed_ns=times,
)
clip_tasks |= clip_tasks.flatmap(with_luma)
boxes = st.builds(
    EvidenceBox, x1=units, y1=units, x2=units, y2=units, score=units, label=texts, track_id=st.integers(0, 2**31)
)
evidence = st.builds(
    Evidence,
    sample_ns=times,
    boxes=st.lists(boxes, max_size=3).map(tuple),
    polygon=st.lists(st.tuples(units, units), max_size=4).map(tuple),
    subjects=st.integers(0, 50),
    values=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=2),
)
alarms = st.builds(
    AlarmMessage,
    stage=st.sampled_from(["started", "updated", "ended"]),
    dedup_key=st.from_regex(r"\A[0-9a-f]{32}\Z"),
    node_id=ids,
    camera_id=ids,
    epoch=epochs,
    rule_id=ids,
    rule_kind=texts,
    zone=texts,
    severity=st.sampled_from(["info", "warning", "critical"]),
    episode_started_ns=times,
    confirmed_ns=times,
    ended_ns=st.none() | times,
    cooldown_s=st.floats(0, 1e6),
    evidence=evidence,
    replay_from_ns=times,
    replay_to_ns=times,
    timings=timings,
)


@st.composite
def detections(draw: st.DrawFn) -> ClipDetections:
    sample_ns = tuple(sorted(draw(st.lists(times, max_size=4))))
    labels = tuple(draw(st.lists(texts, min_size=1, max_size=3)))
    header = DetectionsHeader(
        node_id=draw(ids),
        camera_id=draw(ids),
        epoch=draw(epochs),
        epoch_started_ns=draw(times),
        clip_seq=draw(st.integers(0, 2**31)),
        start_ns=draw(times),
        duration_ns=draw(st.integers(0, 10**12)),
        outcome=draw(st.sampled_from(["ok", "unknown"])),
        reason=draw(texts),
        samples_expected=len(sample_ns),
        sample_ns=sample_ns,
        sample_width=draw(sizes),
        sample_height=draw(sizes),
        model=draw(texts),
        model_version=draw(texts),
        labels=labels,
        path=draw(st.sampled_from(["ring", "clip", "none"])),
        timings=draw(timings),
    )
    number = draw(st.integers(0, 6)) if sample_ns else 0
    rows = np.zeros(number, DETECTION_DTYPE)
    rows["sample"] = sorted(
        draw(st.lists(st.integers(0, max(0, len(sample_ns) - 1)), min_size=number, max_size=number))
    )
    rows["label"] = draw(st.lists(st.integers(0, len(labels) - 1), min_size=number, max_size=number))
    column = st.lists(units, min_size=number, max_size=number)
    rows["score"] = draw(column)
    for low, high in (("x1", "x2"), ("y1", "y2")):
        rows[low], rows[high] = np.sort([draw(column), draw(column)], axis=0)
    return ClipDetections(header, rows)


@given(clip_tasks)
def test_clip_task_round_trip(task: ClipTask) -> None:
    assert decode_clip_task(encode_clip_task(task)) == task


@given(alarms)
def test_alarm_round_trip(alarm: AlarmMessage) -> None:
    assert decode_alarm(encode_alarm(alarm)) == alarm


@given(detections())
def test_detections_round_trip(found: ClipDetections) -> None:
    got = decode_detections(encode_detections(found))
    assert got.header == found.header
    assert got.rows.tobytes() == found.rows.tobytes()


@given(clip=st.builds(ClipId, camera_id=ids, epoch=epochs, start_ns=times), duration_ms=st.integers(0, 10**8))
def test_clip_name_round_trip(clip: ClipId, duration_ms: int) -> None:
    assert parse_clip_name(clip_file_name(clip, duration_ms * 1_000_000)) == (clip, duration_ms * 1_000_000)


@given(texts)
def test_any_file_name_is_read_without_an_exception(name: str) -> None:
    for suffix in ("", ".mp4", ".part.mp4"):
        clip = parse_clip_name(name + suffix) or parse_part_name(name + suffix)
        assert clip is None or suffix


DECODERS: list[tuple[str, Callable[[Message], Any], Any]] = [
    ("clip_task", decode_clip_task, clip_tasks.map(encode_clip_task)),
    ("alarm", decode_alarm, alarms.map(encode_alarm)),
    ("detections", decode_detections, detections().map(encode_detections)),
]


@pytest.mark.parametrize(("kind", "decode", "_sound"), DECODERS, ids=[kind for kind, _, _ in DECODERS])
@given(body=st.binary(max_size=200), meta=texts, typed=st.booleans())
def test_any_bytes_give_a_decode_error(
    kind: str, decode: Callable[[Message], Any], _sound: Any, body: bytes, meta: str, typed: bool
) -> None:
    with pytest.raises(DecodeError):
        decode(Message(body, {"type": kind if typed else meta}))


@pytest.mark.parametrize(("kind", "decode", "sound"), DECODERS, ids=[kind for kind, _, _ in DECODERS])
@given(data=st.data())
def test_a_damaged_message_gives_a_message_or_a_decode_error(
    kind: str, decode: Callable[[Message], Any], sound: Any, data: st.DataObject
) -> None:
    message = data.draw(sound)
    body = bytearray(message.body)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    for damaged in (bytes(body), bytes(body[:cut])):
        try:
            decode(Message(damaged, message.headers))
        except DecodeError as error:
            assert error.why


@pytest.mark.parametrize(("kind", "decode", "_sound"), DECODERS, ids=[kind for kind, _, _ in DECODERS])
def test_other_versions_and_giants_are_refused(kind: str, decode: Callable[[Message], Any], _sound: Any) -> None:
    with pytest.raises(DecodeError, match="version 2"):
        # Detections say first how long their JSON is.
        length = b"\0\0\0\x08" if kind == "detections" else b""
        decode(Message(length + b'{"v": 2}', {"type": kind}))
    with pytest.raises(DecodeError, match="at most"):
        decode(Message(bytes(MAX_BODY_BYTES + 1), {"type": kind}))
    with pytest.raises(DecodeError):
        decode(Message(b"[" * 100_000, {"type": kind}))
