"""AMQP messages as deliveries and back.

Pure.  What an adapter needs beside the stage's own headers travels in `x-nodeagent-*`; nothing that starts with `x-`
reaches a stage, so a republished message carries neither ours nor the broker's history (`x-death`).
"""

from __future__ import annotations

from collections.abc import Mapping

from nodeagent.contract.codec import Message
from nodeagent.infra.bus.port import Delivery
from nodeagent.infra.bus.topology import DEAD_SUFFIX

KEY_HEADER = "x-nodeagent-key"
ATTEMPT_HEADER = "x-nodeagent-attempt"
REASON_HEADER = "x-nodeagent-reason"
#: Set by quorum queues: how often the message was given back.
COUNT_HEADER = "x-delivery-count"
#: Set by the broker on what it dead-lettered: expired, delivery_limit, ...
DEATH_HEADER = "x-first-death-reason"


def again_headers(delivery: Delivery) -> dict[str, str]:
    """Headers of a copy for the next attempt."""
    return _headers(delivery, delivery.attempt + 1, delivery.reason)


def dead_headers(delivery: Delivery, reason: str) -> dict[str, str]:
    """Headers of a copy that is put aside."""
    return _headers(delivery, delivery.attempt, reason)


def _headers(delivery: Delivery, attempt: int, reason: str) -> dict[str, str]:
    ours = {KEY_HEADER: delivery.key, ATTEMPT_HEADER: str(attempt), REASON_HEADER: reason}
    return delivery.message.headers | ours


def delivery(queue: str, routing_key: str, headers: Mapping[str, object], body: bytes, tag: object) -> Delivery:
    """A message as it came from `queue`, whoever published it."""
    own = {str(name): str(value) for name, value in headers.items() if not str(name).startswith("x-")}
    return Delivery(
        queue=queue,
        key=str(headers.get(KEY_HEADER, routing_key)),
        message=Message(body, own),
        attempt=max(1, _number(headers.get(ATTEMPT_HEADER), 1) + _number(headers.get(COUNT_HEADER), 0)),
        reason=_reason(queue, headers),
        tag=tag,
    )


def _number(value: object, otherwise: int) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else otherwise


def _reason(queue: str, headers: Mapping[str, object]) -> str:
    if not queue.endswith(DEAD_SUFFIX):
        return ""
    return str(headers.get(REASON_HEADER) or headers.get(DEATH_HEADER) or "")
