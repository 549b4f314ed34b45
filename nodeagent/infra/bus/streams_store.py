"""The Redis side of the Streams adapter: one method per atomic step, no threads, no state but names.

Raises Unavailable from every method while Redis is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from nodeagent.contract.errors import ConfigError, Fault
from nodeagent.infra.bus import streams_entry, streams_scripts
from nodeagent.infra.bus.port import Delivery
from nodeagent.infra.bus.streams_scripts import GROUP
from nodeagent.infra.redis import connect_redis, translated

#: Before the names of queues in Redis, so that the bus can share a database with other state.
STREAM_PREFIX = "bus:"
#: Set of copies that wait for their time, scored by it, and the prefix of the copies themselves.
WAITING = "bus.waiting"
COPY_PREFIX = "bus.copy:"
#: First Redis with XAUTOCLAIM.
OLDEST_REDIS = (6, 2)


class StreamsStore:
    """One consumer's view of the streams in a Redis.  Any thread may call; `consumer` is unique in the group."""

    def __init__(self, url: str, consumer: str) -> None:
        self._client: Any = connect_redis(url)
        self._consumer = consumer
        self._scripts = {
            name: self._client.register_script(getattr(streams_scripts, name))
            for name in ("PUBLISH", "ACK", "NACK", "LATER", "DEAD", "DUE", "REFRESH", "CLAIM", "SWEEP")
        }

    def _run(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        with translated(script.lower()):
            return self._scripts[script](keys=keys, args=arguments)

    def _mine(self, script: str, delivery: Delivery, keys: Sequence[str], *arguments: Any) -> Any:
        return self._run(
            script, [STREAM_PREFIX + delivery.queue, *keys], GROUP, self._consumer, delivery.tag, *arguments
        )

    def ping(self) -> None:
        """Ask whether it answers."""
        with translated("ping"):
            self._client.ping()

    def check(self) -> bool:
        """Whether what it is given survives its restart (an append-only file).

        Raises:
            ConfigError: it is too old, or set to throw away keys when memory is short.
        """
        with translated("info"):
            info = self._client.info()
        version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
        if version < OLDEST_REDIS:
            raise ConfigError(
                [Fault("redis.url", "Redis 6.2 or newer is needed for XAUTOCLAIM", ".".join(map(str, version)))]
            )
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if policy.startswith("allkeys"):
            raise ConfigError(
                [Fault("redis.url", "this maxmemory-policy throws messages away; use noeviction", policy)]
            )
        return bool(info.get("aof_enabled"))

    def make(self, queue: str) -> None:
        """Make the queue; harmless when it exists."""
        with translated(f"make {queue}"):
            try:
                # From "0": what was published before the first consumer came is for it too.
                self._client.xgroup_create(STREAM_PREFIX + queue, GROUP, id="0", mkstream=True)
            except redis.ResponseError as exc:
                if not str(exc).startswith("BUSYGROUP"):
                    raise

    def publish(self, queue: str, values: Sequence[object], limit: int) -> bool:
        """Append an entry; False when `limit` are there already."""
        return bool(self._run("PUBLISH", [STREAM_PREFIX + queue], limit, *values) != streams_scripts.FULL)

    def read(self, queue: str, count: int, block_ms: int) -> list[Delivery]:
        """Take up to `count` new entries; waits up to `block_ms` for one."""
        with translated(f"read {queue}"):
            answer = self._client.xreadgroup(
                GROUP, self._consumer, {STREAM_PREFIX + queue: ">"}, count=count, block=block_ms
            )
        entries = answer[0][1] if answer else []
        # `values` is None for an entry that was deleted between being listed and being read.
        return [
            streams_entry.delivery(queue, entry_id, [part for pair in values.items() for part in pair], 1)
            for entry_id, values in entries
            if values
        ]

    def claim(self, queue: str, idle_ms: int, cursor: bytes, count: int) -> tuple[bytes, list[Delivery]]:
        """Take over up to `count` entries that nobody refreshed for `idle_ms`; the next call goes on at the cursor."""
        next_cursor, taken = self._run("CLAIM", [STREAM_PREFIX + queue], GROUP, self._consumer, idle_ms, cursor, count)
        found = [streams_entry.delivery(queue, entry_id, values, times) for entry_id, values, times in taken]
        return next_cursor, found

    def refresh(self, queue: str, held: Sequence[object]) -> set[object]:
        """Say that these are being worked on; returns those that are still ours."""
        return set(self._run("REFRESH", [STREAM_PREFIX + queue], GROUP, self._consumer, *held))

    def ack(self, delivery: Delivery) -> None:
        """Delete it."""
        self._mine("ACK", delivery, [])

    def nack(self, delivery: Delivery) -> None:
        """Put it back at the end of its queue."""
        self._mine("NACK", delivery, [], *streams_entry.again(delivery))

    def later(self, delivery: Delivery, delay_s: float, copy: str) -> None:
        """Put it aside until `delay_s` from now, under the unique name `copy`."""
        keys = [WAITING, COPY_PREFIX + copy]
        self._mine("LATER", delivery, keys, round(delay_s * 1000), *streams_entry.again(delivery))

    def dead(self, delivery: Delivery, queue: str, reason: str, limit: int) -> bool:
        """Move it to the dead-letter queue; False when that holds `limit` already."""
        values = streams_entry.fields(delivery.key, delivery.message, delivery.attempt, reason)
        return bool(self._mine("DEAD", delivery, [STREAM_PREFIX + queue], limit, *values) != streams_scripts.FULL)

    def move_due(self, count: int) -> int:
        """Return up to `count` copies whose time has come to their queues; returns how many."""
        return int(self._run("DUE", [WAITING], count))

    def sweep(self, queue: str, idle_ms: int) -> None:
        """Forget consumers that hold nothing and were silent for `idle_ms`."""
        self._run("SWEEP", [STREAM_PREFIX + queue], GROUP, idle_ms)

    def depth(self, queue: str) -> int:
        """Entries that nobody has taken; 0 when there is no such queue."""
        length, taken = self._counts(queue)
        return max(0, length - taken)

    def taken(self, queue: str) -> int:
        """Entries that a consumer has, be it dead; 0 when there is no such queue."""
        return self._counts(queue)[1]

    def _counts(self, queue: str) -> tuple[int, int]:
        """All entries, and those among them that were taken."""
        with translated(f"depth {queue}"):
            length = int(self._client.xlen(STREAM_PREFIX + queue))
            taken = self._client.xpending(STREAM_PREFIX + queue, GROUP)["pending"] if length else 0
        return length, int(taken)

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()
