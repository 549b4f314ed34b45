"""The bus on RabbitMQ.

One connection per bus, in a thread of its own (`rabbitmq_link`): heartbeats are served while work runs, and whatever
a stage calls is handed over to that thread.  Publishing and each consumed queue have a channel of their own.

kill -9 at any line loses nothing: a message is acknowledged only after its successor (a copy in another queue, or what
the stage made of it) was confirmed, so the worst is that both exist.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from typing import Any

from nodeagent.contract.codec import Message
from nodeagent.contract.errors import Refused, Unavailable
from nodeagent.infra.bus import rabbitmq_declare, rabbitmq_entry
from nodeagent.infra.bus.inhand import InHand, Tell, tell_nobody
from nodeagent.infra.bus.port import Delivery
from nodeagent.infra.bus.rabbitmq_admin import Admin, Rejected, Step
from nodeagent.infra.bus.rabbitmq_consumer import Consumer, Handle, settle
from nodeagent.infra.bus.rabbitmq_layout import DEAD, RETRY, Binding, back_key, camera_bindings, layout, stale_bindings
from nodeagent.infra.bus.rabbitmq_link import Link, parameters
from nodeagent.infra.bus.rabbitmq_publisher import Publisher
from nodeagent.infra.bus.topology import CLIPS, Node, dead_queue, retry_delay_s

_NOT_FOUND = 404


class RabbitBus:
    """`Bus` on RabbitMQ 3.10 or newer.  Make it in the process that uses it, after any fork: it has a thread."""

    def __init__(
        self, url: str, node: Node, heartbeat_s: int, confirm_timeout_s: float, tell: Tell = tell_nobody
    ) -> None:
        self._node = node
        self._hand = InHand(tell)
        self._consumers: list[Consumer] = []
        self._consumers_lock = threading.Lock()
        params = parameters(url, heartbeat_s, f"nodeagent {node.node_id}")
        self._link = Link(params, self._up, self._down, lambda why: self._publisher.blocked(why))
        self._publisher = Publisher(self._link, confirm_timeout_s)
        self._admin = Admin(self._link)
        self._link.start()

    # --- topology

    def declare(self) -> None:
        """Check the broker and make what is missing."""
        # The first answer tells that there is a connection, and with it what the broker is.
        self._ask(lambda channel, done: channel.basic_qos(prefetch_count=1, callback=done))
        rabbitmq_declare.declare(self._admin, self._link.server, layout(self._node))

    def bind_camera(self, camera_id: str) -> None:
        """Route the camera to this node's queues, and to none of a shard that it was in before."""
        for binding in camera_bindings(self._node, camera_id):
            self._ask(_bind(binding))
        # Bound first: kill -9 here leaves it bound twice, which the next call mends.
        self._unbind_all(stale_bindings(self._node, camera_id))

    def unbind_camera(self, camera_id: str) -> None:
        """Route it to no queue of this node."""
        self._unbind_all(camera_bindings(self._node, camera_id))
        self._unbind_all(stale_bindings(self._node, camera_id))

    def unbind_clips(self, camera_id: str) -> None:
        """Route its clip tasks to no queue of this node."""
        self._unbind_all(binding for binding in camera_bindings(self._node, camera_id) if binding.exchange == CLIPS)

    def _unbind_all(self, bindings: Iterable[Binding]) -> None:
        # Under a millisecond each, also for a queue that does not exist.
        for binding in bindings:
            self._ask(_unbind(binding))

    def depth(self, queue: str) -> int:
        """Messages that are ready; 0 when there is no such queue."""
        try:
            answer = self._admin.ask(lambda channel, done: channel.queue_declare(queue, passive=True, callback=done))
        except Rejected as exc:
            if exc.code == _NOT_FOUND:
                return 0
            raise Unavailable(f"rabbitmq: {exc.text}") from exc
        return int(answer.message_count)

    def taken(self, _queue: str) -> int:
        """0: what a killed consumer had is ready again as soon as its connection is gone."""
        return 0

    def _ask(self, step: Step) -> None:
        try:
            self._admin.ask(step)
        except Rejected as exc:
            raise Unavailable(f"rabbitmq: {exc.text}") from exc

    # --- messages

    def publish(self, exchange: str, key: str, message: Message) -> None:
        """Send and wait for the confirm."""
        self._publisher.publish(exchange, key, message.body, message.headers)

    def consume(self, queue: str, prefetch: int) -> None:
        """Consume now if there is a connection, and at every new one."""
        consumer = Consumer(queue, prefetch, self._hand)
        with self._consumers_lock:
            self._consumers.append(consumer)
        # Without a connection `_up` opens it; between the two, opening twice is prevented by the consumer.
        with contextlib.suppress(Unavailable):
            self._link.submit(consumer.open)

    def get(self, timeout_s: float) -> Delivery | None:
        """The next delivery of any consumed queue."""
        return self._hand.next(timeout_s)

    def ack(self, delivery: Delivery) -> None:
        """Done; while the broker is away it is void, and the message comes again."""
        self._settle(delivery, keep=False)

    def nack(self, delivery: Delivery) -> None:
        """Give it back."""
        self._settle(delivery, keep=True)

    def later(self, delivery: Delivery, delay_s: float) -> None:
        """Copy into the retry queue, confirmed; then acknowledge."""
        delay = retry_delay_s(delay_s)
        self._copy(delivery, RETRY, back_key(delivery.queue, delay), rabbitmq_entry.again_headers(delivery))

    def dead(self, delivery: Delivery, reason: str) -> None:
        """Copy into the dead-letter queue, confirmed; then acknowledge."""
        self._copy(delivery, DEAD, dead_queue(delivery.queue), rabbitmq_entry.dead_headers(delivery, reason))

    def _copy(self, delivery: Delivery, exchange: str, key: str, headers: dict[str, str]) -> None:
        if not self._hand.holds(delivery):
            return
        try:
            self._publisher.publish(exchange, key, delivery.message.body, headers)
        except Refused as exc:
            raise Unavailable(str(exc)) from exc
        # kill -9 here: the message exists twice, never not at all.
        self.ack(delivery)

    def _settle(self, delivery: Delivery, *, keep: bool) -> None:
        handle = delivery.tag
        if self._hand.remove(delivery) and isinstance(handle, Handle):
            with contextlib.suppress(Unavailable):
                self._link.submit(lambda _: settle(handle, keep=keep))

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._link.connected

    def close(self) -> None:
        """Disconnect; the broker gives everything unsettled to others."""
        self._link.close()
        self._hand.lose_all()

    # --- in the connection's thread

    def _up(self, connection: Any) -> None:
        self._publisher.open(connection)
        with self._consumers_lock:
            consumers = list(self._consumers)
        for consumer in consumers:
            consumer.open(connection)

    def _down(self, why: str) -> None:
        self._hand.lose_all()
        self._publisher.lost(why)
        self._admin.lost(why)


def _bind(binding: Binding) -> Step:
    return lambda channel, done: channel.queue_bind(binding.queue, binding.exchange, binding.key, callback=done)


def _unbind(binding: Binding) -> Step:
    return lambda channel, done: channel.queue_unbind(binding.queue, binding.exchange, binding.key, callback=done)
