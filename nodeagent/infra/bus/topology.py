"""Exchanges and queues, as data.  Pure.  Both adapters and `docs/bus.md` are made from it.

| exchange     | key       | goes to                                                                       |
|--------------|-----------|-------------------------------------------------------------------------------|
| `clips`      | camera id | `clips.<node>` of the camera's node; unroutable or older than 8 s: `clips.spill` |
| `detections` | camera id | `detections.<node>.<shard>` of the node's judges; older than 30 s: `detections.late` |
| `alarms`     | camera id | `alarms`, one queue for all nodes; retries wait in `alarms.retry.<delay>`     |
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

CLIPS = "clips"
CLIPS_SPILL = "clips.spill"
DETECTIONS = "detections"
DETECTIONS_LATE = "detections.late"
ALARMS = "alarms"
#: Everything that may be published to.
EXCHANGES = (CLIPS, CLIPS_SPILL, DETECTIONS, DETECTIONS_LATE, ALARMS)
#: Ending of the queue that keeps what a consumer of `<queue>` put aside.
DEAD_SUFFIX = ".dead"

#: A clip task that waits longer is served by any node with spare inference, seconds.
CLIPS_TTL_S = 8.0
#: Detections that wait longer are looked at by any judge, which sends them to the camera's present owner, seconds.
DETECTIONS_TTL_S = 30.0
#: Messages that one queue may hold before publishing to it is refused: over an hour of a hundred cameras' clips.  On
#: Redis they lie in memory, so it holds fewer.
MAX_WAITING = 100_000
MAX_WAITING_IN_MEMORY = 20_000
#: Delays of `Bus.later`, seconds.  A longer wish takes the longest.
RETRY_DELAYS_S = (1, 5, 30, 300)
#: Judges that a node has at most, as `[judge] shards` is limited: whose queues an earlier count may have left bound.
SHARDS_MAX = 64


def clips_queue(node_id: str) -> str:
    """Queue of a node's own clip tasks."""
    return f"{CLIPS}.{node_id}"


def shard_of(camera_id: str, shards: int) -> int:
    """Which of a node's judges has this camera: the same in every process and release."""
    return zlib.crc32(camera_id.encode()) % shards


def detections_queue(node_id: str, shard: int) -> str:
    """Queue of one judge of a node."""
    return f"{DETECTIONS}.{node_id}.{shard}"


def kind_of(queue: str) -> str:
    """Which kind of message a queue holds: `clips`, `detections` or `alarms`."""
    return queue.split(".", 1)[0]


def dead_queue(queue: str) -> str:
    """Where a consumer of `queue` puts what it cannot use: one per kind of message, for all nodes."""
    return kind_of(queue) + DEAD_SUFFIX


def retry_delay_s(wish_s: float) -> int:
    """The shortest delay of RETRY_DELAYS_S that is no shorter than the wish; the longest when none is."""
    return next((delay for delay in RETRY_DELAYS_S if delay >= wish_s), RETRY_DELAYS_S[-1])


@dataclass(frozen=True, slots=True)
class Node:
    """What of the topology belongs to one node."""

    node_id: str
    judge_shards: int = 1

    def queue_for(self, exchange: str, key: str) -> str:
        """The queue of this node that a message of `exchange` with routing key `key` lands in."""
        if exchange == CLIPS:
            return clips_queue(self.node_id)
        if exchange == DETECTIONS:
            return detections_queue(self.node_id, shard_of(key, self.judge_shards))
        return exchange

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue of this node and those that all nodes share, dead letters included."""
        own = (clips_queue(self.node_id), *(detections_queue(self.node_id, n) for n in range(self.judge_shards)))
        shared = (CLIPS_SPILL, DETECTIONS_LATE, ALARMS)
        return own + shared + tuple(dead_queue(name) for name in (CLIPS, DETECTIONS, ALARMS))
