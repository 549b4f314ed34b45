"""What the alarm worker's tests take for a bus keeps the promises that the worker uses, as both real adapters do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from nodeagent.contract.codec import Message
from nodeagent.infra.bus.port import Delivery
from nodeagent.infra.bus.topology import ALARMS
from tests.support.alarms import MemoryBus
from tests.support.eventually import eventually

pytestmark = pytest.mark.services

#: Bus, and what publishes an alarm on it.
DeskBus: TypeAlias = tuple[MemoryBus, Callable[[Message], None]]


def take(bus: MemoryBus) -> Delivery:
    return eventually(lambda: bus.get(0.2))


def test_taken_it_comes_to_nobody_else_and_acknowledged_it_is_gone(desk: DeskBus) -> None:
    bus, publish = desk
    publish(Message(b"one", {"type": "alarm"}))
    got = take(bus)
    assert (got.queue, got.key, got.attempt, got.message) == (
        ALARMS,
        "gate-1",
        1,
        Message(b"one", {"type": "alarm"}),
    )
    assert bus.get(0.2) is None
    bus.ack(got)
    bus.ack(got)
    assert bus.get(0.2) is None


def test_put_off_it_comes_again_with_one_attempt_more_and_the_old_delivery_is_void(desk: DeskBus) -> None:
    bus, publish = desk
    publish(Message(b"one", {}))
    first = take(bus)
    bus.later(first, 1)
    again = take(bus)
    assert (again.message.body, again.attempt) == (b"one", 2)
    # Settling what is void does nothing: the message is in hand still, once.
    bus.later(first, 1)
    bus.ack(first)
    bus.later(again, 1)
    assert take(bus).attempt == 3
    assert bus.get(0.2) is None


def test_put_aside_it_does_not_come_again(desk: DeskBus) -> None:
    bus, publish = desk
    publish(Message(b"no sense", {}))
    bus.dead(take(bus), "no alarm")
    publish(Message(b"next", {}))
    assert take(bus).message.body == b"next"
    assert bus.get(0.2) is None
