"""The registry's HTTP API over real sockets: who may do what, versions, lists, agents, and what it never says."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import event

from nodeagent.contract.errors import DecodeError, Unavailable
from nodeagent.contract.ownership import LEASE_S, Holding, ReportAnswer, Unfinished
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.registry_api import RegistryRefuses
from nodeagent.infra.settings.registry import RegistrySettings
from nodeagent.infra.web.certificates import KeyPair
from nodeagent.infra.web.server import listen
from nodeagent.supervisor.link.client import RegistryClient
from registry.http import access, server
from registry.http.body import BODY_BYTES
from registry.http.gate import BODY_MOST_BYTES
from registry.http.ports import NotLeader
from registry.http.reports import EPOCH_AHEAD_MS
from registry.store.camera_record import CameraPage
from registry.tokens import Role
from tests.support.eventually import eventually
from tests.support.registry_http import LIFE, NODES, PEOPLE, RegistryServing, report_of, serving_registry
from tests.support.registry_nodes import row
from tests.support.registry_store import NEW_KEY, PASSWORD, draft, rule, url, vault, writer

PROBLEM = "application/problem+json"
#: Another life than `LIFE`.
TWIN = "00000000000000b2"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServing]:
    with serving_registry(tmp_path) as serving:
        yield serving


@pytest.fixture
def admin(registry: RegistryServing) -> Iterator[httpx.Client]:
    with registry.client("admin") as client:
        yield client


@pytest.fixture
def agent(registry: RegistryServing) -> Iterator[httpx.Client]:
    with registry.client("n1") as client:
        yield client


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def camera(camera_id: str = "gate-1", **values: Any) -> dict[str, Any]:
    """A camera as somebody sends it."""
    outer = {name: values.pop(name) for name in ("enabled", "group", "labels") if name in values}
    return {"spec": {"camera_id": camera_id, "record": {"url": url(camera_id)}, **values}, **outer}


def seen(version: int) -> dict[str, str]:
    return {"If-Match": f'"{version}"'}


def threads_of_pages() -> int:
    """How many pages are made at a time at most: as many threads as the framework has."""
    return int(anyio.run(_threads))


async def _threads() -> float:
    return anyio.to_thread.current_default_thread_limiter().total_tokens


def logged(caplog: pytest.LogCaptureFixture, lines: int) -> list[str]:
    """What the registry logged, once it is as many lines: one comes after its answer, so the level has to be kept."""

    def said() -> list[str]:
        records = [record for record in caplog.records if record.name.startswith(("registry.http", "uvicorn"))]
        return [record.getMessage() for record in records]

    eventually(lambda: len(said()) >= lines)
    return said()


def break_database(registry: RegistryServing, folder: Path) -> None:
    """Let it be away from now on."""
    registry.engine.dispose()
    (folder / "registry.db").rename(folder / "away")
    (folder / "registry.db").mkdir()


def expect(answer: httpx.Response, status: int, *said: str) -> None:
    """A problem that says all of this."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    body = answer.json()
    assert (body["status"], body["title"] != "") == (status, True)
    for word in said:
        assert word in body["detail"] or word in [fault["field"] for fault in body.get("faults", ())], answer.text


# Who may do what.


def test_every_route_is_for_those_that_the_document_names(registry: RegistryServing, opened: ExitStack) -> None:
    document = httpx.get(f"{registry.origin}/openapi.json", trust_env=False).json()
    clients = {who: opened.enter_context(registry.client(who)) for who in (*PEOPLE, *NODES, None)}
    rank = list(Role)
    checked = 0
    for path, methods in document["paths"].items():
        # Never the callers' own token.
        place = path.format(camera_id="c", rule_id="r", name="a", node_id="n1", token_id="0" * 16)
        for method, operation in methods.items():
            needs = operation.get("x-needs")
            if needs is None:
                assert path in ("/healthz", "/readyz")
                continue
            allowed = {
                "any token": {*PEOPLE, *NODES},
                "the node's token": {"n1"},
                **{role.value: {each.value for each in rank[rank.index(role) :]} for role in Role},
            }[needs]
            for who, client in clients.items():
                answer = client.request(method, f"{registry.origin}{place}")
                if who is None:
                    expect(answer, 401)
                    assert answer.headers["www-authenticate"] == "Bearer"
                else:
                    assert (answer.status_code == 403) is (who not in allowed), (method, path, who, answer.text)
                checked += 1
    assert checked > 150


def test_what_needs_no_token_says_little(registry: RegistryServing) -> None:
    with registry.client(None) as stranger:
        assert stranger.get(f"{registry.origin}/healthz").json() == {"status": "ok"}
        assert stranger.get(f"{registry.origin}/readyz").json()["ready"] is True
        page = stranger.get(f"{registry.origin}/docs")
        assert "/api/v1/cameras/{camera_id}/move" in page.text
        assert "<script" not in page.text
        assert "script" not in page.headers["content-security-policy"]
        expect(stranger.get("/nothing"), 404)
        expect(stranger.patch("/cameras"), 405)
    for wrong in ("nonsense", f"nreg_{'0' * 16}_{'0' * 64}", registry.secrets["admin"][:-1] + "x"):
        with registry.client(wrong) as guesser:
            expect(guesser.get(f"{registry.origin}/healthz"), 401)


