"""The brokers that the contract tests run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import pytest

from nodeagent.contract.codec import Message
from nodeagent.infra.bus.topology import ALARMS
from tests.support.alarms import MemoryBus
from tests.support.buses import Backend
from tests.support.services import RedisServer, Server

ADAPTERS = ("streams", "rabbitmq")


def _backend(request: pytest.FixtureRequest, name: str) -> Backend:
    if name == "streams":
        server = cast(Server, request.getfixturevalue("redis_server"))
        return Backend(name, server, cast(RedisServer, server).url)
    server = cast(Server, request.getfixturevalue("rabbitmq"))
    return Backend(name, server, cast(str, request.getfixturevalue("rabbitmq_url")))


@pytest.fixture(params=ADAPTERS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A real broker; a test may kill it."""
    made = _backend(request, request.param)
    yield made
    made.server.start()
    made.close()


@pytest.fixture(params=["memory", *ADAPTERS])
def desk(request: pytest.FixtureRequest) -> Iterator[tuple[MemoryBus, Callable[[Message], None]]]:
    """What the alarm worker's tests take for a bus, or a real one, and what publishes an alarm on it."""
    if request.param == "memory":
        fake = MemoryBus()
        yield fake, fake.put
        return
    made = _backend(request, request.param)
    bus = made.bus()
    bus.consume(ALARMS, 10)
    yield cast(MemoryBus, bus), lambda message: bus.publish(ALARMS, "gate-1", message)
    made.close()
