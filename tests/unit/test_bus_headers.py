"""Headers that the library for RabbitMQ cannot read, or reads wrongly."""

from __future__ import annotations

import math
import struct

import pika.data
import pytest

from nodeagent.infra.bus import rabbitmq_link
from nodeagent.infra.bus.rabbitmq_headers import DEPTH_MAX, read_value


def number(kind: str, form: str, value: float) -> bytes:
    return struct.pack(f">c{form}", kind.encode(), value)


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (number("f", "f", 0.5), 0.5),
        (number("d", "d", 0.1), 0.1),
        (number("d", "d", math.inf), math.inf),
        (number("T", "Q", 1_764_000_000), 1_764_000_000),
        (number("T", "Q", 1_764_000_000_000), 1_764_000_000_000),
        (number("T", "Q", 2**64 - 1), 2**64 - 1),
        (number("l", "q", -5), -5),
        (b"S\0\0\0\2ab", "ab"),
    ],
)
def test_values_are_read_to_their_end(encoded: bytes, value: object) -> None:
    assert read_value(b"before" + encoded + b"after", 6) == (value, 6 + len(encoded))


@pytest.mark.parametrize(("kind", "form"), [("f", "f"), ("d", "d")])
def test_no_number_is_read_as_that(kind: str, form: str) -> None:
    value, _ = read_value(number(kind, form, math.nan), 0)
    assert math.isnan(value)


def nested(depth: int) -> bytes:
    """A table in a table in a table ..., the innermost empty."""
    inner = b""
    for _ in range(depth):
        inner = b"\1xF" + struct.pack(">I", len(inner)) + inner
    return struct.pack(">I", len(inner)) + inner


def test_tables_without_end_are_left_as_bytes() -> None:
    assert rabbitmq_link.Link  # that is what makes the library tolerant
    table, end = pika.data.decode_table(nested(5000), 0)
    assert end == len(nested(5000))
    for _ in range(DEPTH_MAX):
        table = table["x"]
    assert isinstance(table["x"], bytes)
    assert pika.data.decode_table(nested(2), 0)[0] == {"x": {"x": {}}}
