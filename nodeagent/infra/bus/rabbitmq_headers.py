"""Reading whatever headers a message has: without this, one that the library cannot read ends the connection.

The library decodes headers while it reads the socket.  A date in milliseconds (the year 57868), tables in tables in
tables, or a fraction that is no number make it raise there; the connection is lost, the broker sends the message again,
and so on for ever.  What such headers say matters to nobody: a stage puts a message aside that is none of its own.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import Any, Final

import pika.data

#: How the library's own function reads a value: from these bytes, at this offset; and where the next one begins.
_read: Callable[[bytes, int], tuple[Any, int]] = pika.data.decode_value
#: Kinds of values that are read here, with how they are packed.
_NUMBERS: Final = {b"T": struct.Struct(">Q"), b"f": struct.Struct(">f"), b"d": struct.Struct(">d")}
_LENGTH: Final = struct.Struct(">I")
#: Tables and lists inside one another that are still taken apart: the broker's own (`x-death`, what it says about
#: itself when it greets) have two or three.
DEPTH_MAX: Final = 8


class _Depth(threading.local):
    """How deep in tables and lists the thread is."""

    now = 0


_depth = _Depth()


def read_value(encoded: bytes, offset: int) -> tuple[Any, int]:
    """The value at `offset` and where the next one begins: dates as their number, what is nested too deep as bytes."""
    kind, at = encoded[offset : offset + 1], offset + 1
    number = _NUMBERS.get(kind)
    if number is not None:
        return number.unpack_from(encoded, at)[0], at + number.size
    if kind not in (b"F", b"A"):
        return _read(encoded, offset)
    if _depth.now >= DEPTH_MAX:
        end = at + _LENGTH.size + _LENGTH.unpack_from(encoded, at)[0]
        return encoded[at + _LENGTH.size : end], end
    _depth.now += 1
    try:
        return _read(encoded, offset)
    finally:
        _depth.now -= 1


def be_tolerant() -> None:
    """Have the library read values so, in this process; harmless when it does already."""
    pika.data.decode_value = read_value
