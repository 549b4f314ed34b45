"""Who else hears of silent nodes while evictions are held: Redis, where they renew keys, and RabbitMQ's consumers.

A node counts as gone when every witness that there is has been asked and none hears of it.  One that cannot be asked
says nothing, and nobody is gone by its silence.

Redis is asked by the loop, within the time-outs of its client.  RabbitMQ is asked in a thread of its own, for a broker
may take long to say nothing; the loop reads what was found a moment ago.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import Owner
from nodeagent.infra.bus.topology import clips_queue, detections_queue
from nodeagent.infra.clock import Clock
from registry.membership import NodeView

log = logging.getLogger(__name__)

#: Seconds between two questions.
ASK_S = 1.0
#: How many of a node's keys are looked at: it renews all of them together.
KEYS_MOST = 20
#: Age at which what RabbitMQ said of a node counts no more, seconds.
FRESH_S = 5.0
#: Seconds that the end waits for a question that is being answered.
END_S = 2.0


class Keys(Protocol):
    """The keys of cameras in Redis, which their owners renew (`infra.ownership.leases`)."""

    def holders(self, cameras: list[CameraId]) -> dict[CameraId, Owner]:
        """Who holds the keys of these cameras; Unavailable when Redis is away."""
        ...


class Consumers(Protocol):
    """The broker (`infra.bus.rabbitmq_consumers`)."""

    def count(self, queue: str) -> int:
        """How many consumers a queue has; Unavailable when the broker is away."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class Broker:
    """What RabbitMQ says of nodes, asked in a thread of its own."""

    def __init__(self, consumers: Consumers, clock: Clock) -> None:
        self._consumers, self._clock = consumers, clock
        self._changed = threading.Condition()
        self._wanted: frozenset[NodeId] = frozenset()
        #: Of each node whether any consumes, and when that was asked, monotonic seconds.
        self._found: dict[NodeId, tuple[bool, float]] = {}
        self._trouble = ""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self._thread.start()

    def ask(self, nodes: Collection[NodeId]) -> None:
        """Ask for these nodes, soon."""
        with self._changed:
            self._wanted = frozenset(nodes)
            self._changed.notify()

    def hears(self) -> Mapping[NodeId, bool]:
        """Of nodes, whether any consumes; those that nothing fresh is known of are missing."""
        with self._changed:
            from_s = self._clock.monotonic_s() - FRESH_S
            return {node_id: consumes for node_id, (consumes, asked_s) in self._found.items() if asked_s > from_s}

    def close(self) -> None:
        """Ask no more."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._consumers.close()
        self._thread.join(END_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._closing)
                if self._closing:
                    return
                wanted, self._wanted = self._wanted, frozenset()
            try:
                self._look(wanted)
            except Exception:
                # The outermost line of the thread: one question that fails must not end all that follow.
                log.exception("asking RabbitMQ failed", extra={"event": "witness_failed"})

    def _look(self, wanted: Collection[NodeId]) -> None:
        with self._changed:
            self._found = {node_id: self._found[node_id] for node_id in wanted if node_id in self._found}
        trouble = ""
        try:
            for node_id in sorted(wanted):
                # Stamped before it is asked: what is found is at most as old.  Each is told at once, for the last of
                # very many nodes is asked when what was found of the first is old.
                asked_s = self._clock.monotonic_s()
                found = self._consumes(node_id), asked_s
                with self._changed:
                    self._found[node_id] = found
        except Unavailable as exc:
            trouble = str(exc)
            with self._changed:
                self._found = {}
        if trouble and not self._trouble:
            log.warning("%s; no silent node counts as gone", trouble, extra={"event": "witness_down"})
        self._trouble = trouble

    def _consumes(self, node_id: NodeId) -> bool:
        # A node takes clips where it has models, and always judges.
        queues = clips_queue(node_id), detections_queue(node_id, 0)
        return any(self._consumers.count(queue) for queue in queues)


@dataclass(slots=True)
class Witnesses:
    """Those that there are; for one thread.

    Attributes:
        keys: none: no camera has a key in Redis.
        broker: none: no RabbitMQ is named.
        gone: of silent nodes, whether nobody hears of them, as it was found last.
    """

    keys: Keys | None
    broker: Broker | None
    gone: Mapping[NodeId, bool] = field(default_factory=dict)
    _at_s: float = float("-inf")

    def forget(self) -> None:
        """Evictions are not held: nobody is asked for."""
        self.gone = {}

    def look(self, silent: Callable[[], list[NodeView]], now_s: float) -> None:
        """Ask, if it is time; `silent` gives the silent nodes that own cameras.

        Raises:
            Unavailable: Redis is away.
        """
        if now_s < self._at_s or (self.keys is None and self.broker is None):
            return
        self._at_s = now_s + ASK_S
        nodes = silent()
        renewing = self._renewing(self.keys, nodes) if self.keys is not None else frozenset()
        consuming: Mapping[NodeId, bool] | None = None
        if self.broker is not None:
            self.broker.ask([view.node_id for view in nodes])
            consuming = self.broker.hears()
        self.gone = {
            view.node_id: view.node_id not in renewing and (consuming is None or consuming.get(view.node_id) is False)
            for view in nodes
        }

    def _renewing(self, keys: Keys, nodes: list[NodeView]) -> frozenset[NodeId]:
        held = keys.holders([camera_id for view in nodes for camera_id in view.cameras[:KEYS_MOST]])
        return frozenset(owner.node_id for owner in held.values())