def test_a_revoked_token_opens_nothing_from_then_on(registry: RegistryServing, admin: httpx.Client) -> None:
    made = admin.post("/tokens", json={"name": "desk", "role": "viewer"})
    token_id, secret = made.json()["token_id"], made.json()["token"]
    assert made.status_code == 201
    with registry.client(secret) as desk:
        assert desk.get("/cameras").status_code == 200
        assert admin.delete(f"/tokens/{token_id}").status_code == 204
        expect(desk.get("/cameras"), 401)
    listed = admin.get("/tokens").text
    assert secret not in listed
    assert secret.rpartition("_")[2] not in listed
    row = next(row for row in json.loads(listed)["tokens"] if row["token_id"] == token_id)
    assert (row["role"], row["node_id"], row["created_by"], row["revoked_by"]) == ("viewer", None, "admin", "admin")
    node = admin.post("/tokens", json={"name": "rack", "node_id": "n9"}).json()
    with registry.client(node["token"]) as rack:
        assert rack.post("/nodes/n9/report", content=report_of("n9").model_dump_json()).status_code == 200
    expect(admin.delete(f"/tokens/{registry.token_ids['admin']}"), 409)
    expect(admin.delete(f"/tokens/{'0' * 16}"), 404)
    for neither in ({"name": "x"}, {"name": "x", "role": "viewer", "node_id": "n1"}):
        expect(admin.post("/tokens", json=neither), 422, "either")


def test_a_token_that_was_revoked_at_another_registry_is_let_in_for_a_while_only(
    registry: RegistryServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "FRESH_S", 0.2)
    with registry.client("viewer") as viewer:
        assert viewer.get("/cameras").status_code == 200
        registry.parts.tokens.revoke(registry.token_ids["viewer"], "other", 1)
        assert viewer.get("/cameras").status_code == 200
        eventually(lambda: viewer.get("/cameras").status_code == 401)


def test_use_of_tokens_is_noted_behind(registry: RegistryServing, admin: httpx.Client) -> None:
    admin.get("/cameras")
    registry.parts.doorkeeper.write_uses()
    used = {row["name"]: row["last_used_ns"] for row in admin.get("/tokens").json()["tokens"]}
    assert used["admin"] > 0
    assert used["viewer"] == 0


# Cameras.


def test_no_change_of_a_camera_is_lost(registry: RegistryServing, admin: httpx.Client) -> None:
    made = admin.post("/cameras", json=camera())
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    assert made.headers["location"] == "/api/v1/cameras/gate-1"
    expect(admin.post("/cameras", json=camera()), 409, "gate-1")
    expect(admin.put("/cameras/gate-1", json=camera(name="A")), 428, "If-Match")
    first = admin.put("/cameras/gate-1", json=camera(name="A"), headers=seen(1))
    assert (first.status_code, first.headers["etag"], first.json()["changed_by"]) == (200, '"2"', "admin")
    expect(admin.put("/cameras/gate-1", json=camera(name="B"), headers=seen(1)), 412, "version 2")
    same = admin.put("/cameras/gate-1", json=camera(name="A"), headers=seen(2))
    assert same.headers["etag"] == '"2"'
    expect(admin.put("/cameras/gate-1", json=camera(), headers={"If-Match": "2"}), 422, "If-Match")
    expect(admin.put("/cameras/gate-1", json=camera("gate-2"), headers=seen(2)), 422, "spec.camera_id")
    expect(admin.put("/cameras/gate-2", json=camera("gate-2"), headers=seen(2)), 404, "gate-2")
    expect(admin.delete("/cameras/gate-1", headers=seen(1)), 412)
    expect(admin.delete("/cameras/gate-1"), 428)
    assert admin.delete("/cameras/gate-1", headers=seen(2)).status_code == 204
    expect(admin.get("/cameras/gate-1"), 404, "gate-1")
    history = admin.get("/cameras/gate-1/history", params={"limit": 2}).json()
    assert [(one["version"], one["deleted"]) for one in history["versions"]] == [(3, True), (2, False)]
    rest = admin.get(history["next"].removeprefix("/api/v1")).json()
    assert [one["what"] for one in rest["versions"]] == ["made"]
    expect(admin.get("/cameras/nobody/history"), 404)
    # One change of nothing was told to nobody.
    assert registry.core.heard == ["gate-1"] * 3


def test_what_is_read_can_be_sent_back(registry: RegistryServing, admin: httpx.Client) -> None:
    admin.post("/cameras", json=camera(labels={"site": "north"}))
    read = admin.get("/cameras/gate-1").json()
    assert read["spec"]["record"]["url"] == "rtsp://***@gate-1.example:554/main"
    changed = {name: read[name] for name in ("spec", "enabled", "labels")} | {"group": "hall/1"}
    assert admin.put("/cameras/gate-1", json=changed, headers=seen(1)).json()["group"] == "hall/1"
    assert registry.parts.cameras.get("gate-1", reveal=True).spec.record.url.get_secret_value() == url()
    changed["spec"]["record"]["url"] = "rtsp://***@elsewhere.example/main"
    expect(admin.put("/cameras/gate-1", json=changed, headers=seen(2)), 422, "record.url")


def test_lists_come_in_parts_and_are_narrowed(admin: httpx.Client) -> None:
    drafts = [camera(f"c{i}", name=f"Gate {i}", labels={"site": "ab"[i % 2]}, enabled=i != 5) for i in range(7)]
    drafts[3]["group"] = "hall/1"
    assert admin.post("/import", json={"cameras": drafts}).json() == {"made": 7, "changed": 0, "same": 0}
    pages, path = [], "/cameras?limit=3&label=site%3Da"
    while path:
        body = admin.get(path).json()
        pages.append([one["camera_id"] for one in body["cameras"]])
        path = (body["next"] or "").removeprefix("/api/v1")
    assert pages == [["c0", "c2", "c4"], ["c6"]]
    for query, found in (
        ({"enabled": "false"}, ["c5"]),
        ({"group": "hall"}, ["c3"]),
        ({"text": "gate 6"}, ["c6"]),
        ({"label": ["site=b"], "enabled": "true"}, ["c1", "c3"]),
    ):
        assert [one["camera_id"] for one in admin.get("/cameras", params=query).json()["cameras"]] == found
    for query in ({"limit": 0}, {"limit": 1001}, {"label": "site"}, {"label": ["a=b", "a=c"]}, {"after": "x" * 64}):
        expect(admin.get("/cameras", params=query), 422, next(iter(query)))


