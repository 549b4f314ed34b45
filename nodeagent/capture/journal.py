"""A camera's journal: which clips were closed, and which of them the broker has confirmed.  Survives kill -9.

One JSON object a line in `state_dir/journal/<camera>.jsonl`:

- `{"r": "epoch", "epoch": E, "started_ns": T}`: the epoch in use and the capture time of its first sample.
- `{"r": "closed", "task": {...}, "folder": F, "last_frame_ns": T}`: the clip's file in folder F is complete; it is
  renamed next.  Synced before the rename.
- `{"r": "confirmed", "start_ns": T, "epoch": E}`: the broker keeps the task.  Not synced: a lost one costs one
  announcement more.
- `{"r": "told"}`, at the end: the camera left and nothing that can be reached is left to tell.  Not synced either.

The backlog in memory is one offset per clip; tasks are read back from the file, so a broker may be away for weeks.
All calls may come from any thread.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nodeagent.contract.clip import ClipTask, RingRef
from nodeagent.infra.files import sync_file, sync_folder
from nodeagent.infra.journals import TOLD

log = logging.getLogger(__name__)

#: Lines after which the journal is rewritten with what still counts: about three hours of clips.
COMPACT_LINES = 5000
#: Lines after which a rewrite that the disk refused is tried again: some minutes.
COMPACT_AGAIN_LINES = 100
#: Clips whose place in the ring is remembered: more than a ring holds.
RINGS_KEPT = 64

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Closed:
    """One finished clip.

    Attributes:
        task: its announcement.
        folder: where its file lies, as `*.part.mp4` or already under its final name.
        last_frame_ns: capture time of its last frame: the frame before the next clip's first.
    """

    task: ClipTask
    folder: Path
    last_frame_ns: int

    @property
    def key(self) -> Key:
        """Epoch and start: what tells a camera's clips apart."""
        return (self.task.epoch, self.task.start_ns)

    def line(self) -> bytes:
        """The record as it stands in the file."""
        body = {"r": "closed", "task": self.task.model_dump(mode="json"), "folder": str(self.folder)}
        return _line({**body, "last_frame_ns": self.last_frame_ns})


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _parse_closed(record: dict[str, Any]) -> Closed:
    # What the ring held then may be something else by now: a task that is read back is served from its file.
    task = ClipTask.model_validate(record["task"]).model_copy(update={"ring": None})
    return Closed(task, Path(record["folder"]), int(record["last_frame_ns"]))


def _later(last: Closed | None, closed: Closed) -> Closed:
    if last is None:
        return closed
    return max(last, closed, key=lambda one: (one.task.epoch, one.task.clip_seq))


