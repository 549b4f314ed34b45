"""Entries of a stream as deliveries, and deliveries as the fields of an entry.

Pure: knows the layout only.  Whatever another program put into the stream becomes a delivery too; the stage that
cannot decode it puts it aside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from nodeagent.contract.codec import Message
from nodeagent.infra.bus.port import Delivery


def fields(key: str, message: Message, attempt: int, reason: str = "") -> list[str | bytes | int]:
    """Names and values, in turn, of an entry whose next delivery is attempt `attempt`."""
    return ["k", key, "h", json.dumps(message.headers), "b", message.body, "a", attempt, "r", reason]


def again(delivery: Delivery) -> list[str | bytes | int]:
    """Fields of a copy of this delivery, for its next attempt."""
    return fields(delivery.key, delivery.message, delivery.attempt + 1, delivery.reason)


def delivery(queue: str, entry_id: bytes, values: Sequence[bytes], deliveries: int) -> Delivery:
    """An entry, its fields as names and values in turn, that is delivered for the `deliveries`-th time."""
    entry = dict(zip(values[::2], values[1::2], strict=False))
    return Delivery(
        queue=queue,
        key=_text(entry, b"k"),
        message=Message(entry.get(b"b", b""), _headers(entry)),
        attempt=_first_attempt(entry) + max(deliveries, 1) - 1,
        reason=_text(entry, b"r"),
        tag=entry_id,
    )


def _text(entry: Mapping[bytes, bytes], name: bytes) -> str:
    return entry.get(name, b"").decode(errors="replace")


def _headers(entry: Mapping[bytes, bytes]) -> dict[str, str]:
    try:
        found = json.loads(entry.get(b"h", b"{}"))
    except (ValueError, RecursionError):
        return {}
    return {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _first_attempt(entry: Mapping[bytes, bytes]) -> int:
    digits = entry.get(b"a", b"1")
    return int(digits) if digits.isdigit() and len(digits) < 10 else 1
