"""Exchanges, queues and bindings of the topology as RabbitMQ knows them.

Pure.  Every queue is a quorum queue, bounded by refusing publishers, and gives what it drops (expired, delivered too
often for brokers that limit that) to another queue with at-least-once dead-lettering, so that no message ends nowhere.

A message never dead-letters towards a queue that it has expired in before: RabbitMQ takes that for a cycle and drops
or holds it.  Hence expired detections go to `detections.late`, and put-off messages come back through `<kind>.back`,
always as fresh copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from nodeagent.infra.bus.topology import (
    ALARMS,
    CLIPS,
    CLIPS_SPILL,
    CLIPS_TTL_S,
    DETECTIONS,
    DETECTIONS_LATE,
    DETECTIONS_TTL_S,
    MAX_WAITING,
    RETRY_DELAYS_S,
    SHARDS_MAX,
    Node,
    clips_queue,
    dead_queue,
    detections_queue,
    kind_of,
)

#: Exchange of what a consumer put aside; routing key: the dead-letter queue's name.
DEAD = "dead"
#: Exchange of what waits for another try; routing key: delay and queue, as `back_key` makes it.
RETRY = "retry"
#: Ending of the exchange through which put-off messages of a kind return to their queue.
BACK_SUFFIX = ".back"
KINDS = (CLIPS, DETECTIONS, ALARMS)

Arguments = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: str
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue."""

    name: str
    arguments: Arguments


@dataclass(frozen=True, slots=True)
class Binding:
    """Messages of `exchange` whose key matches `key` go to `queue`."""

    queue: str
    exchange: str
    key: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything that a node declares, in the order in which it must be made."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


def retry_queue(kind: str, delay_s: int) -> str:
    """Where messages of a kind wait for `delay_s`."""
    return f"{kind}.retry.{delay_s}"


def back_key(queue: str, delay_s: int) -> str:
    """Routing key with which a copy waits `delay_s` and then returns to `queue`."""
    return f"{delay_s}.{queue}"


def camera_bindings(node: Node, camera_id: str) -> tuple[Binding, Binding]:
    """What routes a camera's clip tasks and detections to this node."""
    return (
        Binding(clips_queue(node.node_id), CLIPS, camera_id),
        Binding(node.queue_for(DETECTIONS, camera_id), DETECTIONS, camera_id),
    )


def stale_bindings(node: Node, camera_id: str) -> tuple[Binding, ...]:
    """What an earlier number of judges may have left: this camera bound to the queue of another shard of this node."""
    own = node.queue_for(DETECTIONS, camera_id)
    others = (detections_queue(node.node_id, shard) for shard in range(SHARDS_MAX))
    return tuple(Binding(queue, DETECTIONS, camera_id) for queue in others if queue != own)


def layout(node: Node) -> Layout:
    """Everything of the topology but the cameras' bindings."""
    return Layout(tuple(_exchanges()), tuple(_queues(node)), tuple(_bindings(node)))


def _quorum(dead_letter_exchange: str, dead_letter_key: str = "", ttl_s: float = 0.0) -> Arguments:
    arguments: Arguments = {
        "x-queue-type": "quorum",
        "x-max-length": MAX_WAITING,
        # Besides bounding the queue, at-least-once dead-lettering works with no other overflow.
        "x-overflow": "reject-publish",
    }
    if dead_letter_exchange:
        arguments |= {"x-dead-letter-exchange": dead_letter_exchange, "x-dead-letter-strategy": "at-least-once"}
    if dead_letter_key:
        arguments["x-dead-letter-routing-key"] = dead_letter_key
    if ttl_s:
        arguments["x-message-ttl"] = round(ttl_s * 1000)
    return arguments


def _exchanges() -> Iterator[Exchange]:
    # Alternate exchanges and dead-letter targets first: what refers to them comes after.
    yield Exchange(CLIPS_SPILL, "fanout")
    yield Exchange(DETECTIONS_LATE, "fanout")
    yield Exchange(ALARMS, "fanout")
    yield Exchange(DEAD, "direct")
    yield Exchange(RETRY, "topic")
    yield Exchange(CLIPS, "direct", {"alternate-exchange": CLIPS_SPILL})
    yield Exchange(DETECTIONS, "direct")
    # A put-off message whose node is gone meanwhile goes where any node looks.
    for kind, other in ((CLIPS, CLIPS_SPILL), (DETECTIONS, DETECTIONS_LATE), (ALARMS, ALARMS)):
        yield Exchange(kind + BACK_SUFFIX, "topic", {"alternate-exchange": other})


def _queues(node: Node) -> Iterator[Queue]:
    for kind in KINDS:
        yield Queue(dead_queue(kind), _quorum(""))
    for name in (CLIPS_SPILL, DETECTIONS_LATE, ALARMS):
        yield Queue(name, _quorum(DEAD, dead_queue(name)))
    yield Queue(clips_queue(node.node_id), _quorum(CLIPS_SPILL, ttl_s=CLIPS_TTL_S))
    for shard in range(node.judge_shards):
        yield Queue(detections_queue(node.node_id, shard), _quorum(DETECTIONS_LATE, ttl_s=DETECTIONS_TTL_S))
    for kind in KINDS:
        for delay_s in RETRY_DELAYS_S:
            yield Queue(retry_queue(kind, delay_s), _quorum(kind + BACK_SUFFIX, ttl_s=delay_s))


def _bindings(node: Node) -> Iterator[Binding]:
    for name in (CLIPS_SPILL, DETECTIONS_LATE, ALARMS):
        yield Binding(name, name, "")
    for kind in KINDS:
        yield Binding(dead_queue(kind), DEAD, dead_queue(kind))
        for delay_s in RETRY_DELAYS_S:
            yield Binding(retry_queue(kind, delay_s), RETRY, back_key(f"{kind}.#", delay_s))
    # `alarms.#` matches `alarms` too, so one pattern serves queues with and without a node in their name.
    for queue in node.queues:
        yield Binding(queue, kind_of(queue) + BACK_SUFFIX, f"*.{queue}")
