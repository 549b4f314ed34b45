"""Making the topology on a broker, and refusing one that cannot keep the promises of the port."""

from __future__ import annotations

from typing import Any

from nodeagent.contract.errors import ConfigError, Fault, Unavailable
from nodeagent.infra.bus.rabbitmq_admin import Admin, Rejected
from nodeagent.infra.bus.rabbitmq_layout import Binding, Exchange, Layout, Queue

#: First RabbitMQ with message TTL and at-least-once dead-lettering for quorum queues.
OLDEST = (3, 10)
#: First RabbitMQ that cannot run without the feature flag `stream_queue`.
FLAG_REQUIRED = (3, 12)
#: Queue by which the flag is tried; it exists for a moment only.
PROBE = "nodeagent.probe"
_NOT_FOUND = 404
#: Answers that say "not with this broker, vhost or user", in contrast to "not now".
_FINAL = (403, 406, 530, 540)


def declare(admin: Admin, server: dict[str, Any], layout: Layout) -> None:
    """Check the broker, then make everything; harmless when it exists.

    Raises:
        Unavailable: the broker is away.
        ConfigError: too old, a feature flag is off, or something exists with other arguments.
    """
    version = check_version(server)
    if version < FLAG_REQUIRED and not _exists(admin, layout.queues[-1].name):
        _probe_flag(admin)
    for exchange in layout.exchanges:
        _make(admin, exchange)
    for queue in layout.queues:
        _make(admin, queue)
    for binding in layout.bindings:
        _make(admin, binding)


def check_version(server: dict[str, Any]) -> tuple[int, int]:
    """The broker's version, as it told it when it was connected.

    Raises:
        ConfigError: too old, or no RabbitMQ.
    """
    said = f"{server.get('product', '?')} {server.get('version', '?')}"
    digits = str(server.get("version", "")).split(".")[:2]
    if len(digits) < 2 or not all(part.isdigit() for part in digits) or "RabbitMQ" not in said:
        raise ConfigError([Fault("bus.url", "expected RabbitMQ 3.10 or newer", said)])
    version = (int(digits[0]), int(digits[1]))
    if version < OLDEST:
        raise ConfigError([Fault("bus.url", "RabbitMQ 3.10 or newer is needed: older quorum queues know no TTL", said)])
    return version


def _exists(admin: Admin, queue: str) -> bool:
    try:
        admin.ask(lambda channel, done: channel.queue_declare(queue, passive=True, callback=done))
    except Rejected as exc:
        if exc.code == _NOT_FOUND:
            return False
        raise Unavailable(f"rabbitmq: {exc.text}") from exc
    return True


def _probe_flag(admin: Admin) -> None:
    """Without `stream_queue`, 3.10 silently dead-letters at most once; only making a stream shows whether it is on."""
    stream = {"x-queue-type": "stream"}
    try:
        admin.ask(lambda channel, done: channel.queue_declare(PROBE, durable=True, arguments=stream, callback=done))
        admin.ask(lambda channel, done: channel.queue_delete(PROBE, callback=done))
    except Rejected as exc:
        # It ends the connection with 541, internal error; only the text tells it from a broker in trouble.
        if "feature flag" not in exc.text and exc.code not in _FINAL:
            raise Unavailable(f"rabbitmq: {exc.text}") from exc
        what = "at-least-once dead-lettering needs the feature flag stream_queue: rabbitmqctl enable_feature_flag all"
        raise ConfigError([Fault("bus.url", what, exc.text)]) from exc


def _make(admin: Admin, item: Exchange | Queue | Binding) -> None:
    def step(channel: Any, done: Any) -> None:
        if isinstance(item, Exchange):
            channel.exchange_declare(item.name, item.type, durable=True, arguments=dict(item.arguments), callback=done)
        elif isinstance(item, Queue):
            channel.queue_declare(item.name, durable=True, arguments=dict(item.arguments), callback=done)
        else:
            channel.queue_bind(item.queue, item.exchange, item.key, callback=done)

    try:
        admin.ask(step)
    except Rejected as exc:
        if exc.code not in _FINAL:
            raise Unavailable(f"rabbitmq: {exc.text}") from exc
        # 406 names the queue, the argument, and both values: "inequivalent arg 'x-message-ttl' for queue ...".
        raise ConfigError([Fault("bus.url", f"the broker refuses {item}", exc.text)]) from exc
