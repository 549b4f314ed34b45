"""Clips of other nodes: fetched whole over a network that breaks, refused when they are not what was promised."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nodeagent.contract.clip import ClipId
from nodeagent.contract.errors import BadMedia, Unavailable
from nodeagent.infra.clip_client import ClipClient, ConfiguredPeers
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.settings.endpoint import PeerSettings
from tests.support.eventually import eventually
from tests.support.inference import DEMO, make_bench
from tests.support.serving import NODE, TOKEN, Serving, T, free_port, serving, settings_in

CLIP = ClipId(camera_id="gate", epoch=7, start_ns=T)
BODY = os.urandom(3_000_000)


def peers(url: str, token: str = TOKEN, ca_file: Path | None = None) -> ConfiguredPeers:
    row = {"node_id": NODE, "url": url, "token": token, "ca_file": ca_file}
    return ConfiguredPeers([PeerSettings.model_validate(row)])


def store(node: Serving, body: bytes = BODY) -> None:
    (node.storage.folder_for("gate", T) / f"gate_7_{T}_3000.mp4").write_bytes(body)


def fetched(client: ClipClient, clip: ClipId = CLIP) -> bytes:
    with client.fetched(NODE, clip, "record") as path:
        return path.read_bytes()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path / "n2", settings_in(tmp_path / "n2", free_port())) as running:
        store(running)
        yield running


def test_a_clip_comes_whole_and_its_file_goes(node: Serving, tmp_path: Path) -> None:
    folder = tmp_path / "fetched"
    folder.mkdir()
    (folder / "left by a kill").write_text("x")
    client = ClipClient(peers(node.origin), folder, SystemClock())
    assert not folder.exists()
    beats: list[int] = []
    with client.fetched(NODE, CLIP, "record", lambda: beats.append(1)) as path:
        assert path.read_bytes() == BODY
    assert beats and list(folder.iterdir()) == []
    with pytest.raises(BadMedia, match="not on node n2 either"):
        fetched(client, CLIP.model_copy(update={"epoch": 8}))
    with pytest.raises(Unavailable, match="node n3, where it lies, is not known"), client.fetched("n3", CLIP, "record"):
        pytest.fail("fetched from nowhere")
    client.close()
    stranger = ClipClient(peers(node.origin, "w" * 32), folder, SystemClock())
    with pytest.raises(Unavailable, match="refuses the token"):
        fetched(stranger)
    stranger.close()
    assert list(folder.iterdir()) == []


class Peer:
    """A server that answers the n-th request as the n-th plan says: how much of the body to send, and how."""

    def __init__(self, plans: list[str]) -> None:
        self.plans = plans
        self.asked: list[str | None] = []


@contextmanager
def broken_peer(*plans: str) -> Iterator[tuple[str, Peer]]:
    peer = Peer(list(plans))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            plan = peer.plans.pop(0) if peer.plans else "whole"
            asked = self.headers["Range"]
            peer.asked.append(asked)
            first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if plan == "busy":
                self.send_response(429)
                self.send_header("Retry-After", "1")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if plan == "changed":
                first, asked = 0, None
            shift = 1 if plan == "other part" else 0
            total = 1 << 40 if plan == "huge" else len(BODY)
            self.send_response(206 if asked else 200)
            self.send_header("ETag", '"2"' if plan == "other state" else '"1"')
            if plan != "no length":
                self.send_header("Content-Length", str(total - first))
            if asked:
                self.send_header("Content-Range", f"bytes {first + shift}-{total - 1}/{total}")
            self.end_headers()
            end = first + 1_000_000 if plan == "cut" else len(BODY)
            self.wfile.write(BODY[first:end])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", peer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("plans", "asked"),
    [
        (("cut", "cut"), [None, "bytes=1000000-", "bytes=2000000-"]),
        (("cut", "changed"), [None, "bytes=1000000-"]),
        (("cut", "other part"), [None, "bytes=1000000-", None]),
        (("cut", "other state"), [None, "bytes=1000000-", None]),
        (("busy",), [None, None]),
        (("no length",), [None, None]),
    ],
)
def test_a_transfer_that_breaks_goes_on_where_it_was(
    plans: tuple[str, ...], asked: list[str | None], tmp_path: Path
) -> None:
    with broken_peer(*plans) as (url, peer):
        client = ClipClient(peers(url), tmp_path / "fetched", SystemClock())
        assert fetched(client) == BODY
        client.close()
    assert peer.asked == asked


def test_a_clip_that_is_too_long_or_never_whole_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.infra.clip_client.PAUSE_MOST_S", 0.05)
    with broken_peer("huge") as (url, peer):
        client = ClipClient(peers(url), tmp_path / "fetched", SystemClock())
        with pytest.raises(BadMedia, match="expected at most 240000000"):
            fetched(client)
        peer.plans += ["busy"] * 5
        with pytest.raises(Unavailable, match="status 429, 5 times"):
            fetched(client)
        client.close()
    assert list((tmp_path / "fetched").iterdir()) == []


def test_a_node_that_is_away_is_not_asked_for_a_while(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        client = ClipClient(peers(url), tmp_path / "fetched", SystemClock())
        with pytest.raises(Unavailable, match=r"node n2 does not answer \(ConnectError\)"):
            fetched(client)
        probe.listen()
        with pytest.raises(Unavailable, match=r"node n2 does not answer$"):
            fetched(client)
        client.close()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "n2")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / "node.pem", folder / "node.key"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return cert, secret


def test_over_tls_a_node_is_believed_by_its_certificate_alone(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    settings = settings_in(tmp_path / "n2", free_port(), tls_cert=cert, tls_key=key)
    with serving(tmp_path / "n2", settings) as node:
        store(node, b"clip")
        url = node.origin.replace("http:", "https:")
        trusting = ClipClient(peers(url, ca_file=cert), tmp_path / "fetched", SystemClock())
        assert fetched(trusting) == b"clip"
        trusting.close()
        wary = ClipClient(peers(url), tmp_path / "fetched", SystemClock())
        with pytest.raises(Unavailable, match="does not answer"):
            fetched(wary)
        wary.close()


_KILLED = """
import sys
from pathlib import Path
from nodeagent.contract.clip import ClipId
from nodeagent.infra.clip_client import ClipClient, ConfiguredPeers
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.settings.endpoint import PeerSettings
url, token, folder, start_ns = sys.argv[1:]
peer = PeerSettings(node_id="n2", url=url, token=token)
client = ClipClient(ConfiguredPeers([peer]), Path(folder), SystemClock())
with client.fetched("n2", ClipId(camera_id="gate", epoch=7, start_ns=start_ns), "record"):
    print("there", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_swept_by_the_next(node: Serving, tmp_path: Path) -> None:
    folder = tmp_path / "fetched"
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED, node.origin, TOKEN, str(folder), str(T)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None and child.stdout.readline() == b"there\n"
        child.kill()
    assert len(list(folder.iterdir())) == 1
    ClipClient(peers(node.origin), folder, SystemClock())
    assert not folder.exists()


def test_a_clip_of_another_node_is_analysed_as_one_of_this_node(tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "n1", [DEMO / "person_demo.toml"])
    settings = settings_in(tmp_path / "n2", free_port())
    peer = {"node_id": NODE, "url": f"http://{settings.endpoint.listen}" if settings.endpoint else "", "token": TOKEN}
    known = bench.ctx.settings.model_copy(update={"peers": (PeerSettings.model_validate(peer),)})
    bench.ctx = dataclasses.replace(bench.ctx, settings=known)
    clips = bench.cut(DEMO / "crossing.mp4", gops=1, clips=2)
    here, there, nowhere = (bench.task(clip) for clip in (clips[0], clips[0], clips[1]))
    there, nowhere = (task.model_copy(update={"node_id": NODE}) for task in (there, nowhere))
    with bench.running():
        bench.offer(here)
        bench.settled(1)
        # From now on the clips lie on the other node only.
        shutil.copytree(tmp_path / "n1" / "pool", tmp_path / "n2" / "pool")
        shutil.rmtree(tmp_path / "n1" / "pool" / "clips")
        with serving(tmp_path / "n2", settings) as node:
            bench.offer(there)
            bench.settled(2)
            eventually(lambda: node.cell.get("bytes") > 0)
        bench.offer(nowhere)
        bench.settled(3)
    bench.close()
    first, second, third = bench.bus.published
    assert (second.header.path, len(second.rows) > 5) == ("clip", True)
    assert np.array_equal(first.rows, second.rows)
    assert (third.header.path, third.header.reason) == (
        "none",
        "clip cannot be read: node n2 does not answer (ConnectError)",
    )
    assert list((tmp_path / "n1" / "state" / "fetched" / "inference-0").iterdir()) == []
