"""A camera's judge as bytes and back.

Pure.  Layout: MAGIC, CRC-32 of the rest (4 bytes, big endian), length of the header (4 bytes), the header as JSON,
then the arrays as `.npy` one after the other, in the order of ARRAYS, then two for each kind that `memories` of the
header names: what it remembers per track and place, and per place.  Nothing is unpickled.  The rules are part of it,
so that a judge that starts with other rules can end what the old ones left open.

Clips that wait in the reorder buffer are no part: they are unsettled on the bus and come again.
"""

from __future__ import annotations

import io
import itertools
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from nodeagent.contract.errors import DecodeError
from nodeagent.contract.rule import Rule
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.episodes import EPISODE_DTYPE
from nodeagent.judge.evidence import Author
from nodeagent.judge.ledger import Counters, Ledger
from nodeagent.judge.memory import NO_MEMORY, Memory
from nodeagent.judge.presence import CLOCK_DTYPE, Presence
from nodeagent.judge.reorder import Progress
from nodeagent.judge.ruleset import RuleSet
from nodeagent.judge.tracker import FACT_COLUMNS, MOTION_COLUMNS, Tracks

MAGIC: Final = b"njs1"
#: Grows when a reader of the old layout would misread the new one.  Another version is not read: judging starts fresh.
VERSION: Final = 1
_FRAME: Final = struct.Struct(">4sII")

_RULES: Final[TypeAdapter[tuple[Rule, ...]]] = TypeAdapter(tuple[Rule, ...])

#: Arrays of a snapshot with their types and columns.
ARRAYS: Final[tuple[tuple[str, np.dtype[Any], int], ...]] = (
    ("motion", np.dtype("<f8"), MOTION_COLUMNS),
    ("facts", np.dtype("<i8"), FACT_COLUMNS),
    ("clocks", CLOCK_DTYPE, 0),
    ("episodes", EPISODE_DTYPE, 0),
)


def pack(judge: CameraJudge, saved: int = 0) -> bytes:
    """The judge as bytes; `saved` counts this camera's snapshots: of two with one watermark the higher is newer."""
    ledger = judge.ledger
    kept = list(_memories(judge))
    header = {
        "v": VERSION,
        "saved": saved,
        "camera_id": judge.author.camera_id,
        "rules": _RULES.dump_python(judge.rules.rules, mode="json"),
        "next_id": judge.tracks.next_id,
        "last_ns": judge.tracks.last_ns,
        "watched_ns": judge.watched_ns,
        "torn": judge.torn,
        "labels": judge.labels,
        "epochs": {number: asdict(known) for number, known in ledger.epochs.items()},
        "epoch": ledger.epoch,
        "start_ns": ledger.start_ns,
        "last_sample_ns": ledger.last_sample_ns,
        "missing": ledger.missing,
        "counters": asdict(ledger.counters),
        "memories": [kind for kind, _ in kept],
    }
    text = json.dumps(header).encode()
    out = io.BytesIO()
    out.write(text)
    arrays = (judge.tracks.motion, judge.tracks.facts, judge.presence.pack(), judge.episodes.rows)
    for array in itertools.chain(arrays, *((memory.tracks, memory.places) for _, memory in kept)):
        np.save(out, array, allow_pickle=False)
    body = out.getvalue()
    return _FRAME.pack(MAGIC, zlib.crc32(body), len(text)) + body


def order_of(body: bytes) -> tuple[int, int, int]:
    """What snapshots of a camera are ordered by: epoch, start of the newest clip judged, number of the snapshot.

    Raises:
        DecodeError: no snapshot of this version, or damaged.
    """
    header = _split(body)[0]
    try:
        return int(header["epoch"]), int(header["start_ns"]), int(header["saved"])
    except (KeyError, TypeError, ValueError) as exc:
        raise DecodeError(f"judge snapshot: {type(exc).__name__}: {exc}") from None


def counters_of(body: bytes) -> Counters:
    """The counters alone.

    Raises:
        DecodeError: no snapshot of this version, or damaged.
    """
    try:
        return Counters(**_split(body)[0]["counters"])
    except (KeyError, TypeError) as exc:
        raise DecodeError(f"judge snapshot: {type(exc).__name__}: {exc}") from None


