"""`[endpoint]` and `[[peers]]`: how this node serves its clips, and where the other nodes serve theirs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from nodeagent.contract.ids import FrozenStrict, ModelName, NodeId, Number, Whole
from nodeagent.contract.url import check_url

#: Least length of a token, characters: `openssl rand -hex 16` gives as many.
TOKEN_LEAST = 32
#: What a header takes without quoting.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]*")
_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:/@\[\]]+)):([0-9]{1,5})")


def checked_token(token: SecretStr) -> SecretStr:
    """The token, long enough and fit for a header.

    Raises:
        ValueError: it is not.
    """
    text = token.get_secret_value()
    if len(text) < TOKEN_LEAST or not _TOKEN.fullmatch(text):
        raise ValueError(
            f"expected at least {TOKEN_LEAST} letters, digits, `.`, `_`, `~`, `+`, `/`, `=` or `-`,"
            " such as `openssl rand -hex 32` gives"
        )
    return token


def checked_listen(listen: str) -> str:
    """The `address:port` to listen on.

    Raises:
        ValueError: it is none.
    """
    match = _LISTEN.fullmatch(listen)
    if match is None or not 1 <= int(match[3]) <= 65_535:
        raise ValueError("expected `address:port`, such as 0.0.0.0:8440 or [::]:8440")
    return listen


def address_of(listen: str) -> tuple[str, int]:
    """Host and port of an `address:port`."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


class TokenSettings(FrozenStrict):
    """`[[endpoint.tokens]]`: one token that opens the clip endpoint.  Take it out, and restart, to revoke it."""

    #: Who has it; stands in the access log and in the links made with it.
    name: ModelName
    #: The token, at least 32 characters.
    token: SecretStr

    _token = field_validator("token")(checked_token)


class EndpointSettings(FrozenStrict):
    """`[endpoint]`: serves this node's clips over HTTP.  Left out: nothing listens."""

    #: `address:port` to listen on, such as `0.0.0.0:8440` or `[::]:8440`.
    listen: str
    #: Who may ask.
    tokens: Annotated[tuple[TokenSettings, ...], Field(min_length=1)]
    #: Certificate chain, PEM; with `tls_key` HTTPS is spoken, and nothing else.
    tls_cert: Path | None = None
    #: Key of the certificate, PEM, without a password.
    tls_key: Path | None = None
    #: Requests of one token, or of one address without one, per second; twice as many at once.
    requests_per_s: Annotated[Number, Field(gt=0, le=10_000)] = 50.0
    #: Clips, and as many playlists, that are sent at a time; further ones are told to come back.
    transfers: Annotated[Whole, Field(ge=1, le=1000)] = 16
    #: Bytes sent per second by all transfers together, MB: the rest of the disks and of the network is recording's.
    mbytes_per_s: Annotated[Number, Field(gt=0, le=10_000)] = 50.0

    _listen = field_validator("listen")(checked_listen)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        return address_of(self.listen)


class PeerSettings(FrozenStrict):
    """`[[peers]]`: another node's clip endpoint, where this node fetches clips that lie there."""

    #: The other node's `node_id`.
    node_id: NodeId
    #: http://host:8440 or https://host:8440.
    url: SecretStr
    #: One of the tokens in its `[endpoint]`.
    token: SecretStr
    #: Certificates to trust, PEM, when its certificate is none that the system trusts.
    ca_file: Path | None = None

    _token = field_validator("token")(checked_token)

    @field_validator("url")
    @classmethod
    def _http(cls, url: SecretStr) -> SecretStr:
        check_url(url.get_secret_value(), "http://host:8440 or https://host:8440", ("http", "https"))
        return url
