"""`[endpoint]` and `[[peers]]` as a person writes them, well and badly; no token in what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.contract.errors import ConfigError
from nodeagent.infra.settings.loader import parse_settings

TOKEN = "0123456789abcdef" * 2
HERE = Path("/etc/nodeagent/nodeagent.toml")


def endpoint(more: str = "", listen: str = "0.0.0.0:8440", token: str = TOKEN) -> str:
    return f'[endpoint]\nlisten = "{listen}"\ntokens = [{{ name = "nodes", token = "{token}" }}]\n{more}\n'


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, HERE)
    assert "hunter2" not in str(caught.value) and TOKEN not in str(caught.value)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("0.0.0.0:8440", ("0.0.0.0", 8440)),
        ("[::1]:443", ("::1", 443)),
        ("node-1.site:8440", ("node-1.site", 8440)),
    ],
)
def test_an_endpoint_that_is_well(listen: str, address: tuple[str, int]) -> None:
    settings = parse_settings(endpoint('tls_cert = "node.pem"\ntls_key = "/keys/node.key"', listen), HERE)
    assert settings.endpoint is not None
    assert settings.endpoint.address == address
    assert (settings.endpoint.tls_cert, settings.endpoint.tls_key) == (
        Path("/etc/nodeagent/node.pem"),
        Path("/keys/node.key"),
    )
    assert TOKEN not in repr(settings) and TOKEN not in settings.model_dump_json()


@pytest.mark.parametrize("listen", ["8440", "0.0.0.0", "0.0.0.0:0", "0.0.0.0:65536", "http://0.0.0.0:8440", "::1:8440"])
def test_an_address_that_is_none(listen: str) -> None:
    (fault,) = faults(endpoint(listen=listen))
    assert fault.startswith("endpoint.listen: expected `address:port`, such as 0.0.0.0:8440 or [::]:8440")


@pytest.mark.parametrize("token", ["hunter2", "hunter2 " * 5, "hunter2ä" * 5])
def test_a_token_that_is_none_is_not_quoted(token: str) -> None:
    (fault,) = faults(endpoint(token=token))
    assert fault.startswith("endpoint.tokens[0].token: expected")


def test_tokens_written_as_texts_are_not_quoted() -> None:
    found = faults('[endpoint]\nlisten = "0.0.0.0:1"\ntokens = ["hunter2-hunter2"]\n')
    assert found == ["endpoint.tokens[0]: expected a table: { key = value, ... }"]
    assert faults('[endpoint]\nlisten = "0.0.0.0:1"\ntoken = "hunter2"\n')
    assert faults('[endpoint]\nlisten = "0.0.0.0:1"\ntokens = []\n') == [
        "endpoint.tokens: expected at least 1 items, not 0"
    ]


def test_what_contradicts_is_named() -> None:
    token = f'{{name = "a", token = "{TOKEN}"}}'
    twice = f'[endpoint]\nlisten = "0.0.0.0:1"\ntokens = [{token}, {token}]\n'
    assert faults(twice) == ["endpoint.tokens[1].name: taken by endpoint.tokens[0]; expected another (got 'a')"]
    assert faults(endpoint('tls_cert = "a.pem"')) == ["endpoint.tls_key: required with tls_cert, but missing"]
    assert faults(endpoint('tls_key = "a.key"')) == ["endpoint.tls_cert: required with tls_key, but missing"]


def test_peers() -> None:
    peer = f'[[peers]]\nnode_id = "n2"\nurl = "https://10.0.0.2:8440"\ntoken = "{TOKEN}"\nca_file = "ca.pem"\n'
    (known,) = parse_settings(peer, HERE).peers
    assert known.ca_file == Path("/etc/nodeagent/ca.pem")
    assert faults(peer + peer) == ["peers[1].node_id: taken by peers[0]; expected another (got 'n2')"]
    (fault,) = faults(peer.replace("https://", "ftp://user:hunter2@"))
    assert fault.startswith("peers[0].url: expected http://host:8440 or https://host:8440")
