"""The client of the registries against the real API, against registries that are away, and against strange answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nodeagent.contract.errors import Unavailable
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.registry_api import PART_ROWS, RegistryApi, RegistryRefuses
from nodeagent.infra.settings.registry import RegistrySettings
from registry.http.ports import NotLeader
from tests.support.registry_http import RegistryServing, serving_registry
from tests.support.registry_store import draft, writer

TOKEN = "t" * 40


def api(*urls: str, token: str = TOKEN) -> RegistryApi:
    return RegistryApi(RegistrySettings.model_validate({"urls": urls, "token": token}), SystemClock())


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServing]:
    with serving_registry(tmp_path) as serving:
        yield serving


@contextmanager
def answering(answer: Callable[[str], tuple[int, Any]]) -> Iterator[str]:
    """A server that answers to each address as told; yields its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = answer(self.path)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def nowhere() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_lists_are_followed_to_their_end(registry: RegistryServing) -> None:
    ids = [f"cam-{number:05d}" for number in range(PART_ROWS + 1)]
    registry.parts.cameras.bring_in([draft(camera_id, labels={"site": "north"}) for camera_id in ids], False, writer())
    registry.parts.cameras.make(draft("other"), writer())
    with api(registry.origin, token=registry.secrets["viewer"]) as asking:
        rows = list(asking.rows("cameras", params=[("label", "site=north"), ("enabled", "true")], read_s=20))
    assert [row["camera_id"] for row in rows] == ids


def test_a_registry_that_is_away_makes_way_for_the_next(registry: RegistryServing) -> None:
    with api(nowhere(), registry.origin, token=registry.secrets["viewer"]) as asking:
        assert asking.document("GET", "cluster")["registry_id"] == "reg1"
        registry.core.trouble = NotLeader("reg2")
        with pytest.raises(Unavailable) as caught:
            asking.document("GET", "cluster")
    said = str(caught.value)
    assert "status 503: only the leader can do that, which is reg2; ConnectError" in said
    assert "127.0.0.1" not in said


def test_a_refusal_names_every_faulty_field_and_no_secret(registry: RegistryServing) -> None:
    cameras = [{"spec": {"camera_id": "gate", "record": {"url": "rtsp://u:hunter2@"}, "sample_fps": 99}}]
    with api(registry.origin, token=registry.secrets["admin"]) as asking:
        with pytest.raises(RegistryRefuses) as caught:
            asking.ask("POST", "import", body=json.dumps({"cameras": cameras}).encode())
        refusal = caught.value
        assert refusal.status == 422
        paths = {fault.path for fault in refusal.faults}
        assert paths == {"cameras[0].spec.record.url", "cameras[0].spec.sample_fps"}
        shown = f"{refusal} {refusal.faults}"
        assert "hunter2" not in shown
        assert registry.secrets["admin"] not in shown
        with pytest.raises(RegistryRefuses, match="status 404: camera gate: there is none"):
            asking.document("GET", "cameras/gate")


def test_what_changes_something_may_have_no_answer(registry: RegistryServing) -> None:
    registry.parts.cameras.make(draft("gate"), writer())
    with api(registry.origin, token=registry.secrets["admin"]) as asking:
        with pytest.raises(RegistryRefuses, match="status 428"):
            asking.ask("DELETE", "cameras/gate")
        token_id = registry.token_ids["viewer"]
        assert asking.ask("DELETE", f"tokens/{token_id}") == b""


@pytest.mark.parametrize(
    "document", [[], {}, {"nodes": 3}, {"nodes": [3]}, {"nodes": {"a": 1}, "next": None}, {"cameras": []}]
)
def test_a_list_that_is_none_is_no_empty_list(document: Any) -> None:
    with answering(lambda _: (200, document)) as url, api(url) as asking, pytest.raises(Unavailable):
        list(asking.rows("nodes"))


def test_a_list_that_leads_back_to_itself_ends() -> None:
    page = {"nodes": [{"node_id": "n1"}], "next": "/api/v1/nodes?limit=1000&after=n1"}
    with answering(lambda _: (200, page)) as url, api(url) as asking, pytest.raises(Unavailable, match="has no end"):
        list(asking.rows("nodes"))


def test_the_address_of_a_next_part_leads_nowhere_else() -> None:
    asked: list[str] = []

    def answer(path: str) -> tuple[int, Any]:
        asked.append(path)
        more = "http://elsewhere.example/steal?after=n1" if len(asked) == 1 else None
        return 200, {"nodes": [{"node_id": "n1"}], "next": more}

    with answering(answer) as url, api(url) as asking:
        assert len(list(asking.rows("nodes"))) == 2
    assert asked == ["/api/v1/nodes?limit=1000", "/api/v1/nodes?after=n1"]
