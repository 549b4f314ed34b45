"""Names of ring files, and finding, mapping and taking them.

A ring is made under a hidden name and gets its own name when it is complete, so whatever has a ring's name is whole.
A writer holds `flock` on its file for life: the kernel drops it with the process, however that ends, so a file whose
lock is free has no writer, not even a stopped one.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodeagent.contract.errors import DecodeError
from nodeagent.ring import layout
from nodeagent.ring.layout import Geometry

#: Between camera and generation in a file's name.  A camera id may contain it too: names are read from their end.
_MARK = ".g"
_UNFINISHED_SUFFIX = ".tmp"


def rings_folder(memory_dir: Path) -> Path:
    """Where an incarnation's rings lie."""
    return memory_dir / "rings"


def ring_path(memory_dir: Path, camera_id: str, generation: int) -> Path:
    """Where a camera's ring lies."""
    return rings_folder(memory_dir) / f"{camera_id}{_MARK}{generation}"


def unfinished_path(memory_dir: Path, camera_id: str, generation: int) -> Path:
    """Where a ring lies while it is made; ids never start with a dot, so it is never taken for a ring."""
    name = f".{camera_id}{_MARK}{generation}.{os.getpid()}{_UNFINISHED_SUFFIX}"
    return rings_folder(memory_dir) / name


def generations(memory_dir: Path, camera_id: str) -> list[int]:
    """Generations of the camera's rings, oldest first."""
    found = (_split(path.name) for path in rings_folder(memory_dir).iterdir())
    return sorted(name[1] for name in found if name and name[0] == camera_id)


def unfinished(memory_dir: Path, camera_id: str) -> Iterator[Path]:
    """The camera's rings that were never finished."""
    for path in rings_folder(memory_dir).iterdir():
        name = path.name.removeprefix(".").removesuffix(_UNFINISHED_SUFFIX)
        if path.name != name and (found := _split(name.rpartition(".")[0])) and found[0] == camera_id:
            yield path


def _split(name: str) -> tuple[str, int] | None:
    camera_id, mark, number = name.rpartition(_MARK)
    return (camera_id, int(number)) if mark and number.isascii() and number.isdigit() else None


def try_lock(fd: int) -> bool:
    """Whether the file now is, or already was, this descriptor's alone; never waits."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Mapped:
    """A ring file in memory.

    Attributes:
        words: the whole file as native 64-bit words; each store and load is one instruction.
        frames: one view per slot, (height * 3 // 2, width) uint8.

    The mapping goes with the last of them: closing it by hand under a living view would fail.
    """

    words: memoryview
    geometry: Geometry
    frames: tuple[NDArray[np.uint8], ...]


def map_new(fd: int, geometry: Geometry) -> Mapped:
    """Reserve, touch and map an empty file.

    Raises:
        OSError: the memory is not there.
    """
    # Reserved now: a sparse file on a full tmpfs kills its writer with SIGBUS later.
    os.posix_fallocate(fd, 0, geometry.file_bytes)
    return _views(_map_for_writing(fd, geometry.file_bytes), geometry)


def map_existing(fd: int, generation: int, writable: bool) -> Mapped:
    """Map a ring that somebody made.

    Raises:
        DecodeError: the file is no ring of that generation.
        OSError: it cannot be mapped.
    """
    size = os.fstat(fd).st_size
    if size < layout.PAGE_BYTES or size % layout.PAGE_BYTES:
        raise DecodeError("no ring: wrong size")
    memory = _map_for_writing(fd, size) if writable else mmap.mmap(fd, size, prot=mmap.PROT_READ)
    with memoryview(memory) as raw, raw.cast("q") as words:
        geometry = Geometry(words[layout.H_WIDTH], words[layout.H_HEIGHT], words[layout.H_SLOTS])
        if words[layout.H_MAGIC] != layout.MAGIC:
            raise DecodeError("no ring: wrong first bytes")
        if words[layout.H_GENERATION] != generation:
            raise DecodeError(f"a ring of generation {words[layout.H_GENERATION]}, not {generation}")
        if not geometry.is_possible or geometry.file_bytes != size:
            raise DecodeError(f"a ring whose header and size disagree: {geometry}, {size} bytes")
    return _views(memory, geometry)


def _map_for_writing(fd: int, size: int) -> mmap.mmap:
    # Populated: the first round through the ring pays no page fault per 4 KiB.
    return mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)


def _views(memory: mmap.mmap, geometry: Geometry) -> Mapped:
    count, stride = geometry.frame_bytes, geometry.stride
    starts = range(geometry.frames_at, geometry.file_bytes, stride)
    frames = tuple(np.frombuffer(memory, np.uint8, count, start).reshape(geometry.shape) for start in starts)
    return Mapped(memoryview(memory).cast("q"), geometry, frames)
