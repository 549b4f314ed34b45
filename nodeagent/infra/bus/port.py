"""The port: all that a stage knows of a broker.

Promises of every adapter, kept by one contract suite:
- `publish` returns only when the broker has confirmed that it keeps the message.
- A delivery that was not acknowledged comes again, to this or another consumer, also after kill -9 of either side.
- `later` and `dead` confirm a copy elsewhere before the original goes, so that a message is never in no queue.
- Order is NOT promised, and a message may come twice: readers deduplicate.
- A lost connection is made anew without limit; deliveries taken before it are void, and settling one does nothing.
- All calls may come from any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from nodeagent.contract.codec import Message


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as it was taken from a queue.

    Attributes:
        queue: name of the queue it came from.
        key: routing key it was published with (the camera's id).
        message: body and headers.
        attempt: 1 at the first delivery; grows with each redelivery and each `later`.
        reason: why it lies in this queue, when that is a dead-letter queue.
        tag: the adapter's own handle.
    """

    queue: str
    key: str
    message: Message
    attempt: int
    reason: str = ""
    tag: object = field(default=None, repr=False, compare=False)


class Bus(Protocol):
    """A connection to the broker, made and kept by the adapter."""

    def declare(self) -> None:
        """Make exchanges and queues of the topology; harmless when they exist.

        Raises:
            Unavailable: the broker is away.
            ConfigError: it lacks what the topology needs; names what is missing.
        """
        ...

    def bind_camera(self, camera_id: str) -> None:
        """Route this camera's clip tasks and detections to this node's queues, and to one shard's only.

        Harmless when done before.

        Raises:
            Unavailable: the broker is away.
        """
        ...

    def unbind_camera(self, camera_id: str) -> None:
        """Route nothing of this camera to this node any more; harmless when not bound.

        Raises:
            Unavailable: the broker is away.
        """
        ...

    def unbind_clips(self, camera_id: str) -> None:
        """Route no clip task of this camera to this node any more, but its detections still; harmless when not bound.

        Raises:
            Unavailable: the broker is away.
        """
        ...

    def publish(self, exchange: str, key: str, message: Message) -> None:
        """Hand a message to the broker and wait until it is kept.

        Raises:
            Refused: the broker refused it (queue full, no route); the link is fine.
            Unavailable: not confirmed; it may or may not have arrived.
        """
        ...

    def consume(self, queue: str, prefetch: int) -> None:
        """Start taking messages from `queue`, at most `prefetch` unsettled ones at a time."""
        ...

    def get(self, timeout_s: float) -> Delivery | None:
        """The next delivery of any consumed queue; None after `timeout_s`, or while the broker is away."""
        ...

    def ack(self, delivery: Delivery) -> None:
        """The message is done with."""
        ...

    def nack(self, delivery: Delivery) -> None:
        """Give the message back for another try now."""
        ...

    def later(self, delivery: Delivery, delay_s: float) -> None:
        """Give the message back for another try in about `delay_s` seconds (the next longer delay that exists).

        Raises:
            Unavailable: the copy was not confirmed; the original stays unsettled.
        """
        ...

    def dead(self, delivery: Delivery, reason: str) -> None:
        """Put the message aside, into the dead-letter queue of its queue, with the reason in its headers.

        Raises:
            Unavailable: the copy was not confirmed; the original stays unsettled.
        """
        ...

    def depth(self, queue: str) -> int:
        """Messages that wait in `queue`, taken ones not counted.

        Raises:
            Unavailable: the broker is away.
        """
        ...

    def taken(self, queue: str) -> int:
        """Messages of `queue` that a consumer has and did not settle, though it was killed and nobody has taken them
        over yet; 0 from a broker that gives those back at once, where `depth` counts them.

        Raises:
            Unavailable: the broker is away.
        """
        ...

    @property
    def connected(self) -> bool:
        """Whether the broker answers at the moment."""
        ...

    def close(self) -> None:
        """Give back what is unsettled and disconnect."""
        ...
