"""The registry's client against answers that nobody would send on purpose."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nodeagent.contract.errors import ConfigError, Unavailable
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.files import write_atomically
from nodeagent.infra.registry_api import RegistryRefuses, said
from nodeagent.infra.settings.registry import RegistrySettings
from nodeagent.supervisor.link.client import RegistryClient
from nodeagent.supervisor.link.talk import skew

TOKEN = "t" * 40


class Answering:
    """A server that gives the same answer to everything.

    Attributes:
        status, body: the answer.
        tokens: what it was asked with.
    """

    def __init__(self) -> None:
        self.status, self.body = 200, b"[]"
        self.tokens: list[str] = []
        answering = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answering.tokens.append(self.headers["Authorization"])
                self.send_response(answering.status)
                self.send_header("Content-Length", str(len(answering.body)))
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()
                self.wfile.write(answering.body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def answering() -> Iterator[Answering]:
    made = Answering()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def client(url: str, **more: object) -> RegistryClient:
    given = {"urls": [url], "token": TOKEN} | more
    settings = RegistrySettings.model_validate({key: value for key, value in given.items() if value is not None})
    return RegistryClient(settings, "n1", SystemClock())


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b""), (200, b"{}"), (200, b"[1]"), (200, b"\xff"), (500, b"[]"), (503, b""), (302, b"[]"), (204, b"")],
)
def test_an_answer_that_is_none_takes_nothing_away(answering: Answering, status: int, body: bytes) -> None:
    answering.status, answering.body = status, body
    asking = client(answering.url)
    with pytest.raises(Unavailable) as caught:
        asking.cameras("a" * 16)
    assert "127.0.0.1" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    asking.close()


def test_a_row_that_cannot_be_read_spoils_no_other_and_tells_no_secret(answering: Answering) -> None:
    answering.body = (
        b'[{"camera": {"camera_id": "gate", "record": {"url": "a.mp4"}}, "version": 2, "epoch": 7, "new": 1},'
        b' {"camera": {"camera_id": "yard", "record": {"url": "rtsp://u:hunter2@"}}, "version": 2, "epoch": 7},'
        b' {"camera": {"camera_id": "dock", "record": {"url": "a.mp4"}}, "version": 0, "epoch": 7}, {"camera": "x"}]'
    )
    asking = client(answering.url)
    found = asking.cameras("a" * 16)
    assert (found.offers["gate"].version, found.offers["gate"].epoch, len(found.offers)) == (2, 7, 1)
    assert sorted(found.unfit) == ["?", "dock", "yard"]
    assert "camera.record.url" in found.unfit["yard"]
    assert "hunter2" not in str(found.unfit)
    asking.close()


def test_a_missing_route_is_no_word_on_a_camera(answering: Answering) -> None:
    asking = client(answering.url)
    answering.status, answering.body = 404, b'{"detail": "Not Found"}'
    with pytest.raises(RegistryRefuses, match="status 404: Not Found"):
        asking.owner("gate")
    answering.status, answering.body = 200, b"null"
    with pytest.raises(Unavailable):
        asking.owner("gate")
    answering.body = b'{"known": true, "owner": null}'
    assert asking.owner("gate").known
    asking.close()


def test_a_token_that_was_replaced_in_its_file_is_used(answering: Answering, tmp_path: Path) -> None:
    path, old, new = tmp_path / "token", "old" * 12, "new" * 12
    write_atomically(path, f"{old}\n".encode())
    asking = client(answering.url, token=None, token_file=path)
    asking.cameras("a" * 16)
    write_atomically(path, new.encode())
    asking.cameras("a" * 16)
    # A file that is gone, or holds none, takes nothing back.
    path.unlink()
    asking.cameras("a" * 16)
    write_atomically(path, b"two words")
    asking.cameras("a" * 16)
    assert answering.tokens == [f"Bearer {old}", *[f"Bearer {new}"] * 3]
    asking.close()


@pytest.mark.parametrize("content", [None, b"", b"two words", b"\xff"])
def test_a_token_file_that_holds_none_is_a_fault_of_the_configuration(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"registry\.token_file"):
        client("http://127.0.0.1:1", token=None, token_file=path)


def test_certificates_that_are_none_are_a_fault_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"registry\.ca_file"):
        client("https://127.0.0.1:1", ca_file=tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"detail": "no such node"}', "no such node"),
        (b'{"detail": [{"loc": ["body", "seq"], "msg": "too small"}]}', "seq: too small"),
        (b'{"detail": [{"msg": "odd"}]}', "odd"),
        (b'{"detail": {"a": 1}}', ""),
        (b'{"detail": "a\\u001b[31m\\nb"}', "a [31m b"),
        (b'{"detail": "' + b"x" * 999 + b'"}', "x" * 400),
        (b"<html>", ""),
    ],
)
def test_what_a_refusal_says(body: bytes, expected: str) -> None:
    assert said(body) == expected


@pytest.mark.parametrize(
    ("theirs_s", "expected"),
    [
        (100.5, ()),
        # Somewhere in the two seconds that the question took.
        (101.9, ()),
        (98.0, ("this host's clock is 2 s ahead of the registry's",)),
        (105.0, ("this host's clock is 3 s behind the registry's",)),
    ],
)
def test_clocks_that_differ(theirs_s: float, expected: tuple[str, ...]) -> None:
    assert skew(100 * 10**9, int(theirs_s * 10**9), 102 * 10**9) == expected