def test_an_import_writes_all_or_nothing(registry: RegistryServing, admin: httpx.Client) -> None:
    assert admin.post("/import", json={"cameras": [camera("a"), camera("b")]}).json()["made"] == 2
    more = [camera("a", name="A"), camera("c")]
    expect(admin.post("/import", json={"cameras": more}), 409, "camera a")
    expect(admin.get("/cameras/c"), 404)
    assert admin.post("/import", json={"cameras": more, "overwrite": True}).json() == {
        "made": 1,
        "changed": 1,
        "same": 0,
    }
    expect(admin.post("/import", json={"cameras": [camera("d"), camera("d")]}), 422, "d.camera_id")
    assert registry.core.heard == ["a", "b", "c", "a"]


# Rules and algorithms.


@pytest.mark.parametrize(
    ("path", "one", "other", "broken", "field"),
    [
        (
            "/cameras/gate-1/rules/r",
            rule("r").model_dump(mode="json"),
            rule("r", severity="critical").model_dump(mode="json"),
            rule("r").model_dump(mode="json") | {"zones": []},
            "zones",
        ),
        (
            "/algorithms/tracker",
            {"parameters": {"gap_s": 1.5}},
            {"parameters": {"gap_s": [2, None]}},
            {"parameters": 5},
            "parameters",
        ),
    ],
    ids=["rule", "algorithm"],
)
def test_what_has_versions_of_its_own(
    admin: httpx.Client, path: str, one: dict[str, Any], other: dict[str, Any], broken: dict[str, Any], field: str
) -> None:
    admin.post("/cameras", json=camera())
    new = {"If-None-Match": "*"}
    expect(admin.get(path), 404)
    expect(admin.put(path, json=one), 428, "If-Match")
    expect(admin.put(path, json=one, headers=seen(1)), 412)
    expect(admin.put(path, json=one, headers={"If-None-Match": '"1"'}), 422, "If-None-Match")
    made = admin.put(path, json=one, headers=new)
    assert (made.status_code, made.headers["etag"]) == (200, '"1"')
    expect(admin.put(path, json=other, headers=new), 412, "version 1")
    expect(admin.put(path, json=broken, headers=seen(1)), 422, field)
    assert admin.put(path, json=other, headers=seen(1)).json()["version"] == 2
    read = admin.get(path)
    assert read.headers["etag"] == '"2"'
    assert other == (read.json().get("rule") or {"parameters": read.json().get("parameters")})
    expect(admin.delete(path, headers=seen(1)), 412)
    assert admin.delete(path, headers=seen(2)).status_code == 204
    expect(admin.get(path), 404)
    again = admin.put(path, json=one, headers=new)
    assert again.json()["version"] == 4
    history = admin.get(f"{path}/history").json()
    versions = history.get("versions") or history["algorithms"]
    assert [row["version"] for row in versions] == [4, 3, 2, 1]
    assert [row["version"] for row in versions if row.get("rule", row.get("parameters")) is None] == [3]
    expect(admin.get(f"{path}-never/history"), 404)


def test_rules_of_a_camera_are_listed_with_their_versions(admin: httpx.Client) -> None:
    rules = [rule(name).model_dump(mode="json") for name in ("r1", "r2")]
    admin.post("/cameras", json=camera(rules=rules))
    changed = rules[1] | {"min_score": 0.7}
    admin.put("/cameras/gate-1/rules/r2", json=changed, headers=seen(1))
    assert admin.get("/cameras/gate-1/rules").json()["rules"] == [
        {"version": 1, "rule": rules[0]},
        {"version": 2, "rule": changed},
    ]
    assert admin.get("/cameras/gate-1").json()["version"] == 2
    expect(admin.put("/cameras/gate-1/rules/r3", json=changed, headers={"If-None-Match": "*"}), 422, "rule_id")
    expect(admin.put("/cameras/none/rules/r2", json=changed, headers=seen(1)), 404, "none")


# Agents.


def test_a_node_reports_in_its_own_name_only(registry: RegistryServing, agent: httpx.Client) -> None:
    answer = agent.post("/nodes/n1/report", content=report_of("n1").model_dump_json())
    assert ReportAnswer.model_validate_json(answer.content).registry_id == "reg1"
    assert answer.headers["cache-control"] == "private, no-store"
    expect(agent.post("/nodes/n2/report", content=report_of("n2").model_dump_json()), 403, "node n1")
    expect(agent.post("/nodes/n1/report", content=report_of("n2").model_dump_json()), 422, "report.node_id")
    good = json.loads(report_of("n1").model_dump_json())
    for field, value in (("seq", 0), ("incarnation", "x"), ("holds", [{"camera_id": "../a"}]), ("labels", 5)):
        expect(agent.post("/nodes/n1/report", json=good | {field: value}), 422, field)
    endless = json.dumps(good | {"capacity": {"decode_cores": 5}}).replace(": 5}", ": 1e999}")
    expect(agent.post("/nodes/n1/report", content=endless), 422, "capacity.decode_cores")
    aged = report_of("n1", rows=(row("a", age_s=5.0),)).model_dump_json().replace(":5.0", ":NaN")
    expect(agent.post("/nodes/n1/report", content=aged), 422, "report.rows")
    expect(agent.post("/nodes/n1/report", json=good | {"costs": {"c": {"ring_bytes": -1}}}), 422, "costs.c.ring_bytes")
    # Finite, but sums of it are not; and a time that is no number of a column, nor of a division.
    expect(agent.post("/nodes/n1/report", json=good | {"costs": {"c": {"ring_bytes": 1e308}}}), 422, "costs.c")
    began = {"report": good["report"] | {"started_ns": 10**400}}
    expect(agent.post("/nodes/n1/report", json=good | began), 422, "report.started_ns")
    registry.turn()
    with registry.client("admin") as admin:
        assert [one["node_id"] for one in admin.get("/nodes").json()["nodes"]] == ["n1"]


