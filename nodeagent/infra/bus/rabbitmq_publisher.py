"""Publishing with confirms, many at a time.

Any number of threads may publish; each waits for its own message only, so confirms are pipelined: the broker syncs its
log once for all that are under way.

A nack means that the queue is full or, for about 0.2 s after its leader died, that it has no leader.  RabbitMQ 3.10
has a channel whose first message to a queue falls into that gap nacked for ever; so when one exchange has brought
nothing but nacks for NACKS_S, the channel is made anew.  (A new channel is enough, and leaves deliveries alone.)
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pika
from pika.exceptions import AMQPError, ChannelClosed

from nodeagent.contract.errors import AgentError, Refused, Unavailable
from nodeagent.infra.bus.rabbitmq_link import Link

log = logging.getLogger(__name__)

#: Seconds of nothing but nacks after which the channel is suspected: an election takes a tenth of it.
NACKS_S = 2.0
_NOT_FOUND = 404
_PERSISTENT = 2


@dataclass(slots=True)
class _Pending:
    """A message that is under way."""

    exchange: str
    key: str
    body: bytes
    headers: dict[str, str]
    done: threading.Event = field(default_factory=threading.Event)
    returned: str = ""
    error: AgentError | None = None

    def finish(self, error: AgentError | None = None) -> None:
        self.error = error
        self.done.set()


class Publisher:
    """The publishing channel of a link."""

    def __init__(self, link: Link, confirm_timeout_s: float) -> None:
        self._link = link
        self._timeout_s = confirm_timeout_s
        # All below is touched by the connection's thread only.
        self._channel: Any = None
        self._tag = 0
        self._unconfirmed: dict[int, _Pending] = {}
        self._waiting: list[_Pending] = []
        self._nacks_since_s: dict[str, float] = {}

    def publish(self, exchange: str, key: str, body: bytes, headers: dict[str, str]) -> None:
        """Send a message and wait until the broker has it.

        Raises:
            Refused, Unavailable: as the port says.
        """
        if self._link.blocked:
            raise Unavailable(f"rabbitmq: takes no messages: {self._link.blocked}")
        pending = _Pending(exchange, key, body, headers)
        connection = self._link.submit(
            lambda _: self._send(pending), lambda why: pending.finish(Unavailable(f"rabbitmq: {why}"))
        )
        if not pending.done.wait(self._timeout_s):
            self._link.reopen("no confirm", connection)
            raise Unavailable(f"rabbitmq: no confirm in {self._timeout_s} s")
        if pending.error is not None:
            raise pending.error

    # --- in the connection's thread

    def open(self, connection: Any) -> None:
        """Open the channel; messages that come meanwhile wait for it."""
        self._channel = None
        connection.channel(on_open_callback=self._opened)

    def lost(self, why: str) -> None:
        """The connection is gone, and with it every confirm."""
        self._channel = None
        self._fail_all(why)

    def blocked(self, why: str) -> None:
        """The broker reads nothing more; what is under way may or may not arrive."""
        self._fail_all(f"takes no messages: {why}")

    def _opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._ready(channel))

    def _ready(self, channel: Any) -> None:
        self._channel, self._tag = channel, 0
        self._nacks_since_s.clear()
        waiting, self._waiting = self._waiting, []
        for pending in waiting:
            self._send(pending)

    def _send(self, pending: _Pending) -> None:
        if self._channel is None:
            self._waiting.append(pending)
            return
        tag = self._tag + 1
        # The id comes back with a returned message, which carries no delivery tag.
        properties = pika.BasicProperties(delivery_mode=_PERSISTENT, headers=pending.headers, message_id=str(tag))
        try:
            self._channel.basic_publish(pending.exchange, pending.key, pending.body, properties, mandatory=True)
        except (AMQPError, ValueError) as exc:
            pending.finish(Unavailable(f"rabbitmq: publish: {type(exc).__name__}"))
            return
        self._tag = tag
        self._unconfirmed[tag] = pending

    def _on_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        # Comes before the message's ack, on the same channel.
        pending = self._unconfirmed.get(int(properties.message_id or 0))
        if pending is not None:
            pending.returned = f"{method.reply_code} {method.reply_text}"

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._unconfirmed if tag <= method.delivery_tag]
        for tag in tags:
            pending = self._unconfirmed.pop(tag, None)
            if pending is not None:
                self._finish(pending, acked=isinstance(method, pika.spec.Basic.Ack))

    def _finish(self, pending: _Pending, *, acked: bool) -> None:
        if acked and not pending.returned:
            self._nacks_since_s.pop(pending.exchange, None)
            pending.finish()
        elif acked:
            pending.finish(Refused(f"rabbitmq: {pending.exchange}: {pending.returned}"))
        else:
            pending.finish(Refused(f"rabbitmq: {pending.exchange}: the queue takes no more"))
            self._suspect(pending.exchange)

    def _suspect(self, exchange: str) -> None:
        now_s = time.monotonic()
        since_s = self._nacks_since_s.setdefault(exchange, now_s)
        if now_s - since_s > NACKS_S and self._channel is not None and self._channel.is_open:
            log.warning("bus: only refusals from %s; new channel", exchange, extra={"event": "bus_new_channel"})
            self._nacks_since_s.clear()
            self._channel.close(200, "only refusals")

    def _closed(self, channel: Any, reason: BaseException) -> None:
        """The broker, or `_suspect`, ended the channel; open another unless the connection goes too."""
        self._channel = None
        if isinstance(reason, ChannelClosed) and reason.reply_code == _NOT_FOUND:
            for pending in self._unconfirmed.values():
                if f"'{pending.exchange}'" in reason.reply_text:
                    pending.finish(Refused(f"rabbitmq: {reason.reply_text}"))
        self._fail_unconfirmed("the channel was closed")
        if channel.connection.is_open:
            self.open(channel.connection)

    def _fail_all(self, why: str) -> None:
        self._fail_unconfirmed(why)
        waiting, self._waiting = self._waiting, []
        for pending in waiting:
            pending.finish(Unavailable(f"rabbitmq: {why}"))

    def _fail_unconfirmed(self, why: str) -> None:
        left, self._unconfirmed = self._unconfirmed, {}
        for pending in left.values():
            if not pending.done.is_set():
                pending.finish(Unavailable(f"rabbitmq: {why}"))
