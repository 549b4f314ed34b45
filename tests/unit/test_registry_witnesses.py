"""Which silent nodes nobody else hears of, and how a broker is asked that takes its time."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ownership import Owner
from registry.core.witnesses import ASK_S, FRESH_S, Broker, Witnesses
from registry.membership import NodeView
from tests.support.eventually import eventually
from tests.support.registry_world import TurnedClock
from tests.unit.test_registry_wishes import view


class Keys:
    """Redis, in which these nodes renew."""

    def __init__(self, *renewing: str) -> None:
        self.renewing = renewing

    def holders(self, cameras: list[str]) -> dict[str, Owner]:
        return {c: Owner(node_id=c, incarnation="a" * 16, epoch=1) for c in cameras if c in self.renewing}


class Told:
    """RabbitMQ, as it was asked a moment ago."""

    def __init__(self, found: Mapping[str, bool]) -> None:
        self.found = found
        self.asked: list[str] = []

    def ask(self, nodes: Collection[str]) -> None:
        self.asked += nodes

    def hears(self) -> Mapping[str, bool]:
        return self.found


def silent() -> list[NodeView]:
    """Each owns the camera of its name."""
    return [replace(view(name), cameras=(name,)) for name in ("n1", "n2", "n3")]


@pytest.mark.parametrize(
    ("keys", "told", "gone"),
    [
        (None, None, []),
        (Keys("n1"), None, ["n2", "n3"]),
        (None, {"n1": True, "n2": False}, ["n2"]),
        (Keys("n1"), {"n1": False, "n2": True, "n3": False}, ["n3"]),
        # It was not asked yet, or does not answer: that is no sign of anything.
        (Keys("n1"), {}, []),
        (Keys("n1"), {"n2": False}, ["n2"]),
    ],
)
def test_gone_is_of_whom_every_witness_was_asked_and_none_hears(
    keys: Keys | None, told: dict[str, bool] | None, gone: list[str]
) -> None:
    broker: Any = None if told is None else Told(told)
    witnesses = Witnesses(keys, broker)
    witnesses.look(silent, 10.0)
    assert [name for name, is_gone in witnesses.gone.items() if is_gone] == gone
    assert broker is None or broker.asked == ["n1", "n2", "n3"]
    witnesses.look(list, 10.0 + ASK_S / 2)
    assert [name for name, is_gone in witnesses.gone.items() if is_gone] == gone, "not asked in every turn"
    witnesses.forget()
    assert not witnesses.gone


class Queues:
    """A broker whose consumers the test knows, and that answers when the test lets it."""

    def __init__(self, **consumers: int) -> None:
        self.consumers = consumers
        self.away = False
        self.go_on = threading.Event()
        self.go_on.set()
        self.closed = False

    def count(self, queue: str) -> int:
        self.go_on.wait(10)
        if self.away:
            raise Unavailable("rabbitmq: away")
        return self.consumers.get(queue.replace(".", "_"), 0)

    def close(self) -> None:
        self.closed = True
        self.go_on.set()


def test_a_broker_is_asked_beside_the_loop_and_what_it_said_grows_old() -> None:
    queues, clock = Queues(clips_n1=1, detections_n2_0=2), TurnedClock()
    queues.go_on.clear()
    broker = Broker(queues, clock)
    broker.ask(["n1", "n2", "n3"])
    assert not broker.hears(), "nobody waits for it"
    queues.go_on.set()
    eventually(lambda: broker.hears() == {"n1": True, "n2": True, "n3": False})
    clock.now_s += FRESH_S
    assert not broker.hears()
    broker.ask(["n3"])
    assert eventually(broker.hears) == {"n3": False}
    broker.close()
    assert queues.closed


def test_of_more_nodes_than_can_be_asked_while_an_answer_is_fresh_each_is_heard_of() -> None:
    clock, queues = TurnedClock(), Queues(clips_n2=1)
    broker, told = Broker(queues, clock), {}

    def slowly(queue: str) -> int:
        told.update(broker.hears())
        clock.now_s += FRESH_S * 0.4
        return Queues.count(queues, queue)

    queues.count = slowly  # type: ignore[method-assign]
    broker.ask(["n1", "n2", "n3"])
    eventually(lambda: broker.hears() == {"n3": False})
    assert told == {"n1": False, "n2": True}
    broker.close()


def test_a_broker_that_cannot_be_asked_makes_nobody_gone(caplog: pytest.LogCaptureFixture) -> None:
    queues, clock = Queues(), TurnedClock()
    broker = Broker(queues, clock)
    broker.ask(["n1"])
    assert eventually(broker.hears) == {"n1": False}
    queues.away = True
    for _ in range(3):
        broker.ask(["n1"])
        eventually(lambda: not broker.hears())
    broker.ask(["n1"])
    assert [record.getMessage() for record in caplog.records] == ["rabbitmq: away; no silent node counts as gone"]
    queues.away = False

    def asked() -> Mapping[str, bool]:
        broker.ask(["n1"])
        return broker.hears()

    assert eventually(asked) == {"n1": False}
    broker.close()
