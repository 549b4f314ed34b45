"""Broadcasts: hints to all agents, over a channel of Redis.

Redis keeps no broadcast: whoever is not connected at that moment never gets it.  So a listener says after each time
that it connected, and whenever it had to drop some, that it may have MISSED some; its user then reads the state itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from enum import Enum
from typing import Any, Final

import redis

from nodeagent.contract.codec import decode_broadcast, encode_broadcast
from nodeagent.contract.errors import DecodeError, Unavailable
from nodeagent.contract.ownership import CHANNEL, Broadcast
from nodeagent.infra.bus.backoff import Backoff
from nodeagent.infra.redis import translated

log = logging.getLogger(__name__)

#: Broadcasts that wait for the user of a listener, several for each camera of a large node; when there are more, all
#: are dropped and it reads the state instead, which is less work than so many hints.
WAITING_MAX: Final = 1_000
#: Longest wait for a message, seconds; closing waits for it.
READ_S: Final = 0.2
#: Seconds between questions whether the connection still lives.
PING_S: Final = 2.0
#: Silence after which a connection is taken for dead and made anew, seconds: two unanswered questions.
SILENT_S: Final = 5.0


class Missed(Enum):
    """Instead of a broadcast: some may have been missed."""

    MISSED = "missed"


MISSED: Final = Missed.MISSED


def publish(client: redis.Redis, broadcast: Broadcast) -> int:
    """Tell every agent; returns how many connections were there to hear it.

    Raises:
        Unavailable: Redis is away.
    """
    publisher: Any = client
    with translated("publish"):
        return int(publisher.publish(CHANNEL, encode_broadcast(broadcast)))


class Listener:
    """Takes broadcasts in a thread of its own.  Make it in the process that uses it, after any fork."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._changed = threading.Condition()
        self._waiting: deque[Broadcast] = deque()
        self._missed = False
        self._connected = False
        self._undecodable = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broadcasts", daemon=True)
        self._thread.start()

    def get(self, timeout_s: float) -> Broadcast | Missed | None:
        """The next broadcast; MISSED before all others when some may be missing; None after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._missed or self._waiting or self._closing.is_set(), timeout_s)
            if self._missed:
                self._missed = False
                return MISSED
            return self._waiting.popleft() if self._waiting else None

    @property
    def connected(self) -> bool:
        """Whether broadcasts would arrive now."""
        return self._connected

    @property
    def undecodable(self) -> int:
        """Messages on the channel that were no broadcasts."""
        return self._undecodable

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(READ_S + 2.0)
        self._connected = False

    def _run(self) -> None:
        backoff = Backoff()
        while not self._closing.is_set():
            try:
                with translated("listen"):
                    self._listen(backoff)
            except Unavailable as exc:
                self._note_lost(str(exc))
            except Exception:
                log.exception("broadcasts: listening failed; goes on", extra={"event": "broadcasts_error"})
                self._connected = False
            self._closing.wait(backoff.next_s())

    def _listen(self, backoff: Backoff) -> None:
        """Take messages until the connection ends or falls silent.

        Raises:
            redis.RedisError or OSError: it ended.
        """
        with self._client.pubsub() as channel:
            channel.subscribe(CHANNEL)
            heard_s = asked_s = time.monotonic()
            while not self._closing.is_set():
                message = channel.get_message(timeout=READ_S)
                now_s = time.monotonic()
                if message is not None:
                    heard_s = now_s
                    backoff.reset()
                    self._take(message)
                elif now_s - heard_s > SILENT_S:
                    raise redis.TimeoutError(f"nothing heard for {SILENT_S:.0f} s")
                if now_s - asked_s > PING_S:
                    channel.ping()
                    asked_s = now_s

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            # Also after the library connected anew by itself.
            self._note_connected()
        elif message["type"] == "message":
            try:
                self._put(decode_broadcast(message["data"]))
            except DecodeError as exc:
                self._undecodable += 1
                if self._undecodable == 1:
                    log.warning("broadcasts: not ours: %s", exc, extra={"event": "broadcast_unread"})

    def _put(self, broadcast: Broadcast) -> None:
        with self._changed:
            if len(self._waiting) >= WAITING_MAX:
                self._waiting.clear()
                self._missed = True
            else:
                self._waiting.append(broadcast)
            self._changed.notify()

    def _note_connected(self) -> None:
        log.info("broadcasts: listening", extra={"event": "broadcasts_up"})
        with self._changed:
            self._connected = self._missed = True
            self._changed.notify()

    def _note_lost(self, why: str) -> None:
        if self._connected:
            log.warning("broadcasts: %s", why, extra={"event": "broadcasts_down"})
        self._connected = False
