"""The bus while the network or the broker fails: what was confirmed arrives, what was not is said to be unknown."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest

from nodeagent.contract.codec import Message
from nodeagent.contract.errors import Refused, Unavailable
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.topology import ALARMS
from tests.support.buses import Backend, line, make_bus, take, trying
from tests.support.eventually import eventually
from tests.support.proxy import Proxy
from tests.support.services import RabbitMq, RedisServer, Server

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]


@pytest.fixture(params=["streams", "rabbitmq"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "streams":
        redis = cast(RedisServer, request.getfixturevalue("redis_server"))
        made = Backend(request.param, redis, redis.url)
    else:
        url = cast(str, request.getfixturevalue("rabbitmq_url"))
        made = Backend(request.param, cast(RabbitMq, request.getfixturevalue("rabbitmq")), url)
    yield made
    made.server.start()
    made.close()


@pytest.fixture
def proxy(backend: Backend) -> Iterator[Proxy]:
    with Proxy(backend.server.port) as made:
        yield made


def through(proxy: Proxy, backend: Backend, confirm_timeout_s: float = 3.0) -> Bus:
    """A bus whose connection goes through the proxy."""
    url = backend.url.replace(f":{backend.server.port}/", f":{proxy.port}/")
    bus = make_bus(url, confirm_timeout_s=confirm_timeout_s)
    backend.buses.append(bus)
    return bus


def bodies(bus: Bus, quiet_s: float = 1.5) -> set[bytes]:
    """Take everything until nothing has come for `quiet_s`."""
    found: set[bytes] = set()
    while (got := bus.get(quiet_s)) is not None:
        found.add(got.message.body)
        bus.ack(got)
    return found


@pytest.mark.parametrize("cut_at", [1, 20, 400, 70_000, 199_000])
def test_a_cut_in_the_middle_of_a_publish_is_said(backend: Backend, proxy: Proxy, cut_at: int) -> None:
    direct, bus = backend.bus(), through(proxy, backend)
    trying(lambda: bus.publish(ALARMS, "cam", Message(b"before")))
    proxy.cut_after(cut_at)
    confirmed = {b"before"}
    body = b"x" * 200_000
    try:
        bus.publish(ALARMS, "cam", Message(body))
        confirmed.add(body)
    except Unavailable:
        pass
    proxy.heal()
    trying(lambda: bus.publish(ALARMS, "cam", Message(b"after")))
    direct.consume(ALARMS, 10)
    found = bodies(direct)
    assert confirmed | {b"after"} <= found <= {b"before", body, b"after"}


def test_a_broker_that_hangs_is_unavailable_and_used_again_when_it_goes_on(backend: Backend, proxy: Proxy) -> None:
    bus = through(proxy, backend, confirm_timeout_s=2.0)
    trying(bus.declare)
    bus.publish(ALARMS, "cam", Message(b"before"))
    proxy.stall()
    started = time.monotonic()
    with pytest.raises(Unavailable):
        bus.publish(ALARMS, "cam", Message(b"in between"))
    assert time.monotonic() - started < 15
    proxy.heal()
    trying(lambda: bus.publish(ALARMS, "cam", Message(b"after")))
    bus.consume(ALARMS, 10)
    assert {b"before", b"after"} <= bodies(bus) <= {b"before", b"in between", b"after"}


def test_a_cut_connection_gives_its_messages_back(backend: Backend, proxy: Proxy) -> None:
    bus = through(proxy, backend)
    trying(bus.declare)
    bus.consume(ALARMS, 2)
    for number in range(3):
        bus.publish(ALARMS, "cam", Message(str(number).encode()))
    held = take(bus)
    proxy.cut()
    assert eventually(lambda: not bus.connected)
    bus.ack(held)
    proxy.heal()
    assert eventually(lambda: bus.connected, 20)
    assert bodies(bus, 4.0) | {held.message.body} == {b"0", b"1", b"2"}
    assert eventually(lambda: bus.depth(ALARMS) == 0)


def test_every_confirmed_message_arrives_through_kills_of_the_broker(backend: Backend) -> None:
    consumer = backend.bus()
    consumer.consume(ALARMS, 50)
    found: set[int] = set()
    ended = threading.Event()

    def collect() -> None:
        while not ended.is_set():
            got = consumer.get(0.2)
            if got is not None:
                found.add(int(got.message.body))
                consumer.ack(got)

    collector = threading.Thread(target=collect)
    collector.start()
    child = backend.child("publish", ALARMS, "cam")
    confirmed = 0
    for _ in range(2):
        target = confirmed + 60
        while confirmed < target:
            confirmed = int(line(child))
        backend.server.kill9()
        backend.server.start()
    target = confirmed + 60
    while confirmed < target:
        confirmed = int(line(child))
    try:
        assert eventually(lambda: set(range(confirmed + 1)) <= found, 60)
    finally:
        ended.set()
        collector.join()


def test_a_publisher_killed_in_between_loses_nothing_confirmed(backend: Backend) -> None:
    bus = backend.bus()
    child = backend.child("publish", ALARMS, "cam")
    confirmed = [line(child) for _ in range(30)][-1]
    child.kill()
    assert confirmed == "29"
    bus.consume(ALARMS, 100)
    assert {str(number).encode() for number in range(30)} <= bodies(bus)


def test_a_frozen_worker_loses_its_message_to_another_and_cannot_settle_it(redis_server: RedisServer) -> None:
    """Streams only: the lease of a message is the worker's own heartbeat, so a stopped process loses it."""

    backend = Backend("streams", cast(Server, redis_server), redis_server.url)
    bus = backend.bus()
    bus.publish(ALARMS, "cam", Message(b"one"))
    child = backend.child("hold", ALARMS, "1")
    assert line(child) == "1"
    os.kill(child.pid, signal.SIGSTOP)
    bus.consume(ALARMS, 1)
    got = take(bus)
    assert got.attempt == 2
    os.kill(child.pid, signal.SIGCONT)
    assert bus.get(4.0) is None, "the thawed worker took it back"
    bus.ack(got)
    assert bus.depth(ALARMS) == 0
    backend.close()


def test_a_full_stream_refuses(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.infra.bus.streams.MAX_WAITING_IN_MEMORY", 3)
    backend = Backend("streams", redis_server, redis_server.url)
    bus = backend.bus()
    for _ in range(3):
        bus.publish(ALARMS, "cam", Message(b"x"))
    with pytest.raises(Refused, match="holds 3"):
        bus.publish(ALARMS, "cam", Message(b"x"))
    bus.consume(ALARMS, 1)
    bus.ack(take(bus))
    trying(lambda: bus.publish(ALARMS, "cam", Message(b"x")))
    backend.close()


def test_a_redis_that_lost_everything_is_used_again(redis_server: RedisServer) -> None:
    backend = Backend("streams", redis_server, redis_server.url)
    bus = backend.bus()
    bus.consume(ALARMS, 1)
    bus.publish(ALARMS, "cam", Message(b"before"))
    stale = take(bus)
    redis_server.flush()
    bus.ack(stale)
    bus.publish(ALARMS, "cam", Message(b"after"))
    assert take(bus).message.body == b"after"
    backend.close()
