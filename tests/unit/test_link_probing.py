"""What the link makes of orders to probe: each once, two at a time, and each gets a result."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from nodeagent.contract.probe import ProbeOrder, ProbeResult
from nodeagent.supervisor.link import probing
from nodeagent.supervisor.link.probing import AT_ONCE, Probing, run_probe
from tests.support.eventually import eventually


def order(number: int, **streams: str) -> dict[str, Any]:
    given = streams or {"record": "rtsp://viewer:hunter2@10.0.0.9/main"}
    return {"probe_id": f"{number:016x}", "streams": {name: {"url": url} for name, url in given.items()}}


class Camera:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let = threading.Event()

    def look(self, order: ProbeOrder) -> ProbeResult:
        self.asked.append(order.probe_id)
        assert self.let.wait(20)
        return ProbeResult(probe_id=order.probe_id)


def test_an_order_is_carried_out_once_and_its_result_told_until_it_was_heard() -> None:
    camera = Camera()
    link = Probing(camera.look)
    for _ in range(3):
        link.take([order(1)])
    assert link.results() == ()
    camera.let.set()
    results = eventually(link.results)
    link.take([order(1)])
    assert camera.asked == [results[0].probe_id] == [f"{1:016x}"]
    assert link.results() == results
    link.told(results)
    link.told(results)
    assert link.results() == ()


def test_more_than_a_node_can_do_at_a_time_is_refused_at_once() -> None:
    camera = Camera()
    link = Probing(camera.look)
    link.take([order(number) for number in range(AT_ONCE + 1)])
    (refused,) = link.results()
    assert refused.trouble == "the node has 2 probes under way already"
    camera.let.set()
    eventually(lambda: len(link.results()) == AT_ONCE + 1)
    link.take([order(9)])
    eventually(lambda: len(link.results()) == AT_ONCE + 2)
    assert [result.probe_id for result in link.results() if result.trouble] == [refused.probe_id]


def test_an_order_that_cannot_be_read_is_answered_without_a_word_of_it() -> None:
    link = Probing(Camera().look)
    link.take([{"probe_id": "?"}, {}, order(1, record="gopher://viewer:hunter2@h/x"), order(2, third="rtsp://h/x")])
    assert [result.trouble.partition(":")[0] for result in link.results()] == ["this agent cannot read the order"] * 2
    assert "hunter2" not in repr(link.results())


def test_a_failure_has_a_result_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_order: ProbeOrder) -> ProbeResult:
        raise RuntimeError("no")

    link = Probing(fail)
    link.take([order(1)])
    assert eventually(link.results)[0].trouble == "internal error, see the agent's log"
    monkeypatch.setattr(probing, "MODULE", "nodeagent.no_such_module")
    assert run_probe(ProbeOrder.model_validate(order(2))).trouble == "its process ended with code 1"
