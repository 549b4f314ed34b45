"""Probes over the registry's API: who looks, what is sent to it, whose word counts, and what whoever asked is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from nodeagent.contract.camera import REVEAL
from nodeagent.contract.ownership import LEASE_S
from nodeagent.contract.probe import ProbeOrder, ProbeResult, StreamAnswer
from nodeagent.contract.states import State
from registry.core.inbox import Arrived
from tests.support.eventually import eventually
from tests.support.registry_http import RegistryServing, report_of, serving_registry
from tests.support.registry_store import PASSWORD, draft, url, writer

SEEN = StreamAnswer(stream="record", state=State.CAPTURING, codec="h264", width=320, height=240, fps=10.0, keyframe_s=1)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServing]:
    with serving_registry(tmp_path) as serving:
        yield serving


class Asking:
    """Somebody who asks for a probe, while the test plays the nodes."""

    def __init__(self, registry: RegistryServing, pool: ThreadPoolExecutor) -> None:
        self.registry, self._pool = registry, pool

    def ask(self, path: str, who: str = "operator", **more: Any) -> Future[httpx.Response]:
        def post() -> httpx.Response:
            with self.registry.client(who) as client:
                return client.post(path, **more)

        return self._pool.submit(post)

    def order(self, node_id: str, **values: Any) -> ProbeOrder:
        """The order that the node finds in the answer to its report, which has these values."""

        def found() -> Mapping[str, Any] | None:
            orders = self.registry.core.report(report_of(node_id, **values)).probes
            return orders[0] if orders else None

        return ProbeOrder.model_validate(eventually(found))

    def tell(self, node_id: str, result: ProbeResult) -> None:
        self.registry.core.report(report_of(node_id, probes=(result,)))


@pytest.fixture
def asking(registry: RegistryServing) -> Iterator[Asking]:
    with ThreadPoolExecutor(4) as pool:
        yield Asking(registry, pool)


def test_the_owner_looks_and_nobody_else_is_told_the_password(registry: RegistryServing, asking: Asking) -> None:
    registry.parts.cameras.make(draft("gate"), writer())
    registry.core.changed(["gate"])
    registry.report("n1", "n2")
    registry.give("gate", "n2")
    asked = asking.ask("/cameras/gate/probe")
    order = asking.order("n2")
    assert order.streams["record"].url.get_secret_value() == url("gate")
    assert registry.core.report(report_of("n1")).probes == ()
    # Another node's word on it is none, nor is that of another life.
    lie = ProbeResult(probe_id=order.probe_id, trouble="it is fine")
    asking.tell("n1", lie)
    registry.core.report(report_of("n2", incarnation="00000000000000b2", probes=(lie,)))
    # An answer may have been lost: the order comes again, until there is a result.
    assert asking.order("n2") == order
    asking.tell("n2", ProbeResult(probe_id=order.probe_id, streams=(SEEN,)))
    answer = asked.result(20)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"camera_id": "gate", "node_id": "n2", "streams": [SEEN.model_dump(mode="json")]}
    assert PASSWORD not in answer.text
    assert registry.core.report(report_of("n2")).probes == ()


def test_of_a_camera_without_an_owner_a_node_with_its_labels_looks(registry: RegistryServing, asking: Asking) -> None:
    registry.report("n1", labels={"site": "south"})
    registry.report("n2", labels={"site": "north"})
    body = draft("new", labels={"site": "north"}, analyse={"url": url("new", path="sub")})
    asked = asking.ask("/probe", json=json.loads(body.model_dump_json(context=REVEAL)))
    order = asking.order("n2", labels={"site": "north"})
    assert set(order.streams) == {"record", "analyse"}
    asking.tell("n2", ProbeResult(probe_id=order.probe_id, trouble="its process ended with code 1"))
    answer = asked.result(20)
    assert (answer.status_code, answer.json()["detail"]) == (
        502,
        "node n2 could not look: its process ended with code 1",
    )
    nowhere = draft("new", labels={"site": "west"}).model_dump(mode="json", context=REVEAL)
    refused = asking.ask("/probe", json=nowhere).result(20)
    assert (refused.status_code, "labels" in refused.json()["detail"]) == (409, True)
    # As it is shown: the secret of a stored camera is for its owner.
    masked = asking.ask("/probe", json=draft("new").model_dump(mode="json")).result(20)
    assert (masked.status_code, masked.json()["faults"][0]["field"]) == (422, "spec.record.url")
    assert registry.parts.cameras.page().rows == ()


def test_words_of_people_and_of_groups_ask_nothing_of_who_looks(registry: RegistryServing, asking: Asking) -> None:
    has = {"site": "south", "spread": "yard"}
    registry.report("n1", labels=has)
    labels = {"spread": "hall", "owner": "anna", "site": "south"}
    asked = asking.ask("/probe", json=draft("new", labels=labels).model_dump(mode="json", context=REVEAL))
    asking.tell("n1", ProbeResult(probe_id=asking.order("n1", labels=has).probe_id, streams=(SEEN,)))
    answer = asked.result(20)
    assert (answer.status_code, answer.json().get("node_id")) == (200, "n1"), answer.text


def test_nobody_looks_for_an_owner_that_does_not_report(registry: RegistryServing, asking: Asking) -> None:
    registry.parts.cameras.make(draft("gate"), writer())
    registry.core.changed(["gate"])
    registry.report("n1", "n2")
    registry.give("gate", "n2")
    # Silent, and not long enough for its cameras to be moved.
    registry.pass_s(0.75 * LEASE_S)
    registry.report("n1")
    asked = asking.ask("/cameras/gate/probe")
    eventually(lambda: asked.done() or registry.core.report(report_of("n1")).probes)
    assert registry.core.report(report_of("n1")).probes == ()
    answer = asked.result(20)
    assert (answer.status_code, answer.json()["detail"]) == (
        503,
        "node n2 owns the camera and does not report: nobody else looks at it",
    )


def test_who_may_not_or_asks_where_nobody_can_look_is_told(registry: RegistryServing, asking: Asking) -> None:
    registry.parts.cameras.make(draft("gate"), writer())
    assert asking.ask("/cameras/gate/probe", "viewer").result(20).status_code == 403
    assert asking.ask("/cameras/none/probe").result(20).status_code == 404
    assert asking.ask("/cameras/gate/probe").result(20).status_code == 409
    # As the other registries tell of it: it lives, and reports to one of them.
    registry.made.loop.inbox.put(Arrived(report_of("n1"), registry.clock.now_s, registry.clock.wall_ns()))
    registry.turn()
    elsewhere = asking.ask("/cameras/gate/probe").result(20)
    assert (elsewhere.status_code, elsewhere.json()["detail"]) == (
        503,
        "node n1 reports to another registry: ask that one",
    )


def test_a_node_that_does_not_say_is_waited_for_so_long(
    registry: RegistryServing, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.made.desk.probes, "_answer_s", 0.2)
    registry.parts.cameras.make(draft("gate"), writer())
    registry.report("n1")
    answer = asking.ask("/cameras/gate/probe").result(20)
    assert (answer.status_code, answer.headers["content-type"]) == (504, "application/problem+json")
    assert "node n1 did not say within 0.2 s" in answer.json()["detail"]
    assert registry.core.report(report_of("n1")).probes == ()
