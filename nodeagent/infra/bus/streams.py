"""The bus on Redis Streams: the embedded default, for one node.

Every queue of `topology` is a stream.  There is no spill and nothing expires: with one node there is nobody else to
serve a message.  Binding is harmless and does nothing, because every camera is this node's.

How a message survives its consumer: a taken entry stays in the group's list of pending ones.  A thread of this process
tells Redis twice a second that what is in hand is still worked on; after kill -9 (or SIGSTOP) nobody does, and
TAKEOVER_S later any other consumer takes it over.  So a slow worker keeps its message for as long as it lives.

Durability is that of Redis: with `appendfsync everysec` a power cut costs up to a second of confirmed messages.
kill -9 of Redis costs none while its disk keeps up; while a sync is slow, it holds writes back for up to two seconds.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass

from nodeagent.contract.codec import Message
from nodeagent.contract.errors import Refused, Unavailable
from nodeagent.infra.bus import streams_entry
from nodeagent.infra.bus.backoff import Backoff
from nodeagent.infra.bus.inhand import InHand, Tell, tell_nobody
from nodeagent.infra.bus.port import Delivery
from nodeagent.infra.bus.streams_store import StreamsStore
from nodeagent.infra.bus.topology import EXCHANGES, MAX_WAITING_IN_MEMORY, Node, dead_queue

log = logging.getLogger(__name__)

#: Seconds after which an entry that its consumer has not refreshed is taken over: four missed refreshes and a half.
TAKEOVER_S = 2.5
#: Seconds between refreshes of what is in hand.
REFRESH_S = 0.5
#: Seconds between looks for entries of dead consumers.
CLAIM_EVERY_S = 0.5
#: Seconds between looks for copies whose time has come: how much later than asked `later` may be.
DUE_EVERY_S = 0.1
#: Copies moved back in one step; Redis serves nobody else meanwhile.
DUE_AT_ONCE = 100
#: Longest blocking read, seconds; closing waits for it.
BLOCK_S = 0.5
#: Consumers that hold nothing are forgotten after so many seconds; looked for as seldom.
FORGET_CONSUMER_S = 600.0


@dataclass(slots=True)
class _Source:
    """Where a reader is: whether its group is known to exist, how far it looked for dead consumers' entries, and when
    it looks again (monotonic seconds).
    """

    name: str
    made: bool = False
    cursor: bytes = b"0-0"
    claim_at_s: float = 0.0
    sweep_at_s: float = 0.0


class StreamsBus:
    """`Bus` on Redis Streams.  Make it in the process that uses it, after any fork: it has threads."""

    def __init__(self, url: str, node: Node, tell: Tell = tell_nobody) -> None:
        self._node = node
        consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._store = StreamsStore(url, consumer)
        self._hand = InHand(tell)
        self._closing = threading.Event()
        self._connected = False
        #: Monotonic time before which nothing is taken over: the living must be able to refresh first.
        self._claims_from_s = 0.0
        self._readers: dict[str, threading.Thread] = {}
        self._keeper = threading.Thread(target=self._keep, name="bus-keeper", daemon=True)
        self._keeper.start()

    # --- topology

    def declare(self) -> None:
        """Make the node's streams, and look whether this Redis can keep them."""
        self._open()
        if not self._store.check():
            log.warning(
                "redis keeps no append-only file: messages are lost when it restarts (set appendonly yes)",
                extra={"event": "bus_not_durable"},
            )
        for queue in self._node.queues:
            self._store.make(queue)

    def bind_camera(self, camera_id: str) -> None:
        """Nothing to do on one node; still says when the broker is away."""
        self._open()
        self._store.ping()

    def unbind_camera(self, camera_id: str) -> None:
        """Nothing to do on one node; still says when the broker is away."""
        self._open()
        self._store.ping()

    def unbind_clips(self, camera_id: str) -> None:
        """Nothing to do on one node."""

    # --- messages

    def publish(self, exchange: str, key: str, message: Message) -> None:
        """Append to the stream that the exchange leads to; the answer of Redis is the confirmation."""
        self._open()
        if exchange not in EXCHANGES:
            raise Refused(f"redis: no exchange {exchange!r}")
        queue = self._node.queue_for(exchange, key)
        if not self._store.publish(queue, streams_entry.fields(key, message, 1), MAX_WAITING_IN_MEMORY):
            raise Refused(f"redis: queue {queue} holds {MAX_WAITING_IN_MEMORY} messages")

    def consume(self, queue: str, prefetch: int) -> None:
        """Start a thread that reads this queue while there is room for more."""
        reader = threading.Thread(target=self._read, args=(queue, prefetch), name=f"bus-{queue}"[:15], daemon=True)
        self._readers[queue] = reader
        reader.start()

    def get(self, timeout_s: float) -> Delivery | None:
        """The next delivery of any consumed queue."""
        return self._hand.next(timeout_s)

    def ack(self, delivery: Delivery) -> None:
        """Delete it; while Redis is away it comes again later, to whoever is there then."""
        if not self._hand.holds(delivery):
            return
        try:
            self._store.ack(delivery)
        except Unavailable as exc:
            log.debug("ack: %s", exc)
        # Out of hand only now: no longer refreshed, an ack that Redis did not get ends in a redelivery.
        self._hand.remove(delivery)

    def nack(self, delivery: Delivery) -> None:
        """Put it at the end of its queue; while Redis is away it comes again after TAKEOVER_S."""
        if not self._hand.holds(delivery):
            return
        try:
            self._store.nack(delivery)
        except Unavailable as exc:
            log.debug("nack: %s", exc)
        self._hand.remove(delivery)

    def later(self, delivery: Delivery, delay_s: float) -> None:
        """Move it aside, in one step, until its time has come; any process of the bus moves it back."""
        if self._hand.holds(delivery):
            self._store.later(delivery, delay_s, secrets.token_hex(16))
            self._hand.remove(delivery)

    def dead(self, delivery: Delivery, reason: str) -> None:
        """Move it, in one step, to the dead-letter stream."""
        if self._hand.holds(delivery):
            target = dead_queue(delivery.queue)
            if not self._store.dead(delivery, target, reason, MAX_WAITING_IN_MEMORY):
                raise Unavailable(f"redis: queue {target} holds {MAX_WAITING_IN_MEMORY} messages")
            self._hand.remove(delivery)

    def depth(self, queue: str) -> int:
        """Entries that nobody has taken."""
        self._open()
        return self._store.depth(queue)

    def taken(self, queue: str) -> int:
        """Entries that a consumer has: a killed one's until they are taken over."""
        self._open()
        return self._store.taken(queue)

    @property
    def connected(self) -> bool:
        """Whether Redis answered the last time it was asked, at most half a second ago."""
        return self._connected

    def close(self) -> None:
        """Put what is in hand back and stop the threads."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._hand.wake()
        for thread in (*self._readers.values(), self._keeper):
            thread.join(BLOCK_S + 2.0)
        try:
            for delivery in self._hand.everything():
                self._store.nack(delivery)
        except Unavailable as exc:
            log.debug("close: %s; others take over what was in hand", exc)
        self._hand.lose_all()
        self._connected = False
        self._store.close()

    def _open(self) -> None:
        if self._closing.is_set():
            raise Unavailable("redis: this bus is closed")

    # --- threads

    def _keep(self) -> None:
        """Refresh what is in hand, move what is due, and notice when Redis goes and comes.

        Copies are moved by those who take messages: whoever only sends looks after nothing, and rests.
        """
        refresh_at_s = 0.0
        backoff = Backoff()
        while not self._closing.wait(DUE_EVERY_S if self._readers or not self._connected else REFRESH_S):
            try:
                if time.monotonic() >= refresh_at_s:
                    self._refresh()
                    refresh_at_s = time.monotonic() + REFRESH_S
                if self._readers:
                    self._store.move_due(DUE_AT_ONCE)
                self._note(connected=True)
                backoff.reset()
            except Unavailable as exc:
                self._note(connected=False, why=str(exc))
                refresh_at_s = 0.0
                self._closing.wait(backoff.next_s())
            except Exception:
                log.exception("bus keeper failed; goes on", extra={"event": "bus_error"})
                self._closing.wait(backoff.next_s())

    def _refresh(self) -> None:
        for queue in list(self._readers):
            held = self._hand.tags(queue)
            if held:
                lost = set(held) - self._store.refresh(queue, held)
                self._hand.lose(queue, lost)
        self._store.ping()

    def _note(self, *, connected: bool, why: str = "") -> None:
        if connected and not self._connected:
            log.info("bus: redis answers", extra={"event": "bus_up"})
        if not connected and (self._connected or not self._claims_from_s):
            log.warning("bus: %s", why, extra={"event": "bus_down"})
        if not connected:
            # After an outage every entry looks idle; whoever lives has until then to refresh its own.
            self._claims_from_s = time.monotonic() + TAKEOVER_S
        elif not self._connected and self._claims_from_s:
            self._claims_from_s = time.monotonic() + TAKEOVER_S
        self._connected = connected

    def _read(self, queue: str, prefetch: int) -> None:
        """Fill the hand with entries of `queue` for as long as this bus is open."""
        backoff = Backoff()
        source = _Source(queue)
        while not self._closing.is_set():
            room = self._hand.room(queue, prefetch, BLOCK_S)
            if not room:
                continue
            try:
                self._fill(source, room)
                backoff.reset()
            except Unavailable as exc:
                log.debug("read %s: %s", queue, exc)
                source.made = False  # a Redis that lost its data needs its groups again
                self._closing.wait(backoff.next_s())
            except Exception:
                log.exception("bus reader of %s failed; goes on", queue, extra={"event": "bus_error"})
                self._closing.wait(backoff.next_s())

    def _fill(self, source: _Source, room: int) -> None:
        """Take entries of dead consumers if it is time to look for them, else new ones."""
        if not source.made:
            self._store.make(source.name)
            source.made = True
        if self._may_claim(source.claim_at_s):
            source.cursor, taken = self._store.claim(source.name, int(TAKEOVER_S * 1000), source.cursor, room)
            source.claim_at_s = time.monotonic() + CLAIM_EVERY_S
            if time.monotonic() >= source.sweep_at_s:
                self._store.sweep(source.name, int(FORGET_CONSUMER_S * 1000))
                source.sweep_at_s = time.monotonic() + FORGET_CONSUMER_S
        else:
            taken = self._store.read(source.name, room, int(BLOCK_S * 1000))
        for delivery in taken:
            self._hand.put(delivery)

    def _may_claim(self, claim_at_s: float) -> bool:
        now_s = time.monotonic()
        return self._connected and now_s >= claim_at_s and now_s >= self._claims_from_s
