"""Connections of the clip endpoint: who waits makes room, who is busy stays, and nothing waits for a confirmation."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nodeagent.capture.endpoint import worker
from nodeagent.infra.web.server import PULSE_S
from tests.support.eventually import eventually
from tests.support.serving import Serving, free_port, serving, settings_in

ASK = b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def limits() -> dict[str, float]:
    """What the endpoint's limits are instead of the usual ones."""
    return {}


@pytest.fixture
def served(tmp_path: Path, limits: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    monkeypatch.setattr(worker, "LIMITS", replace(worker.LIMITS, **limits))
    with serving(tmp_path, settings_in(tmp_path, free_port())) as node:
        yield node


@pytest.mark.parametrize("limits", [{"silent_s": 0.2}])
def test_a_connection_whose_request_does_not_come_makes_room(served: Serving) -> None:
    assert served.settings.endpoint is not None
    for begin in (b"", b"GET /api/v1/health HTTP/1.1\r\nHost:"):
        with socket.create_connection(served.settings.endpoint.address, timeout=10) as slow:
            slow.sendall(begin)
            assert slow.recv(1) == b"", "closed by the server"
    with served.client() as http:
        assert http.get("/health").status_code == 200


@pytest.mark.parametrize("limits", [{"silent_most": 1}])
def test_of_many_silent_connections_those_that_wait_longest_make_room(served: Serving) -> None:
    assert served.settings.endpoint is not None
    with socket.create_connection(served.settings.endpoint.address, timeout=5) as oldest:
        time.sleep(2 * PULSE_S)
        with socket.create_connection(served.settings.endpoint.address, timeout=2 * PULSE_S) as newest:
            assert oldest.recv(1) == b""
            with pytest.raises(TimeoutError):
                newest.recv(1)


@pytest.mark.parametrize("limits", [{"silent_s": 3 * PULSE_S}])
def test_a_client_that_asks_again_and_again_keeps_its_connection(served: Serving) -> None:
    assert served.settings.endpoint is not None
    with socket.create_connection(served.settings.endpoint.address, timeout=10) as busy:
        began_s = time.monotonic()

        def answered() -> bool:
            busy.sendall(ASK)
            assert busy.recv(4096).startswith(b"HTTP/1.1 200")
            return time.monotonic() - began_s > 9 * PULSE_S

        eventually(answered, within_s=30, every_s=PULSE_S / 2)


def test_the_second_half_of_an_answer_does_not_wait_for_the_first_to_be_confirmed(served: Serving) -> None:
    assert served.settings.endpoint is not None
    took_s = []
    with socket.create_connection(served.settings.endpoint.address, timeout=10) as client:
        for _ in range(20):
            client.sendall(ASK)
            began_s, got = time.monotonic(), b""
            while b"\r\n\r\n" not in got or got.endswith(b"\r\n\r\n"):
                got += client.recv(4096)
            took_s.append(time.monotonic() - began_s)
    # A delayed confirmation takes 40 ms, each time.
    assert sorted(took_s)[5] < 0.03