def unpack(body: bytes, author: Author, sample_fps: float) -> CameraJudge:
    """The judge that wrote the snapshot; it still has the rules of that time.

    Raises:
        DecodeError: no snapshot of this version, or damaged, or of another camera.
    """
    header, arrays = _split(body)
    try:
        if header["camera_id"] != author.camera_id:
            raise DecodeError(f"judge snapshot: of camera {header['camera_id']!r}")
        source = io.BytesIO(arrays)
        judge = _build(header, _read_arrays(source), author, sample_fps)
        # A snapshot of before there were memories names none.
        _read_memories(source, header.get("memories", []), judge)
        return judge
    except (ValidationError, ValueError, KeyError, TypeError, IndexError, EOFError, SyntaxError) as exc:
        raise DecodeError(f"judge snapshot: {type(exc).__name__}: {exc}") from None


def _split(body: bytes) -> tuple[dict[str, Any], bytes]:
    if len(body) < _FRAME.size:
        raise DecodeError("judge snapshot: cut short")
    magic, crc, length = _FRAME.unpack_from(body)
    rest = body[_FRAME.size :]
    if magic != MAGIC or crc != zlib.crc32(rest):
        raise DecodeError("judge snapshot: damaged")
    try:
        header = json.loads(rest[:length])
    except ValueError as exc:
        raise DecodeError("judge snapshot: header is not JSON") from exc
    if not isinstance(header, dict) or header.get("v") != VERSION:
        raise DecodeError(f"judge snapshot: another version, expected {VERSION}")
    return header, rest[length:]


def _memories(judge: CameraJudge) -> Iterator[tuple[str, Memory]]:
    """The memories of those kinds that remember anything, by kind."""
    for (part, _), memory in zip(judge.rules.kinds, judge.memories, strict=True):
        if memory.tracks.dtype.names or memory.places.dtype.names:
            yield judge.rules.places[part.start].kind, memory


def _read_memories(source: io.BytesIO, kinds: list[str], judge: CameraJudge) -> None:
    """Read what each kind remembered; one that remembers other things by now starts with nothing.

    Raises:
        ValueError: an array has not a cell for each track and place.
    """
    fresh = dict(_memories(judge))
    for kind in kinds:
        found = Memory(NO_MEMORY, NO_MEMORY, 0)
        found.tracks, found.places = np.load(source, allow_pickle=False), np.load(source, allow_pickle=False)
        if kind in fresh:
            memory = fresh[kind]
            if (found.tracks.shape, found.places.shape) != (memory.tracks.shape, memory.places.shape):
                raise ValueError(f"memory of {kind} is {found.tracks.shape} {found.places.shape}")
            memory.take_over(found, np.arange(len(memory.places)))


def _read_arrays(source: io.BytesIO) -> dict[str, npt.NDArray[Any]]:
    arrays = {}
    for name, dtype, columns in ARRAYS:
        array = np.load(source, allow_pickle=False)
        shape = (len(array), columns) if columns else (len(array),)
        if array.dtype != dtype or array.shape != shape:
            raise DecodeError(f"judge snapshot: {name} is {array.dtype} {array.shape}")
        arrays[name] = array
    return arrays


def _build(
    header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]], author: Author, sample_fps: float
) -> CameraJudge:
    judge = CameraJudge(author, (), sample_fps)
    judge.rules = RuleSet(_RULES.validate_python(header["rules"]))
    places, tracks = len(judge.rules.places), len(arrays["facts"])
    if len(arrays["motion"]) != tracks or len(arrays["episodes"]) != places:
        raise ValueError("arrays do not fit each other or the rules")
    judge.tracks = Tracks(arrays["motion"], arrays["facts"], int(header["next_id"]), int(header["last_ns"]))
    judge.presence = Presence.unpack(arrays["clocks"], places, tracks)
    judge.memories = judge.rules.memories(tracks)
    judge.episodes.rows = arrays["episodes"]
    judge.watched_ns, judge.torn = int(header["watched_ns"]), bool(header["torn"])
    judge.labels = tuple(header["labels"])
    judge.ledger = Ledger(
        epochs={int(number): Progress(**known) for number, known in header["epochs"].items()},
        epoch=int(header["epoch"]),
        start_ns=int(header["start_ns"]),
        last_sample_ns=int(header["last_sample_ns"]),
        missing=[(int(epoch), int(first), int(last)) for epoch, first, last in header["missing"]],
        counters=Counters(**header["counters"]),
    )
    return judge
