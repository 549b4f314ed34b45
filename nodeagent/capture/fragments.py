"""How much of a fragmented MP4 is whole.  A killed writer leaves half a fragment at the end; cutting it off repairs the
file in place, needs no space, and may be repeated after a kill at any instant.

Source of the layout: ISO/IEC 14496-12, boxes of 4 bytes size (big endian, header included) and 4 bytes type; size 1
means 8 more bytes of size.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from nodeagent.infra.files import sync_file

_HEADER = struct.Struct(">I4s")
_LARGE = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Wholeness:
    """How much of a file is whole.

    Attributes:
        length: bytes up to the end of the last complete fragment; 0 when there is none.
        finished: whether nothing is missing, down to the index (`mfra`) that a writer puts at the very end.
    """

    length: int
    finished: bool


def wholeness(path: Path) -> Wholeness:
    """Walk the boxes of a fragmented MP4; reads their headers only.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size
        at = whole = 0
        has_moov, kind = False, b""
        while at + _HEADER.size <= total:
            file.seek(at)
            head = file.read(_HEADER.size + _LARGE.size)
            size, kind = _HEADER.unpack_from(head)
            if size == 1 and len(head) == _HEADER.size + _LARGE.size:
                (size,) = _LARGE.unpack_from(head, _HEADER.size)
            if size < _HEADER.size or at + size > total:
                break
            at += size
            has_moov = has_moov or kind == b"moov"
            # A fragment is a `moof` and the `mdat` after it; all that ends with an `mdat` is whole.
            if kind == b"mdat" and has_moov:
                whole = at
        return Wholeness(whole, finished=at == total and kind == b"mfra")


def truncate_to(path: Path, length: int) -> None:
    """Cut the file and sync it.

    Raises:
        OSError: the disk refused.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, length)
        sync_file(fd)
    finally:
        os.close(fd)
