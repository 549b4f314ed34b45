"""Whether somebody consumes a queue, as the broker knows it: a sign of life of the node that it belongs to."""

from __future__ import annotations

import threading

from nodeagent.contract.errors import Unavailable
from nodeagent.infra.bus.rabbitmq_admin import Admin, Rejected
from nodeagent.infra.bus.rabbitmq_link import Link, parameters

#: Seconds between heartbeats of the connection that asks.
HEARTBEAT_S = 10
#: The broker knows no such queue.
_NOT_FOUND = 404


class Consumers:
    """Asks one broker; any thread.  It is connected to when it is first asked, and from then on."""

    def __init__(self, url: str) -> None:
        """Connects nowhere yet.

        Raises:
            ConfigError: that is no AMQP URL.
        """
        self._link = Link(parameters(url, HEARTBEAT_S, "registry"), _ignore, self._down, _ignore)
        self._admin = Admin(self._link)
        self._lock = threading.Lock()
        self._is_started = False

    def count(self, queue: str) -> int:
        """How many consumers a queue has; 0 of one that there is not.  Takes seconds where a broker does not answer.

        Raises:
            Unavailable: the broker is away, or does not tell.
        """
        with self._lock:
            if not self._is_started:
                self._link.start()
                self._is_started = True
        try:
            answer = self._admin.ask(lambda channel, done: channel.queue_declare(queue, passive=True, callback=done))
        except Rejected as exc:
            if exc.code == _NOT_FOUND:
                return 0
            raise Unavailable(f"rabbitmq: {exc.text}") from exc
        return int(answer.consumer_count)

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._is_started:
                self._link.close()

    def _down(self, why: str) -> None:
        self._admin.lost(why)


def _ignore(_told: object) -> None:
    """Nothing hangs on it."""
