"""Requests made from the registry's own OpenAPI document, good ones and bad ones: no answer is a server error."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nodeagent.contract.probe import ProbeOrder, ProbeResult, StreamAnswer
from nodeagent.contract.states import State
from tests.support.missing import not_tested
from tests.support.registry_http import LIFE, NODES, SOON_S, RegistryServing, report_of, serving_registry
from tests.support.registry_store import draft, rule, writer

#: Requests per operation: all together take some ten seconds.
EXAMPLES = 6


@pytest.fixture(scope="module")
def schemathesis() -> Any:
    try:
        return importlib.import_module("schemathesis")
    except ImportError:
        not_tested("schemathesis, of the extra `dev`")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServing]:
    with serving_registry(tmp_path_factory.mktemp("registry")) as serving:
        serving.parts.cameras.make(draft("gate-1", rules=(rule("no-entry"),)), writer())
        serving.parts.algorithms.put("tracker", {"gap": 1.5}, 0, "tests", 1)
        serving.core.changed(["gate-1"])
        serving.report(*NODES)
        serving.give("gate-1", "n1")
        with probing_nodes(serving):
            yield serving


@contextmanager
def probing_nodes(registry: RegistryServing) -> Iterator[None]:
    """Nodes that report all the while, and say of each camera that they are to look at that they do not reach it."""
    stop = threading.Event()

    def report() -> None:
        results: dict[str, tuple[ProbeResult, ...]] = dict.fromkeys(NODES, ())
        while not stop.wait(SOON_S):
            for node_id in NODES:
                answer = registry.core.report(report_of(node_id, probes=results[node_id]))
                orders = map(ProbeOrder.model_validate, answer.probes)
                results[node_id] = tuple(map(unreachable, orders))

    thread = threading.Thread(target=report, name="nodes")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def unreachable(order: ProbeOrder) -> ProbeResult:
    """What a node says that looked: a node that could not look makes the registry answer that its gateway is bad."""
    streams = tuple(StreamAnswer(stream=name, state=State.SOURCE_DOWN, detail="no route") for name in order.streams)
    return ProbeResult(probe_id=order.probe_id, streams=streams)


def test_no_request_is_answered_with_a_server_error(schemathesis: Any, registry: RegistryServing) -> None:
    document = httpx.get(f"{registry.origin}/openapi.json", trust_env=False).json()
    schema = schemathesis.openapi.from_dict(document)
    modes = list(schemathesis.GenerationMode)
    seen: dict[str, set[int]] = {}
    for operation in (found.ok() for found in schema.get_all_operations()):
        statuses = seen.setdefault(operation.label, set())
        cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])
        hammer(registry, cases, statuses)
    assert len(seen) == sum(len(methods) for methods in document["paths"].values())
    # Most requests have to get past the door for this to say anything.
    past = [label for label, statuses in seen.items() if any(status < 300 for status in statuses)]
    assert len(past) > len(seen) / 2, seen


def hammer(registry: RegistryServing, cases: st.SearchStrategy[Any], statuses: set[int]) -> None:
    """Send some of these requests, and look at what comes back."""
    known = {
        "camera_id": "gate-1", "rule_id": "no-entry", "node_id": "n1", "name": "tracker",
        "token_id": registry.token_ids["viewer"], "incarnation": LIFE,
    }  # fmt: skip

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, familiar=st.integers(0, 3), tag=st.sampled_from([None, '"1"', '"2"']))
    def send(case: Any, familiar: int, tag: str | None) -> None:
        if familiar:
            # Else hardly a request names anything that is there.
            for place in (case.path_parameters, case.query):
                for name in set(place or ()) & known.keys():
                    place[name] = known[name]
            if isinstance(case.body, dict) and "incarnation" in case.body:
                # Another life of a node that lives is no node that probes, until the true one reports again.
                case.body["incarnation"] = LIFE
        headers = {"If-Match": tag} if tag else {}
        who = "n1" if case.operation.path.endswith(("/report", "/nodes/{node_id}/cameras")) else "admin"
        answer = case.call(
            base_url=registry.origin, headers=headers | {"Authorization": f"Bearer {registry.secrets[who]}"}
        )
        statuses.add(answer.status_code)
        assert answer.status_code < 500, f"{case.method} {case.formatted_path} {case.body!r}: {answer.text}"
        if answer.status_code >= 400:
            assert answer.headers["content-type"][0] == "application/problem+json", answer.text

    send()