class Journal:
    """One camera's journal, open for appending.

    Attributes:
        epoch: the epoch in use; 0 when the journal is new.
        epoch_started_ns: capture time of its first sample; none before there was one.
        is_told: whether it ended with the word that nothing more can be told; who opens it may add to it, so its file
            has that word no more.
        last: the clip with the highest number of the highest epoch: one that its disk held back does not come after it.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the journal, and rewrite it with what still counts if the disk has room for that.

        Raises:
            OSError: the state folder cannot be used.
        """
        self._path = path
        self._lock = threading.Lock()
        self._unconfirmed: dict[Key, int] = {}
        self._rings: dict[Key, RingRef] = {}
        self._lines = 0
        self._compact_at = COMPACT_LINES
        self._refused = False
        self.is_told = False
        self.epoch = 0
        self.epoch_started_ns: int | None = None
        self.last: Closed | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        kept: dict[Key, Closed] = {}
        for offset, record in _records(path):
            self._replay(offset, record, kept)
        try:
            self._rewrite(kept)
        except OSError as exc:
            self._use_as_it_is(exc)

    def _replay(self, offset: int, record: dict[str, Any], kept: dict[Key, Closed]) -> None:
        self._lines += 1
        kind = record["r"]
        self.is_told = kind == "told"
        if kind == "epoch":
            self.epoch, self.epoch_started_ns = int(record["epoch"]), int(record["started_ns"])
        elif kind == "closed":
            closed = _parse_closed(record)
            self.last = _later(self.last, closed)
            kept[closed.key] = closed
            self._unconfirmed[closed.key] = offset
        elif kind == "confirmed":
            key = (int(record["epoch"]), int(record["start_ns"]))
            kept.pop(key, None)
            self._unconfirmed.pop(key, None)

    def _use_as_it_is(self, why: OSError) -> None:
        """Go on with the file of the time before: a full state folder must not keep a camera from being recorded."""
        log.warning("journal %s stays long: %s", self._path.name, why.strerror, extra={"event": "journal_full"})
        body = self._path.read_bytes()
        if body and not body.endswith(b"\n"):
            # Half a line, or a whole one without its end, would swallow the next one.
            self._append(b"\n", sync=False)

    def _rewrite(self, kept: dict[Key, Closed]) -> None:
        """Replace the file by one with the epoch, the last clip and the unconfirmed ones.

        Nothing changes here before the new file has the name; from then on the old one is not used any more.

        Raises:
            OSError: the disk refused, or did not sync the new name.
        """
        lines = []
        if self.epoch and self.epoch_started_ns is not None:
            lines.append(_line({"r": "epoch", "epoch": self.epoch, "started_ns": self.epoch_started_ns}))
        if self.last is not None and self.last.key not in kept:
            lines += [self.last.line(), self._confirmed_line(self.last.key)]
        offset = sum(map(len, lines))
        offsets: dict[Key, int] = {}
        for closed in kept.values():
            offsets[closed.key] = offset
            lines.append(closed.line())
            offset += len(lines[-1])
        old, self._file = self._file, _replaced(self._path, b"".join(lines))
        os.close(old)
        self._unconfirmed, self._lines, self._compact_at = offsets, len(lines), COMPACT_LINES
        sync_folder(self._path.parent)

    @staticmethod
    def _confirmed_line(key: Key) -> bytes:
        return _line({"r": "confirmed", "epoch": key[0], "start_ns": key[1]})

    def begin_epoch(self, epoch: int, started_ns: int) -> None:
        """Record a new epoch and the capture time of its first sample, durably."""
        with self._lock:
            self._append(_line({"r": "epoch", "epoch": epoch, "started_ns": started_ns}), sync=True)
            self.epoch, self.epoch_started_ns = epoch, started_ns

    def note_told(self) -> None:
        """Say that all of its clips are told, and all others that can be reached.

        Raises:
            OSError: the state folder cannot be written.
        """
        with self._lock:
            self._append(TOLD, sync=False)

    def close_clip(self, closed: Closed) -> None:
        """Record a finished clip durably.  From here on it will be announced, whatever happens.

        Raises:
            OSError: the state folder cannot be written; the clip counts as not closed.
        """
        with self._lock:
            self._unconfirmed[closed.key] = self._append(closed.line(), sync=True)
            self.last = _later(self.last, closed)
            if closed.task.ring is not None:
                self._rings[closed.key] = closed.task.ring
            while len(self._rings) > RINGS_KEPT:
                del self._rings[min(self._rings)]

    def confirm(self, key: Key) -> None:
        """The broker keeps this clip's task."""
        with self._lock:
            if key not in self._unconfirmed or self._file < 0:
                # Closed meanwhile: the number of its descriptor may be another file's by now.
                return
            try:
                self._append(self._confirmed_line(key), sync=False)
                self._refused = False
            except OSError as exc:
                # A record that is lost costs one announcement more, at the next start; an error would cost one now and
                # now again, for as long as the disk is full.
                if not self._refused:
                    log.warning("journal %s: %s", self._path.name, exc.strerror, extra={"event": "journal_full"})
                self._refused = True
            del self._unconfirmed[key]
            self._rings.pop(key, None)
            if self._lines >= self._compact_at and len(self._unconfirmed) < COMPACT_LINES // 2:
                self._compact()

    def _compact(self) -> None:
        try:
            self._rewrite({closed.key: closed for closed in self._read_unconfirmed()})
        except OSError as exc:
            log.warning("journal %s stays long: %s", self._path.name, exc.strerror, extra={"event": "journal_full"})
            self._compact_at = self._lines + COMPACT_AGAIN_LINES

    def _append(self, line: bytes, *, sync: bool) -> int:
        offset = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            if sync:
                sync_file(self._file)
        except OSError:
            # Half a line would swallow the next one.
            os.ftruncate(self._file, offset)
            raise
        self._lines += 1
        return offset

    @property
    def unconfirmed(self) -> int:
        """Clips that wait for the broker."""
        return len(self._unconfirmed)

    def first_unconfirmed(self) -> Closed | None:
        """The oldest clip that waits for the broker."""
        with self._lock:
            return self._read(min(self._unconfirmed)) if self._unconfirmed else None

    def all_unconfirmed(self) -> list[Closed]:
        """Every clip that waits for the broker, oldest first."""
        with self._lock:
            return list(self._read_unconfirmed())

    def _read_unconfirmed(self) -> Iterator[Closed]:
        for key in sorted(self._unconfirmed):
            yield self._read(key)

    def _read(self, key: Key) -> Closed:
        closed = _parse_closed(json.loads(self._read_line(self._unconfirmed[key])))
        ring = self._rings.get(key)
        return closed if ring is None else replace(closed, task=closed.task.model_copy(update={"ring": ring}))

    def _read_line(self, offset: int) -> bytes:
        body = b""
        while b"\n" not in body:
            more = os.pread(self._file, 8192, offset + len(body))
            if not more:
                break
            body += more
        return body.partition(b"\n")[0]

    def __del__(self) -> None:
        file = getattr(self, "_file", -1)
        if file >= 0:
            os.close(file)

    def close(self) -> None:
        """Sync and let go of the file."""
        with self._lock:
            file, self._file = self._file, -1
            try:
                sync_file(file)
            finally:
                os.close(file)


def _replaced(path: Path, body: bytes) -> int:
    """Give the name to a new, synced file with this content; return its descriptor, open for appending.

    Raises:
        OSError: the disk refused; the name is the old file's.
    """
    beside = path.with_name(f".{path.name}.tmp")
    file = os.open(beside, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        if os.write(file, body) != len(body):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        sync_file(file)
        beside.replace(path)
    except BaseException:
        os.close(file)
        beside.unlink(missing_ok=True)
        raise
    return file


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Records of a journal and where they begin; what is no record (a power cut's) is passed over and counted."""
    broken = offset = 0
    for line in path.read_bytes().splitlines(keepends=True):
        begin, offset = offset, offset + len(line)
        try:
            record = json.loads(line)
            if record["r"] == "closed":
                _parse_closed(record)
            yield begin, record
        except (ValueError, KeyError, TypeError, ValidationError):
            broken += 1
    if broken:
        log.warning("journal %s: %d lines are no records", path.name, broken, extra={"event": "journal_broken"})
