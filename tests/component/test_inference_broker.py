"""The inference worker and its broker: results that wait, messages that nobody takes, a stop in the middle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.contract.codec import Message
from nodeagent.contract.errors import ConfigError, Fault, Refused, Unavailable
from nodeagent.contract.states import State
from nodeagent.inference.publisher import UNROUTABLE_MAX
from nodeagent.inference.tries import TRIES_MAX, Tries
from nodeagent.infra.worker import EXIT_FATAL
from tests.support.eventually import eventually
from tests.support.inference import Bench, in_ring, make_bench
from tests.support.models import marker_model


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = make_bench(tmp_path, [marker_model(tmp_path)])
    yield made
    made.close()


def test_results_wait_for_the_broker(bench: Bench) -> None:
    with bench.running():
        eventually(lambda: bench.bus.consumed)
        bench.bus.away = Unavailable("broker gone")
        for _ in range(12):
            bench.offer(in_ring(bench))
        eventually(lambda: bench.ctx.cell.current_state is State.BUS_DOWN)
        assert not bench.bus.acked
        bench.bus.away = None
        bench.settled(12)
        eventually(lambda: bench.ctx.cell.current_state is State.RUNNING)
    assert len(bench.bus.published) == 12


def test_a_camera_without_route_is_bound_again(bench: Bench) -> None:
    with bench.running():
        eventually(lambda: bench.bus.consumed)
        bench.bus.away = Refused("no route")
        bench.offer(in_ring(bench))
        eventually(lambda: "cam1" in bench.bus.bound)
        bench.bus.away = None
        bench.settled(1)
    assert len(bench.bus.published) == 1


def test_another_nodes_camera_without_route_holds_up_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish = bench.bus.publish

    def routed(exchange: str, key: str, message: Message) -> None:
        if key == "cam2":
            raise Refused("no route")
        publish(exchange, key, message)

    monkeypatch.setattr(bench.bus, "publish", routed)
    foreign = in_ring(bench, "cam2").model_copy(update={"node_id": "n2"})
    with bench.running():
        eventually(lambda: bench.bus.consumed)
        for attempt in (1, 2, UNROUTABLE_MAX + 1):
            bench.offer(foreign, attempt)
            eventually(lambda n=attempt: len(bench.bus.given_back) + len(bench.bus.put_aside) == min(n, 3))
        bench.offer(in_ring(bench))
        bench.settled(2)
    assert [one.header.camera_id for one in bench.bus.published] == ["cam1"]
    assert [delivery.key for delivery in bench.bus.given_back] == ["cam2", "cam2"]
    assert "no judge's queue" in bench.bus.put_aside[0][1]
    assert bench.bus.bound == []
    assert [getattr(record, "event", "") for record in caplog.records] == ["clip_unroutable"]
    assert not list((bench.ctx.settings.node.state_dir / "inference").iterdir())


def test_the_broker_may_come_late(bench: Bench) -> None:
    bench.bus.away = Unavailable("not there yet")
    with bench.running():
        eventually(lambda: bench.ctx.cell.current_state is State.BUS_DOWN)
        bench.bus.away = None
        bench.offer(in_ring(bench))
        bench.settled(1)


def test_a_broker_that_lacks_something_is_fatal(bench: Bench) -> None:
    bench.bus.declare_fails = ConfigError([Fault("bus", "needs quorum queues")])
    with bench.running() as code:
        eventually(lambda: code)
    assert code == [EXIT_FATAL]


def test_a_stop_finishes_what_was_taken(bench: Bench) -> None:
    with bench.running() as code:
        eventually(lambda: bench.bus.consumed)
        for _ in range(30):
            bench.offer(in_ring(bench))
        bench.settled(1)
    assert code == [0]
    assert len(bench.bus.acked) == len(bench.bus.published)
    assert len(bench.bus.acked) + bench.bus.waiting.qsize() == 30


def test_a_stop_with_the_broker_away_gives_back(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, [marker_model(tmp_path)], stop_timeout_s=2.0)
    with bench.running() as code:
        eventually(lambda: bench.bus.consumed)
        bench.bus.away = Unavailable("gone")
        bench.offer(in_ring(bench))
        eventually(lambda: bench.ctx.cell.current_state is State.BUS_DOWN)
    assert code == [0]
    assert bench.bus.acked == []
    assert not list((tmp_path / "state" / "inference").iterdir())
    bench.close()


def test_a_full_dead_letter_queue_holds_up_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise Unavailable("redis: queue clips.dead holds 20000 messages")

    monkeypatch.setattr(bench.bus, "dead", full)
    task = in_ring(bench, "cam2")
    tries = Tries(bench.ctx.settings.node.state_dir / "inference", threading.Event(), 0)
    for _ in range(TRIES_MAX):
        tries.begin(task.clip_id)
    with bench.running():
        aliens = [bench.bus.offer(Message(b"hello", {"type": "greeting"})) for _ in range(2)]
        given_up = bench.offer(task)
        bench.offer(in_ring(bench))
        bench.settled(1)
        eventually(lambda: len(bench.bus.given_back) == 3)
    assert set(map(id, bench.bus.given_back)) == set(map(id, [*aliens, given_up]))
    assert [getattr(record, "event", "") for record in caplog.records] == ["dead_letters_full"]
    assert bench.ctx.cell.get("refused") == 0
    assert tries.of(task.clip_id) == TRIES_MAX
