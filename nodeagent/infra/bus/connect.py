"""Which bus the configuration asks for."""

from __future__ import annotations

from nodeagent.infra.bus.inhand import Tell, tell_nobody
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.rabbitmq import RabbitBus
from nodeagent.infra.bus.streams import StreamsBus
from nodeagent.infra.bus.topology import Node
from nodeagent.infra.settings.sections import Settings


def open_bus(settings: Settings, tell: Tell = tell_nobody) -> Bus:
    """RabbitMQ when `[bus]` is given, else Redis Streams; returns at once, connecting goes on in the background.

    Call it in the process that uses the bus, after any fork.  `tell` hears how much is in hand.

    Raises:
        ConfigError: the URL cannot be used.
    """
    node = Node(settings.node.node_id, settings.judge.shards)
    if settings.bus is None:
        return StreamsBus(settings.redis_url, node, tell)
    url = settings.bus.url.get_secret_value()
    return RabbitBus(url, node, settings.bus.heartbeat_s, settings.bus.confirm_timeout_s, tell)
