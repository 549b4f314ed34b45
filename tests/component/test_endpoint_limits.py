"""What the clip endpoint puts up with: too many requests and transfers, a port that is taken, clients that hang."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from nodeagent.capture.endpoint import worker
from nodeagent.capture.endpoint.certificate import certificate_faults
from nodeagent.contract.states import State
from nodeagent.infra.settings.endpoint import PeerSettings
from tests.support.eventually import eventually
from tests.support.serving import OTHER_TOKEN, TOKEN, T, free_port, serving, settings_in


def test_clients_that_ask_too_often_or_guess_are_told_to_come_back(tmp_path: Path) -> None:
    with serving(tmp_path, settings_in(tmp_path, free_port(), requests_per_s=2.0)) as node:
        with node.client() as client, node.client("x" * 40) as guesser, node.client(OTHER_TOKEN) as other:
            statuses = [client.get("/health").status_code for _ in range(8)]
            assert statuses[:4] == [200] * 4 and statuses[-1] == 429
            assert int(client.get("/health").headers["retry-after"]) >= 1
            assert other.get("/health").status_code == 200, "one token's haste is not another's"
            guesses = [guesser.get("/cameras").status_code for _ in range(14)]
            assert guesses[0] == 401 and guesses[-1] == 429
        eventually(lambda: node.cell.get("limited") >= 5 and node.cell.get("refused") >= 10)


def test_transfers_are_bounded_and_paced_and_a_reader_that_leaves_frees_its_place(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, free_port(), transfers=1, mbytes_per_s=2.0)
    with serving(tmp_path, settings) as node, node.client() as client:
        folder = node.storage.folder_for("gate", T)
        (folder / f"gate_7_{T}_3000.mp4").write_bytes(os.urandom(3_000_000))
        path = f"/cameras/gate/clips/7/{T}.mp4"
        with client.stream("GET", path) as first:
            pieces = first.iter_raw(1000)
            next(pieces)
            with node.client() as second:
                assert second.get(path).status_code == 429
        began = time.monotonic()
        sizes: list[int] = []
        eventually(lambda: (answer := client.get(path)).status_code == 200 and not sizes.append(len(answer.content)))
        assert sizes == [3_000_000]
        assert time.monotonic() - began > 1.0, "3 MB at 2 MB/s"


def opened() -> set[str]:
    """Names of the files and connections that this process, in which the endpoint runs, has open."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(link.readlink()))
    return found


def test_a_client_that_takes_nothing_is_cut_off_also_at_the_last_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodeagent.capture.endpoint.transfer.SEND_PATIENCE_S", 0.3)
    monkeypatch.setattr(worker, "LIMITS", replace(worker.LIMITS, take_s=0.3))
    # One piece, and more than the kernel keeps for a client.
    monkeypatch.setattr("nodeagent.capture.endpoint.transfer.CHUNK", 1 << 24)
    with serving(tmp_path, settings_in(tmp_path, free_port(), transfers=1)) as node:
        (node.storage.folder_for("gate", T) / f"gate_7_{T}_3000.mp4").write_bytes(b"x" * 12_000_000)
        assert node.settings.endpoint is not None
        before = opened()
        with socket.create_connection(node.settings.endpoint.address) as slow:
            get = (
                f"GET /api/v1/cameras/gate/clips/7/{T}.mp4 HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            )
            slow.sendall(get.encode())
            ours = str(Path(f"/proc/self/fd/{slow.fileno()}").readlink())
            eventually(lambda: node.cell.get("transfers") == 1)
            eventually(lambda: node.cell.get("transfers") == 0)
            eventually(lambda: opened() - before == {ours})


def test_a_port_that_is_taken_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.infra.web.port.FIRST_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with serving(tmp_path, settings_in(tmp_path, port), up=False) as node:
            eventually(lambda: node.cell.current_state is State.LISTEN_FAILED)
            assert (row := node.cell.row(0.0)) is not None and row.detail == f"127.0.0.1:{port}: Address already in use"
            other.close()
            eventually(lambda: node.cell.current_state is State.RUNNING)
            with node.client() as client:
                assert client.get("/health").status_code == 200
    assert node.codes == [0]


def test_a_certificate_that_cannot_be_used_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    for cert in (bad, tmp_path / "gone.pem"):
        settings = settings_in(tmp_path, free_port(), tls_cert=str(cert), tls_key=str(bad))
        (fault,) = certificate_faults(settings.endpoint)
        assert str(fault).startswith("endpoint.tls_cert: the certificate and its key cannot be used: ")
        assert fault.value == repr(str(cert))
    peer = PeerSettings.model_validate({"node_id": "n", "url": "https://h:1", "token": TOKEN, "ca_file": bad})
    assert [fault.path for fault in certificate_faults(None, [peer])] == ["peers[0].ca_file"]
    with serving(tmp_path, settings, up=False) as node:
        eventually(lambda: node.errors)
        assert node.cell.current_state is State.LISTEN_FAILED


def test_a_stop_lets_a_transfer_end(tmp_path: Path) -> None:
    with serving(tmp_path, settings_in(tmp_path, free_port(), mbytes_per_s=2.0)) as node, node.client() as client:
        folder = node.storage.folder_for("gate", T)
        (folder / f"gate_7_{T}_3000.mp4").write_bytes(b"x" * 1_500_000)
        with client.stream("GET", f"/cameras/gate/clips/7/{T}.mp4") as answer:
            threading.Thread(target=node.stop.request).start()
            assert len(answer.read()) == 1_500_000
    assert node.codes == [0]
    assert node.cell.get("bytes") >= 1_500_000
