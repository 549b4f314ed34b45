"""The connection to RabbitMQ at the moment of its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nodeagent.contract.codec import Message
from nodeagent.contract.errors import Unavailable
from nodeagent.infra.bus.rabbitmq import RabbitBus
from nodeagent.infra.bus.rabbitmq_link import Link, parameters
from nodeagent.infra.bus.topology import ALARMS, Node
from tests.support.eventually import eventually

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]

#: What a publisher waits for a confirm at most, seconds: far longer than a test takes that does not wait for it.
CONFIRM_S = 30.0


@pytest.fixture
def bus(rabbitmq_url: str) -> Iterator[RabbitBus]:
    made = RabbitBus(rabbitmq_url, Node("n1"), 5, CONFIRM_S)
    made.declare()
    yield made
    made.close()


@pytest.mark.parametrize(
    "ask",
    [lambda bus: bus.publish(ALARMS, "cam", Message(b"x")), lambda bus: bus.depth(ALARMS)],
    ids=["publish", "question"],
)
def test_what_is_asked_while_the_connection_ends_is_answered_at_once(
    bus: RabbitBus, ask: Callable[[RabbitBus], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    link, queued = bus._link, threading.Event()
    submit = link.submit

    def noted(*arguments: Any) -> Any:
        connection = submit(*arguments)
        queued.set()
        return connection

    with ThreadPoolExecutor(1) as pool:
        asked: list[Any] = []

        def end(connection: Any) -> None:
            connection.ioloop.stop()
            monkeypatch.setattr(link, "submit", noted)
            asked.append(pool.submit(ask, bus))
            # The loop is stopped, and what is submitted from here on lies behind its end.
            queued.wait(10)

        started = time.monotonic()
        submit(end)
        assert eventually(lambda: asked)
        with pytest.raises(Unavailable):
            asked[0].result(CONFIRM_S * 2)
    assert time.monotonic() - started < CONFIRM_S / 3
    assert eventually(lambda: bus.connected)
    bus.publish(ALARMS, "cam", Message(b"goes on"))


def test_a_time_out_of_an_old_connection_leaves_the_new_one_alone(rabbitmq_url: str) -> None:
    made: list[Any] = []
    ends: list[str] = []
    link = Link(parameters(rabbitmq_url, 5, "test"), made.append, ends.append, lambda _why: None)
    link.start()
    assert eventually(lambda: len(made) == 1)
    link.reopen("asked for", made[0])
    assert eventually(lambda: len(made) == 2, 20)
    link.reopen("too late", made[0])
    done = threading.Event()
    link.submit(lambda _connection: done.set())
    assert done.wait(10)
    assert made[1].is_open
    link.close()
    assert len(made) == 2
    assert len(ends) == 2
