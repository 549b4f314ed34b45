"""A clip's file taken apart for players: its head, and its fragments on the time line of the world.

A clip's own time line begins at 0.  Several clips in a row would go back in time at each start, where FFmpeg drops what
seems to come too early; so the decode times of what is sent (`tfdt`) are moved to the capture time, in UTC since 1970.
The file stays as it is: the 8 bytes of each fragment are replaced on their way out.

Source of the layout: ISO/IEC 14496-12.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from nodeagent.contract.errors import BadMedia
from nodeagent.contract.ids import NS_PER_S

_HEADER = struct.Struct(">I4s")
_LARGE = struct.Struct(">Q")
_WORD = struct.Struct(">I")
#: Bytes of a head or of a fragment's table that are read at most: ours have some hundreds.
TABLE_MOST = 1 << 20
#: Bytes of a box's own header.
_HEAD = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a clip's parts lie.

    Attributes:
        head: bytes of the head: everything before the first fragment.
        end: where the last fragment ends; the index behind it counts from the file's begin, which players do not get.
        stamps: offsets in the file at which a fragment's decode time stands, and the 8 bytes that are sent instead.
    """

    head: int
    end: int
    stamps: tuple[tuple[int, bytes], ...]


def layout_of(fd: int, start_ns: int) -> Layout:
    """Take a fragmented MP4 apart; reads its tables only.

    Raises:
        BadMedia: it is none, or not one of ours.
        OSError: the disk does not answer.
    """
    size = os.fstat(fd).st_size
    head = fragments_end = 0
    scales: dict[int, int] = {}
    stamps: list[tuple[int, bytes]] = []
    try:
        for kind, at, length in _top_boxes(fd, size):
            fragments_end = at + length if kind == b"mdat" else fragments_end
            if kind not in (b"moov", b"moof"):
                continue
            if length > TABLE_MOST:
                raise BadMedia(f"a table of {length} bytes")
            body = os.pread(fd, length, at)
            if kind == b"moov":
                scales = dict(_time_scales(body))
                head = head or at + length
            else:
                head = head if stamps else at
                stamps += [(at + where, stamp) for where, stamp in _stamps(body, scales, start_ns)]
    except (struct.error, KeyError, IndexError) as exc:
        raise BadMedia(f"not a fragmented MP4: {type(exc).__name__}") from exc
    if not head or not stamps or not fragments_end:
        raise BadMedia("no fragment")
    return Layout(head, fragments_end, tuple(stamps))


def patched(data: bytes, at: int, stamps: tuple[tuple[int, bytes], ...]) -> bytes:
    """Bytes of the file from offset `at` on, with the decode times that are sent."""
    end = at + len(data)
    hit = [(where, stamp) for where, stamp in stamps if where < end and where + len(stamp) > at]
    if not hit:
        return data
    out = bytearray(data)
    for where, stamp in hit:
        first, last = max(where, at), min(where + len(stamp), end)
        out[first - at : last - at] = stamp[first - where : last - where]
    return bytes(out)


def _top_boxes(fd: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    at = 0
    while at + _HEADER.size <= size:
        raw = os.pread(fd, _HEADER.size + _LARGE.size, at)
        length, kind = _HEADER.unpack_from(raw)
        if length == 1:
            (length,) = _LARGE.unpack_from(raw, _HEADER.size)
        if length < _HEADER.size or at + length > size:
            return
        yield kind, at, length
        at += length


def _boxes(body: bytes, first: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin of the content, and end of each box within a table."""
    at = first
    while at + _HEADER.size <= end:
        length, kind = _HEADER.unpack_from(body, at)
        if length < _HEADER.size or at + length > end:
            return
        yield kind, at + _HEADER.size, at + length
        at += length


def _find(body: bytes, first: int, end: int, *kinds: bytes) -> tuple[int, int]:
    """Content of the box at the end of a path.

    Raises:
        KeyError: there is none.
    """
    for kind in kinds:
        first, end = next(((a, b) for found, a, b in _boxes(body, first, end) if found == kind), (0, 0))
        if not end:
            raise KeyError(kind)
    return first, end


def _time_scales(moov: bytes) -> Iterator[tuple[int, int]]:
    """Track id and ticks per second of each track."""
    for kind, first, end in _boxes(moov, _HEAD, len(moov)):
        if kind != b"trak":
            continue
        header, _ = _find(moov, first, end, b"tkhd")
        media, _ = _find(moov, first, end, b"mdia", b"mdhd")
        # Creation and change time stand before: 4 bytes each in version 0, 8 in version 1.
        skip = [4 + (16 if moov[at] == 1 else 8) for at in (header, media)]
        yield _WORD.unpack_from(moov, header + skip[0])[0], _WORD.unpack_from(moov, media + skip[1])[0]


def _stamps(moof: bytes, scales: dict[int, int], start_ns: int) -> Iterator[tuple[int, bytes]]:
    """Where each track's decode time stands in a fragment's table, and what it is in UTC."""
    for kind, first, end in _boxes(moof, _HEAD, len(moof)):
        if kind != b"traf":
            continue
        header, _ = _find(moof, first, end, b"tfhd")
        (track,) = _WORD.unpack_from(moof, header + 4)
        times, _ = _find(moof, first, end, b"tfdt")
        if moof[times] != 1:
            raise BadMedia("decode times of 32 bits")
        (ticks,) = _LARGE.unpack_from(moof, times + 4)
        yield times + 4, _LARGE.pack(ticks + start_ns * scales[track] // NS_PER_S)
