"""The writing end of a ring: one per camera, in its capture process.

It promises never to wait for a reader, and to carry on where a killed predecessor stopped.  What is easy to get wrong
is two writers in one file: a stopped one that wakes in the middle of a frame would tear a slot that its successor has
announced as whole.  So a file is only adopted when its `flock` is free, that is when its writer is gone for certain;
otherwise the successor makes a new generation and tells the old file's writer, in its header, to stop.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodeagent.contract.errors import AgentError, DecodeError, Fenced, Unavailable
from nodeagent.contract.ids import NS_PER_MS
from nodeagent.infra.clock import Clock, SystemClock
from nodeagent.infra.fence import fence
from nodeagent.ring import folder, layout
from nodeagent.ring.folder import Mapped
from nodeagent.ring.layout import Geometry

log = logging.getLogger(__name__)

_SYSTEM = SystemClock()
#: Made once: comparing with `np.uint8` would make one for every frame.
_UINT8 = np.dtype(np.uint8)
_SHORT_OF_MEMORY = (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class _Wanted:
    memory_dir: Path
    camera_id: str
    epoch: int
    geometry: Geometry


class RingWriter:
    """Writes a camera's samples.

    Attributes:
        generation: number of this ring among the camera's; part of its name.
        geometry: size of frames and ring.
    """

    def __init__(self, fd: int, mapped: Mapped, generation: int, writer_epoch: int) -> None:
        """Take a ring whose lock `fd` holds; made by `open`."""
        self._fd = fd
        self._words = mapped.words
        self._frames = mapped.frames
        self.generation = generation
        self.geometry = mapped.geometry
        self._shape = mapped.geometry.shape
        self._slots = mapped.geometry.slots
        self._head = self._first_free()
        self._words[layout.H_HEAD] = self._head
        self._words[layout.H_EPOCH] = writer_epoch
        self._turn: int = self._words[layout.H_TURN] + 1
        self._words[layout.H_TURN] = self._turn

    def begin_epoch(self, writer_epoch: int) -> None:
        """Write on with a later epoch; readers do not notice."""
        self._words[layout.H_EPOCH] = writer_epoch

    @classmethod
    def open(
        cls,
        memory_dir: Path,
        camera_id: str,
        writer_epoch: int,
        width: int,
        height: int,
        slots: int,
        clock: Clock = _SYSTEM,
    ) -> RingWriter:
        """Adopt the camera's newest ring if it is of this size and its writer is gone, else make a new one.

        Adopting keeps the samples readable and goes on with the next sequence.  A new ring starts at sequence 0; older
        ones lose their names, while who has mapped them keeps them.  One process at a time opens a camera's ring.

        Raises:
            Unavailable: shared memory is short, or cannot be written.  The message says how much was wanted.
            Fenced: a writer of a later epoch was here.
            AgentError: no ring can have this size.
        """
        wanted = _Wanted(memory_dir, camera_id, writer_epoch, Geometry(width, height, slots))
        if not wanted.geometry.is_possible:
            raise AgentError(f"ring of {camera_id}: impossible size {width}x{height}, {slots} slots")
        try:
            folder.rings_folder(memory_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
            return _open(wanted, clock)
        except OSError as exc:
            size = wanted.geometry.file_bytes
            raise Unavailable(
                f"ring of {camera_id}: {exc.strerror} in shared memory (/dev/shm): {size} bytes wanted in {memory_dir}"
            ) from exc

    @property
    def head(self) -> int:
        """The sequence that the next frame gets."""
        return self._head

    def write(self, i420: NDArray[np.uint8], captured_ns: int) -> int:
        """Store a frame, (height * 3 // 2, width) uint8, over the oldest; return its sequence.

        Raises:
            Fenced: a newer writer took the camera's ring; close this one and stop.
            ValueError: the array is not of the ring's shape or type; nothing was written.
        """
        words, seq = self._words, self._head
        if words[layout.H_TURN] != self._turn:
            raise Fenced(f"a newer writer took generation {self.generation} of the ring")
        if i420.shape != self._shape or i420.dtype != _UINT8:
            raise ValueError(f"ring wants {self._shape} uint8, got {i420.shape} {i420.dtype}")
        slot = layout.slot_word(seq, self._slots)
        # Killed after any of these lines: an odd lock word hides the slot until it is written again; an even one whose
        # sequence was not counted yet is counted by the successor (`_first_free`), so no sequence is written twice.
        words[slot + layout.S_LOCK] = layout.writing(seq)
        fence()
        np.copyto(self._frames[seq % self._slots], i420)
        words[slot + layout.S_CAPTURED_NS] = captured_ns
        fence()
        words[slot + layout.S_LOCK] = layout.whole(seq)
        words[layout.H_HEAD] = self._head = seq + 1
        return seq

    def close(self) -> None:
        """Let go of the ring; it stays for readers and for the next writer.  Not to be used afterwards."""
        # Explicitly: the mapping may live on in a view, and it holds a duplicate of the descriptor.
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)
        self._words.release()
        self._frames = ()

    def _first_free(self) -> int:
        head: int = self._words[layout.H_HEAD]
        lock = self._words[layout.slot_word(head, self._slots) + layout.S_LOCK]
        # A reader may be looking at a frame that is whole but not counted.  Writing the sequence again would give it
        # the same lock word before and after, over a changed picture.
        return head + 1 if lock == layout.whole(head) else head


def forget_rings(memory_dir: Path, camera_id: str) -> None:
    """Remove the rings of a camera that this node serves no more; a writer that still holds one is fenced.

    The memory goes back when the last reader lets go of it.

    Raises:
        Unavailable: the folder cannot be changed.
    """
    if not folder.rings_folder(memory_dir).is_dir():
        return
    try:
        _clear(memory_dir, camera_id, folder.generations(memory_dir, camera_id))
    except OSError as exc:
        raise Unavailable(f"ring of {camera_id}: {exc.strerror} in {memory_dir}") from exc


def _open(wanted: _Wanted, clock: Clock) -> RingWriter:
    """Adopt or make, then clear away.

    Killed between making and clearing: the next open finds both, takes the newer, which is whole, and clears the older.
    """
    known = folder.generations(wanted.memory_dir, wanted.camera_id)
    writer = _adopt(wanted, known[-1]) if known else None
    if writer is None:
        # Unique over restarts of the node too, when the folder is empty again: a task of yesterday that names a
        # generation must not find today's frames under that number.
        generation = max([clock.wall_ns() // NS_PER_MS, *(number + 1 for number in known)])
        writer = _make_with_room(wanted, generation, known)
    _clear(wanted.memory_dir, wanted.camera_id, [number for number in known if number != writer.generation])
    return writer


def _adopt(wanted: _Wanted, generation: int) -> RingWriter | None:
    """The ring as its dead writer left it; None when it is another size, still held, or no ring.

    Raises:
        Fenced: its last writer's epoch is later than ours.
    """
    path = folder.ring_path(wanted.memory_dir, wanted.camera_id, generation)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        mapped = folder.map_existing(fd, generation, writable=True)
        epoch: int = mapped.words[layout.H_EPOCH]
        if epoch > wanted.epoch:
            raise Fenced(f"ring of {wanted.camera_id}: epoch {epoch} has written it, ours is {wanted.epoch}")
        if mapped.geometry == wanted.geometry and folder.try_lock(fd):
            return RingWriter(fd, mapped, generation, wanted.epoch)
    except DecodeError as exc:
        log.warning("ring %s is replaced: %s", path.name, exc, extra={"event": "ring_replaced"})
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _make_with_room(wanted: _Wanted, generation: int, known: list[int]) -> RingWriter:
    """Make a ring; when memory is short, once more after the older ones gave theirs back."""
    try:
        return _make(wanted, generation)
    except OSError as exc:
        if not known or exc.errno not in _SHORT_OF_MEMORY:
            raise
        _clear(wanted.memory_dir, wanted.camera_id, known)
        return _make(wanted, generation)


def _make(wanted: _Wanted, generation: int) -> RingWriter:
    """Make a ring under a hidden name, complete it, then give it its name.

    Killed before the link: a hidden file without a lock, removed by the next open.  Killed after it: a whole ring, and
    a second, hidden name of it, removed likewise.
    """
    beside = folder.unfinished_path(wanted.memory_dir, wanted.camera_id, generation)
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        folder.try_lock(fd)
        mapped = folder.map_new(fd, wanted.geometry)
        words = mapped.words
        words[layout.H_GENERATION] = generation
        words[layout.H_WIDTH] = wanted.geometry.width
        words[layout.H_HEIGHT] = wanted.geometry.height
        words[layout.H_SLOTS] = wanted.geometry.slots
        words[layout.H_MAGIC] = layout.MAGIC
        writer = RingWriter(fd, mapped, generation, wanted.epoch)
        # A link, not a rename: it never takes another ring's name.
        os.link(beside, folder.ring_path(wanted.memory_dir, wanted.camera_id, generation))
    except BaseException:
        os.close(fd)
        raise
    finally:
        beside.unlink(missing_ok=True)
    return writer


def _clear(memory_dir: Path, camera_id: str, stale: list[int]) -> None:
    """Remove rings of the camera, telling a writer that still holds one to stop, and what was never finished."""
    for generation in stale:
        path = folder.ring_path(memory_dir, camera_id, generation)
        _fence(path, generation)
        path.unlink(missing_ok=True)
    for path in folder.unfinished(memory_dir, camera_id):
        path.unlink(missing_ok=True)


def _fence(path: Path, generation: int) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        mapped = folder.map_existing(fd, generation, writable=True)
    except DecodeError:
        return
    finally:
        os.close(fd)
    mapped.words[layout.H_TURN] += 1
