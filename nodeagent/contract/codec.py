"""Messages to bytes and back.  The only place where either happens; nothing is ever unpickled or evaluated."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError

from nodeagent.contract.alarm import AlarmMessage
from nodeagent.contract.clip import ClipTask
from nodeagent.contract.detections import ClipDetections, DetectionsHeader, rows_from_npy
from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import Frozen
from nodeagent.contract.ownership import Broadcast, TaskStatus

#: Header that says what the body is.
TYPE_HEADER = "type"
#: Bytes of the number, big-endian, with which a body of JSON and an array says how long its JSON is.  The JSON is in
#: the body because headers must fit one frame of the broker's, 128 KB, and ten thousand labels do not.
_LENGTH_BYTES = 4
#: Largest body that is looked at, bytes: 100 boxes in each of 300 samples are under 1 MB.
MAX_BODY_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class Message:
    """What a broker carries: a body and text headers."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


_Model = TypeVar("_Model", bound=Frozen)


def _parse(model: type[_Model], text: str | bytes) -> _Model:
    try:
        doc = json.loads(text)
        version = doc.get("v") if isinstance(doc, dict) else None
        if version != 1:
            raise DecodeError(f"{model.__name__}: version {version!r}, expected 1")
        return model.model_validate_json(text)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DecodeError(f"{model.__name__}.{where}: {first['msg']}") from None
    except (ValueError, RecursionError) as exc:
        raise DecodeError(f"{model.__name__}: not JSON ({type(exc).__name__})") from None


def _expect(message: Message, kind: str) -> None:
    if len(message.body) > MAX_BODY_BYTES:
        raise DecodeError(f"body of {len(message.body)} bytes, at most {MAX_BODY_BYTES}")
    got = message.headers.get(TYPE_HEADER, "")
    if got != kind:
        raise DecodeError(f"header {TYPE_HEADER}: expected {kind!r}, got {got[:40]!r}", message.body)


def encode_clip_task(task: ClipTask) -> Message:
    """The task as a message."""
    return Message(task.model_dump_json().encode(), {TYPE_HEADER: "clip_task"})


def decode_clip_task(message: Message) -> ClipTask:
    """Read a clip task.

    Raises:
        DecodeError: it is none.
    """
    _expect(message, "clip_task")
    return _parse(ClipTask, message.body)


def encode_detections(found: ClipDetections) -> Message:
    """Detections as a message: length of the header, the header as JSON, the rows as `.npy` bytes."""
    header = found.header.model_dump_json().encode()
    body = len(header).to_bytes(_LENGTH_BYTES, "big") + header + found.npy()
    return Message(body, {TYPE_HEADER: "detections"})


def decode_detections(message: Message) -> ClipDetections:
    """Read a clip's detections.

    Raises:
        DecodeError: they are none.
    """
    _expect(message, "detections")
    end = _LENGTH_BYTES + int.from_bytes(message.body[:_LENGTH_BYTES], "big")
    header = _parse(DetectionsHeader, message.body[_LENGTH_BYTES:end])
    return ClipDetections(header, rows_from_npy(message.body[end:]))


def encode_alarm(alarm: AlarmMessage) -> Message:
    """The alarm as a message."""
    return Message(alarm.model_dump_json().encode(), {TYPE_HEADER: "alarm"})


def decode_alarm(message: Message) -> AlarmMessage:
    """Read an alarm.

    Raises:
        DecodeError: it is none.
    """
    _expect(message, "alarm")
    return _parse(AlarmMessage, message.body)


def encode_broadcast(broadcast: Broadcast) -> bytes:
    """The broadcast as Redis carries it."""
    return broadcast.model_dump_json().encode()


def decode_broadcast(body: bytes) -> Broadcast:
    """Read a broadcast.

    Raises:
        DecodeError: it is none.
    """
    return _parse(Broadcast, body)


def encode_task_status(status: TaskStatus) -> bytes:
    """A camera's status as Redis holds it."""
    return status.model_dump_json().encode()


def decode_task_status(body: bytes) -> TaskStatus:
    """Read a camera's status.

    Raises:
        DecodeError: it is none.
    """
    return _parse(TaskStatus, body)