def test_an_epoch_that_cannot_be_is_left_out_with_one_error_and_no_camera_is_lost_to_it(
    registry: RegistryServing, admin: httpx.Client, agent: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    admin.post("/cameras", json=camera("a"))
    owner = registry.give("a", "n1")
    most = registry.parts.clock.wall_ns() // 1_000_000 + EPOCH_AHEAD_MS
    for epoch in (2**63 - 1, 2**62, most + 600_000):
        report = report_of("n1", holds=(Holding(camera_id="a", epoch=epoch, version=1),))
        answer = agent.post("/nodes/n1/report", content=report.model_dump_json())
        assert answer.status_code == 200, "the node lives"
        (warning,) = answer.json()["warnings"]
        assert f"report.holds: camera a: epoch {epoch} is left out, expected at most " in warning
    registry.turn()
    said = [record for record in caplog.records if getattr(record, "event", "") == "epoch_unbelievable"]
    assert len(said) == 1
    assert "node n1: report.holds: camera a: epoch 9223372036854775807" in said[0].getMessage()
    # The highest that is believed leaves room for the next owner.
    report = report_of("n1", holds=(Holding(camera_id="a", epoch=most, version=1),))
    assert agent.post("/nodes/n1/report", content=report.model_dump_json()).json()["warnings"] == []
    registry.turn()
    assert registry.give("a", "n2").epoch > max(owner.epoch, most)


def test_a_second_agent_under_one_id_is_told_so(registry: RegistryServing, agent: httpx.Client) -> None:
    def told() -> httpx.Response:
        return agent.post("/nodes/n1/report", content=report_of("n1", None, TWIN).model_dump_json())

    registry.report("n1")
    assert told().status_code == 200
    registry.turn()
    expect(told(), 409, "another id", "incarnation")
    with registry.client("viewer") as viewer:
        assert viewer.get("/nodes/n1").json()["node"]["incarnation"] == LIFE


def test_a_node_gets_its_cameras_with_their_credentials_and_nobody_else_does(
    registry: RegistryServing, admin: httpx.Client, agent: httpx.Client
) -> None:
    for camera_id in ("a", "b", "c"):
        admin.post("/cameras", json=camera(camera_id, enabled=camera_id != "c"))
    owner = registry.give("a", "n1")
    registry.give("b", "n2")
    mine = {"incarnation": LIFE}
    listed = agent.get("/nodes/n1/cameras", params=mine).json()
    assert [(one["camera"]["camera_id"], one["version"], one["epoch"]) for one in listed] == [("a", 1, owner.epoch)]
    assert listed[0]["camera"]["record"]["url"] == url("a")
    assert agent.get("/nodes/n1/cameras", params={"incarnation": TWIN}).json() == []
    expect(agent.get("/nodes/n1/cameras"), 422, "incarnation")
    expect(agent.get("/nodes/n2/cameras", params=mine), 403, "node n1")
    expect(admin.get("/nodes/n1/cameras", params=mine), 403, "token of node n1 only")
    for who in (*PEOPLE, *NODES):
        with registry.client(who) as client:
            for path in ("/cameras", "/cameras/a", "/cameras/a/history", "/cameras/a/owner", "/assignments"):
                assert PASSWORD not in client.get(path).text
    assert agent.get("/cameras/a/owner").json() == {"known": True, "owner": owner.model_dump()}
    assert agent.get("/cameras/c/owner").json() == {"known": False, "owner": None}
    assert agent.get("/cameras/z/owner").json() == {"known": False, "owner": None}


def test_only_the_nodes_that_a_change_concerns_have_to_ask(registry: RegistryServing, admin: httpx.Client) -> None:
    for camera_id in ("a", "b", "c"):
        admin.post("/cameras", json=camera(camera_id))
    owned = {node_id: registry.give(camera_id, node_id) for camera_id, node_id in (("a", "n1"), ("b", "n2"))}

    def told(node_id: str, *serves: str) -> int:
        holds = tuple(Holding(camera_id=name, epoch=owned[node_id].epoch, version=1) for name in serves)
        with registry.client(node_id) as client:
            sent = report_of(node_id, holds=holds).model_dump_json()
            return int(client.post(f"/nodes/{node_id}/report", content=sent).json()["cameras_version"])

    # One that it owns and does not serve, perhaps because it cannot, concerns it as well.
    before = told("n1"), told("n2", "b")
    admin.put("/cameras/a", json=camera("a", name="Gate"), headers=seen(1))
    admin.put("/cameras/c", json=camera("c", name="Yard"), headers=seen(1))
    assert eventually(lambda: told("n1") != before[0])
    assert told("n2", "b") == before[1]
    changed = told("n1", "a")
    assert admin.delete("/cameras/a", headers=seen(2)).status_code == 204
    assert eventually(lambda: told("n1", "a") != changed), "it is deleted, and served still"
    assert told("n2", "b") == before[1]


def test_the_owner_of_a_camera_that_is_disabled_hears_so(
    registry: RegistryServing, admin: httpx.Client, agent: httpx.Client
) -> None:
    for camera_id in ("a", "b"):
        admin.post("/cameras", json=camera(camera_id))
        registry.give(camera_id, "n1")
    admin.put("/cameras/a", json=camera("a", enabled=False), headers=seen(1))
    assert eventually(lambda: list(listed(agent)) == ["b"])
    assert agent.get("/cameras/a/owner").json()["known"] is False
    assert agent.get("/cameras/b/owner").json()["known"] is True


def listed(agent: httpx.Client, strategy: str = "broadcast") -> dict[str, str]:
    """URLs of the cameras that n1 is told of; of those that it may claim, in brackets."""
    answer = agent.get("/nodes/n1/cameras", params={"incarnation": LIFE, "strategy": strategy})
    urls = {one["camera"]["camera_id"]: (one["camera"]["record"]["url"], one["epoch"]) for one in answer.json()}
    return {name: url if epoch else f"({url})" for name, (url, epoch) in urls.items()}


def test_a_node_gets_its_cameras_while_the_database_is_away(
    registry: RegistryServing, admin: httpx.Client, agent: httpx.Client, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        admin.post("/cameras", json=camera(name))
        registry.give(name, "n1")
    before = listed(agent)
    break_database(registry, tmp_path)
    assert listed(agent) == before == {"a": url("a"), "b": url("b")}
    assert listed(agent, "claim") == listed(agent), "nobody claims where the registry gives"


def test_nodes_that_claim_are_told_of_all_cameras(tmp_path: Path) -> None:
    with serving_registry(tmp_path, places=False) as registry, registry.client("n1") as agent:
        for name in ("a", "b", "c"):
            registry.parts.cameras.make(draft(name, enabled=name != "c"), writer())
            registry.core.changed([name])
        eventually(lambda: len(registry.core.claimable()) == 2)
        assert listed(agent) == {}
        assert listed(agent, "claim") == {"a": f"({url('a')})", "b": f"({url('b')})"}


def test_a_camera_whose_credentials_cannot_be_read_is_left_out_and_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving_registry(tmp_path) as registry:
        registry.parts.cameras.make(draft("a"), writer())
        registry.parts.cameras.make(draft("b", record={"url": "b.mp4"}), writer())
    with serving_registry(tmp_path, keys=vault(NEW_KEY)) as registry, registry.client("n1") as agent:
        for name in ("a", "b"):
            registry.give(name, "n1")
        for _ in range(3):
            assert listed(agent) == {"b": "b.mp4"}
        said = [record.getMessage() for record in caplog.records if record.name == "registry.http.routes_agents"]
        assert len(said) == 1
        assert "camera a" in said[0]


def test_a_report_asks_the_database_nothing(registry: RegistryServing, agent: httpx.Client) -> None:
    agent.post("/nodes/n1/report", content=report_of("n1").model_dump_json())
    statements: list[str] = []

    def note(*args: Any) -> None:
        # Who reported is written down behind, once in a while for all of them.
        if threading.current_thread().name != "clerk":
            statements.append(args[2])

    event.listen(registry.engine, "before_cursor_execute", note)
    for _ in range(50):
        assert agent.post("/nodes/n1/report", content=report_of("n1").model_dump_json()).status_code == 200
    assert statements == []
    with registry.client("viewer") as viewer:
        assert viewer.get("/cameras").status_code == 200
    assert statements


# Nodes and assignments.


def test_a_drain_is_ordered_followed_and_taken_back(registry: RegistryServing, admin: httpx.Client) -> None:
    expect(admin.post("/nodes/n1/drain", json={}), 404, "n1")
    admin.post("/cameras", json=camera("a"))
    registry.give("a", "n1")
    expect(admin.post("/nodes/n1/drain", json={}), 409, "forced", "cannot take 1 of 1 cameras")
    with registry.client("operator") as operator:
        expect(operator.post("/nodes/n1/drain", json={"forced": True}), 403, "admin")
        registry.report("n2")
        ordered = operator.post("/nodes/n1/drain", json={})
        assert ordered.status_code == 202
        version = ordered.json()["version"]
        assert ordered.headers["etag"] == f'"{version}"'
        drain = operator.get("/nodes/n1").json()["node"]["drain"]
        assert (drain["ordered_by"], drain["forced"]) == ("operator", False)

        def state() -> str:
            told: str = operator.get("/nodes/n1").json()["node"]["drain"]["state"]
            return told

        # It has no camera left: n2 owns it, and has no picture of it yet.
        eventually(lambda: state() == "starting")
        registry.report("n1", unfinished=Unfinished(cameras=0, clips=2, detections=0, alarms=0))
        registry.capture("a")
        drain = operator.get("/nodes/n1").json()["node"]["drain"]
        assert (drain["state"], drain["left"], drain["moved"], drain["done"]) == ("finishing", 0, 1, False)
        assert drain["unfinished"] == {"cameras": 0, "clips": 2, "detections": 0, "alarms": 0}
        registry.report("n1")
        eventually(lambda: operator.get("/nodes/n1").json()["node"]["drain"]["done"])
        assert operator.get("/cameras/a/owner").json()["owner"]["node_id"] == "n2"
        expect(operator.delete("/nodes/n1/drain", headers=seen(version + 1)), 412)
        assert operator.delete("/nodes/n1/drain", headers=seen(version)).status_code == 200
        eventually(lambda: operator.get("/nodes/n1").json()["node"]["drain"] is None)
    assert admin.post("/nodes/n2/drain", json={"forced": True}).json()["drain"]["forced"] is True
    expect(admin.post("/nodes/n1/drain", json={"forced": "yes"}), 422, "forced")


def test_a_dead_node_is_forgotten_by_order(registry: RegistryServing, admin: httpx.Client) -> None:
    registry.report("n1")
    expect(admin.delete("/nodes/n1"), 409, "dead")
    registry.pass_s(2 * LEASE_S + 1)
    assert admin.get("/nodes", params={"phase": "dead"}).json()["nodes"][0]["node_id"] == "n1"
    assert admin.delete("/nodes/n1").status_code == 204
    expect(admin.get("/nodes/n1"), 404, "n1")


def test_nodes_and_assignments_are_listed(registry: RegistryServing, admin: httpx.Client) -> None:
    for node_id in NODES:
        registry.report(node_id, labels={"rack": node_id})
    for i in range(3):
        admin.post("/cameras", json=camera(f"c{i}"))
        registry.made.desk.report(report_of(NODES[i % 2], labels={"rack": NODES[i % 2]}))
        registry.give(f"c{i}", NODES[i % 2])
    admin.post("/cameras", json=camera("c3", labels={"site": "nowhere"}))
    eventually(lambda: admin.get("/cluster").json()["cameras"] == {"owned": 3, "pooled": 1})
    registry.report(*NODES, labels={"rack": "r"})
    (whole,) = [one for one in admin.get("/nodes").json()["nodes"] if one["node_id"] == "n1"]
    assert (whole["load"], whole["models"]) == (0.02, None), (
        "by number, a hundred are full; an older agent tells nothing"
    )
    told = {"capacity": {"decode_cores": 0.6, "infer_per_s": 99, "ring_bytes": 1e12, "write_bytes_s": 1e12}}
    registry.report("n1", labels={"rack": "r"}, models=("people", "helmets"), **told)
    one = admin.get("/nodes/n1").json()["node"]
    assert (one["load"], one["models"]) == (0.5, ["helmets", "people"]), "of its cores: they are what it is short of"
    page = admin.get("/nodes", params={"limit": 1}).json()
    assert [(one["node_id"], one["owns"], one["labels"]) for one in page["nodes"]] == [("n1", 2, {"rack": "r"})]
    assert [one["node_id"] for one in admin.get(page["next"].removeprefix("/api/v1")).json()["nodes"]] == ["n2"]
    assert admin.get("/nodes", params={"phase": "dead"}).json() == {"nodes": [], "next": None}
    expect(admin.get("/nodes", params={"phase": "odd"}), 422, "phase")
    assert admin.get("/nodes/n1").json()["cameras"] == ["c0", "c2"]
    for query, found in (
        ({}, ["c0", "c1", "c2", "c3"]),
        ({"node_id": "n1"}, ["c0", "c2"]),
        ({"phase": "pooled"}, ["c3"]),
        ({"after": "c1", "limit": "1"}, ["c2"]),
    ):
        assert [one["camera_id"] for one in admin.get("/assignments", params=query).json()["assignments"]] == found
    overview = admin.get("/cluster").json()
    assert (overview["leader"], overview["nodes"]["live"], overview["freeze"]) == ("reg1", 2, None)
    why = admin.get("/cameras/c0/explain", params={"limit": 1}).json()
    assert (why["node_id"], why["considered"], len(why["candidates"])) == ("n1", 2, 1)
    (nobody, _) = admin.get("/cameras/c3/explain").json()["candidates"]
    assert "needs site=nowhere" in nobody["refusals"][0]


def test_a_camera_is_moved_by_hand(registry: RegistryServing, admin: httpx.Client) -> None:
    admin.post("/cameras", json=camera())
    registry.give("gate-1", "n1")
    expect(admin.post("/cameras/none/move", json={"node_id": "n1"}), 404, "none")
    expect(admin.post("/cameras/gate-1/move", json={"node_id": "n2"}), 404, "n2")
    expect(admin.post("/cameras/gate-1/move", json={"node": "n1"}), 422, "node_id")
    registry.report("n2")
    moved = admin.post("/cameras/gate-1/move", json={"node_id": "n2"}).json()
    assert moved["node_id"] == "n2"

    def history() -> list[tuple[str, str, bool]]:
        rows = admin.get("/cameras/gate-1/assignments").json()["assignments"]
        return [(one["owner"]["node_id"], one["reason"], one["ended_ns"] is None) for one in rows]

    # Written behind.
    eventually(lambda: history()[:1] == [("n2", "moved by admin", True)])
    assert [(node_id, is_open) for node_id, _, is_open in history()[1:]] == [("n1", False)]
    first = admin.get("/cameras/gate-1/assignments", params={"limit": 1}).json()
    assert admin.get(first["next"].removeprefix("/api/v1")).json()["assignments"][0]["owner"]["node_id"] == "n1"
    admin.put("/cameras/gate-1", json=camera(enabled=False), headers=seen(1))
    expect(admin.post("/cameras/gate-1/move", json={"node_id": "n1"}), 409, "not enabled")
    expect(admin.get("/cameras/none/assignments"), 404, "none")


def test_a_freeze_is_seen_and_ended(registry: RegistryServing, admin: httpx.Client) -> None:
    registry.report("n1", "n2", "n3", "n4")
    registry.pass_s(2 * LEASE_S + 1)
    freeze = admin.get("/cluster").json()["freeze"]
    assert "fell silent together" in freeze["reason"]
    assert freeze["since_ns"] < freeze["until_ns"]
    assert admin.post("/thaw").json() == {"thawed": True, "reason": freeze["reason"]}
    assert admin.post("/thaw").json() == {"thawed": False, "reason": ""}
    assert admin.get("/cluster").json()["freeze"] is None


# Trouble.


def test_what_is_away_is_told_and_reports_go_on(
    registry: RegistryServing, agent: httpx.Client, admin: httpx.Client, tmp_path: Path
) -> None:
    for client in (agent, admin):
        client.get("/cameras/a/owner")
    registry.core.trouble = NotLeader("reg2")
    expect(admin.post("/thaw"), 503, "reg2")
    registry.core.trouble = Unavailable("redis: grant: ConnectionError")
    expect(admin.get("/cluster"), 503, "redis")
    assert httpx.get(f"{registry.origin}/readyz", trust_env=False).status_code == 503
    registry.core.trouble = None
    break_database(registry, tmp_path)
    refused = admin.get("/cameras")
    expect(refused, 503, "database")
    assert int(refused.headers["retry-after"]) > 0
    ready = httpx.get(f"{registry.origin}/readyz", trust_env=False)
    assert (ready.status_code, ready.json()["database"] != "", ready.json()["state"]) == (503, True, "")
    assert httpx.get(f"{registry.origin}/healthz", trust_env=False).status_code == 200
    # A token that was seen before is good; one that was not is nobody's fault.
    assert agent.post("/nodes/n1/report", content=report_of("n1").model_dump_json()).status_code == 200
    with registry.client("n2") as late:
        expect(late.post("/nodes/n2/report", content=report_of("n2").model_dump_json()), 503, "database")


def test_agents_are_answered_while_all_pages_wait_for_a_database(
    registry: RegistryServing, agent: httpx.Client, opened: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.parts.cameras.make(draft("a"), writer())
    registry.core.changed(["a"])
    registry.give("a", "n1")
    waiting, goes_on = threading.Semaphore(0), threading.Event()

    def hang(*_args: Any) -> CameraPage:
        waiting.release()
        goes_on.wait(30)
        return CameraPage((), None)

    monkeypatch.setattr(registry.parts.cameras, "page", hang)
    many = threads_of_pages()
    viewer = opened.enter_context(registry.client("viewer"))
    pool = opened.enter_context(ThreadPoolExecutor(many + 5))
    opened.callback(goes_on.set)
    asked = [pool.submit(viewer.get, "/cameras", timeout=60) for _ in range(many + 5)]
    for _ in range(many):
        assert waiting.acquire(timeout=20)
    assert not waiting.acquire(timeout=0.2), "one of them waits for no thread"
    body = report_of("n1", rows=(row("a"),)).model_dump_json()
    assert agent.post("/nodes/n1/report", content=body, timeout=5).status_code == 200
    listed = agent.get("/nodes/n1/cameras", params={"incarnation": LIFE}, timeout=5).json()
    assert [one["camera"]["camera_id"] for one in listed] == ["a"]
    assert agent.get("/cameras/a/owner", timeout=5).json()["known"] is True
    assert httpx.get(f"{registry.origin}/healthz", trust_env=False).status_code == 200
    goes_on.set()
    assert {answer.result(30).status_code for answer in asked} == {200}


@pytest.mark.parametrize(
    "body",
    [
        {"spec": f"rtsp://u:{PASSWORD}@h/x"},
        {"spec": {"camera_id": "c", "record": f"rtsp://u:{PASSWORD}@h/x"}},
        {"spec": {"camera_id": f"rtsp://u:{PASSWORD}@h/x", "record": {"url": PASSWORD, "pass": PASSWORD}}},
        {"spec": {"camera_id": "c", "record": {"url": f"rtsp://u:{PASSWORD}@h:port/x", "transport": PASSWORD}}},
        {"spec": {"camera_id": "c", "record": {"url": [PASSWORD]}, "rules": [{"kind": PASSWORD}]}},
        {"labels": {f"rtsp://u:{PASSWORD}@h/x": PASSWORD}, f"x {PASSWORD}": 1},
        {"spec": {"camera_id": "c", "record": {"url": f"rtsp://u:{PASSWORD}@h/x/user:***@"}}},
        [PASSWORD],
    ],
    ids=range(8),
)
def test_no_secret_is_answered_or_logged(admin: httpx.Client, caplog: pytest.LogCaptureFixture, body: Any) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = admin.post("/cameras", json=body)
        query = admin.get("/cameras", params={"text": PASSWORD * 30, "group": f"/{PASSWORD}"})
        assert PASSWORD not in "".join(logged(caplog, 2))
    for refused in (answer, query):
        expect(refused, 422)
        assert PASSWORD not in refused.text


def test_what_fails_in_the_registry_is_told_without_a_word_of_it(
    registry: RegistryServing, admin: httpx.Client, agent: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    registry.core.trouble = DecodeError("table camera, gate-1: spec: not JSON", PASSWORD.encode())
    expect(admin.get("/cluster"), 500, "see the registry's log")
    registry.core.trouble = RuntimeError(PASSWORD)
    failed = agent.get("/cameras/a/owner")
    expect(failed, 500, "see the registry's log")
    assert PASSWORD not in failed.text
    assert logged(caplog, 4) == [
        "request failed",
        "GET /api/v1/cluster by admin: 500",
        "request failed",
        "GET /api/v1/cameras/a/owner by n1: 500",
    ]


@pytest.mark.parametrize("place", [f"rtsp://u:{PASSWORD}@h/x", f"rtsp%3A%2F%2Fu%3A{PASSWORD}%40h", f"a {PASSWORD}"])
def test_a_url_in_the_place_of_an_id_is_not_logged(
    registry: RegistryServing, agent: httpx.Client, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    with caplog.at_level(logging.INFO, "registry"):
        for path in (f"/cameras/{place}", f"/nodes/{place}/cameras"):
            answer = agent.delete(f"{registry.origin}/api/v1{path}") if "nodes" in path else agent.put(path)
            assert answer.status_code >= 400
            assert PASSWORD not in answer.text
        assert PASSWORD not in "".join(logged(caplog, 2))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b'{"parameters": ' + b"[" * 100_000, 422),
        (b'{"parameters": {"a": "\\ud800"}}', 422),
        (b'{"parameters": {"a": NaN}}', 422),
        (b'{"parameters": {"a": ' + b"9" * 5000 + b"}}", 422),
        (b'{"parameters": {"a": 1e999}}', 422),
        (b"\xff\xfe", 422),
        (b'{"parameters": {"a": "' + b"x" * BODY_BYTES + b'"}}', 413),
    ],
    ids=range(9),
)
def test_no_body_is_too_strange(admin: httpx.Client, body: bytes, status: int) -> None:
    expect(admin.put("/algorithms/a", content=body, headers={"If-None-Match": "*"}), status)
    # In pieces, without a length that is told beforehand.
    pieces = (body[at : at + 50_000] for at in range(0, len(body), 50_000))
    expect(admin.put("/algorithms/a", content=pieces, headers={"If-None-Match": "*"}), status)
    expect(admin.get("/algorithms/a"), 404)


def test_a_body_that_is_far_too_large_is_not_read(registry: RegistryServing) -> None:
    host, port = registry.origin.removeprefix("http://").split(":")
    head = f"PUT /api/v1/algorithms/a HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_MOST_BYTES + 1}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as link:
        link.sendall(head.encode())
        assert link.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_refusal_is_logged_once_and_a_change_always(
    registry: RegistryServing, admin: httpx.Client, agent: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "registry"):
        for _ in range(3):
            expect(agent.post("/nodes/n2/report", content=report_of("n2").model_dump_json()), 403)
            agent.post("/nodes/n1/report", content=report_of("n1").model_dump_json())
            admin.get("/cameras")
        for path in ("/cameras/a", "/nothing", "/nodes/n7"):
            expect(admin.get(path), 404)
        for name in ("a", "b"):
            admin.post("/cameras", json=camera(name))
        wanted = [
            "POST /api/v1/nodes/n2/report by n1: 403",
            "GET /api/v1/cameras/a by admin: 404",
            "POST /api/v1/cameras by admin: 201",
            "POST /api/v1/cameras by admin: 201",
        ]
        assert [line.partition(" (")[0] for line in logged(caplog, len(wanted))] == wanted


def test_an_agents_connection_is_kept_and_a_silent_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LIMITS", replace(server.LIMITS, silent_s=1.0))
    with ExitStack() as opened:
        registry = opened.enter_context(serving_registry(tmp_path))
        host, port = registry.origin.removeprefix("http://").split(":")
        busy, silent = (opened.enter_context(socket.create_connection((host, int(port)), timeout=10)) for _ in range(2))
        began_s = time.monotonic()

        def answered() -> bool:
            busy.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert busy.recv(4096).startswith(b"HTTP/1.1 200")
            return time.monotonic() - began_s > 3.0

        eventually(answered, within_s=10, every_s=0.2)
        assert silent.recv(10) == b""


def test_an_agent_understands_every_answer(registry: RegistryServing) -> None:
    registry.parts.cameras.make(draft("a"), writer())
    registry.core.changed(["a"])
    owner = registry.give("a", "n1")

    def client(node_id: str, token: str) -> RegistryClient:
        settings = RegistrySettings(urls=(SecretStr(registry.origin),), token=SecretStr(registry.secrets[token]))
        return RegistryClient(settings, node_id, SystemClock())

    agent, stranger = client("n1", "n1"), client("n1", "n2")
    try:
        assert agent.report(report_of("n1")).registry_id == "reg1"
        listing = agent.cameras(LIFE)
        assert listing.unfit == {}
        assert listing.offers["a"].spec.record.url.get_secret_value() == url("a")
        assert (listing.offers["a"].version, listing.offers["a"].epoch) == (1, owner.epoch)
        assert agent.owner("a").owner == owner
        assert (agent.owner("z").known, agent.owner("z").owner) == (False, None)
        agent.report(report_of("n1", None, TWIN))
        registry.turn()
        with pytest.raises(RegistryRefuses, match="status 409: node n1: an agent on h"):
            agent.report(report_of("n1", None, TWIN))
        with pytest.raises(RegistryRefuses, match=r"status 403: .* of node n2"):
            stranger.report(report_of("n1"))
        registry.core.trouble = Unavailable("redis: owned: ConnectionError")
        with pytest.raises(Unavailable, match="status 503"):
            agent.cameras(LIFE)
    finally:
        agent.close()
        stranger.close()


def test_no_half_of_an_answer_waits_for_the_other() -> None:
    with listen("127.0.0.1", 0, 1) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_https_is_spoken_with_a_certificate(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    with serving_registry(tmp_path / "served", KeyPair(cert, key)) as registry:
        assert registry.origin.startswith("https:")
        trusting = ssl.create_default_context(cafile=cert)
        assert httpx.get(f"{registry.origin}/healthz", verify=trusting, trust_env=False).json() == {"status": "ok"}
