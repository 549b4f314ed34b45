"""Taking messages from one queue, on a channel of its own: a fault of one queue leaves the others alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from pika.exceptions import AMQPError

from nodeagent.infra.bus import rabbitmq_entry
from nodeagent.infra.bus.inhand import InHand

log = logging.getLogger(__name__)

#: Seconds until a consumer that the broker ended (queue missing, or deleted under it) is tried again.
AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Handle:
    """What settles a delivery: the channel it came by and the number it has there."""

    channel: Any
    tag: int


class Consumer:
    """One queue's consumer.  All methods run in the connection's thread."""

    def __init__(self, queue: str, prefetch: int, hand: InHand) -> None:
        self.queue = queue
        self._prefetch = prefetch
        self._hand = hand
        self._connection: Any = None
        self._told = False

    def open(self, connection: Any) -> None:
        """Open a channel and consume; harmless when that was done on this connection."""
        if connection is not self._connection and connection.is_open:
            self._connection = connection
            connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._closed)
        channel.add_on_cancel_callback(lambda _: _close(channel))
        channel.basic_qos(prefetch_count=self._prefetch, callback=lambda _: self._start(channel))

    def _start(self, channel: Any) -> None:
        channel.basic_consume(self.queue, self._on_message, callback=lambda _: self._started())

    def _started(self) -> None:
        self._told = False

    def _on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        handle = Handle(channel, method.delivery_tag)
        headers = properties.headers or {}
        self._hand.put(rabbitmq_entry.delivery(self.queue, method.routing_key, headers, body, handle))

    def _closed(self, channel: Any, reason: BaseException) -> None:
        of_channel = [tag for tag in self._hand.tags(self.queue) if isinstance(tag, Handle) and tag.channel is channel]
        self._hand.lose(self.queue, of_channel)
        if channel.connection.is_open:
            self._connection = None
            if not self._told:
                self._told = True
                log.warning("bus: consumer of %s ended: %s", self.queue, reason, extra={"event": "bus_consumer_ended"})
            channel.connection.ioloop.call_later(AGAIN_S, lambda: self.open(channel.connection))


def settle(handle: Handle, *, keep: bool) -> None:
    """Acknowledge, or give back when `keep`; does nothing on a channel that is gone."""
    try:
        if not handle.channel.is_open:
            return
        if keep:
            handle.channel.basic_nack(handle.tag, requeue=True)
        else:
            handle.channel.basic_ack(handle.tag)
    except AMQPError as exc:
        log.debug("settle: %s", type(exc).__name__)


def _close(channel: Any) -> None:
    try:
        channel.close()
    except AMQPError as exc:
        log.debug("close: %s", type(exc).__name__)
