"""Where Redis is, as a person writes it: one server, a local socket, or a service that Sentinel watches.

Pure.  Nothing that is raised here quotes the URL, which may hold a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from nodeagent.contract.url import bad_url, check_url

#: What a URL of Redis may look like.
FORM: Final = (
    "redis://:password@host:6379/0, rediss://... for TLS, unix:///path, or "
    "redis+sentinel://:password@host:26379,host:26379/service/0"
)
#: Scheme of a service that Sentinel watches.
SENTINEL: Final = "redis+sentinel://"
#: Port of a Sentinel whose port is not given.
SENTINEL_PORT: Final = 26379

_SENTINEL = re.compile(
    r"redis\+sentinel://"
    r"(?:(?P<user>[^:@/?#\s]*)(?::(?P<password>[^@/?#\s]*))?@)?"
    r"(?P<hosts>[^@/?#\s]+)/(?P<service>[A-Za-z0-9_.-]+)(?:/(?P<db>[0-9]{1,4}))?/?"
)
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """A service and the Sentinels that know its server.

    Attributes:
        hosts: name and port of each Sentinel.
        service: what they call the service.
        user: of the Redis servers; Sentinels are asked without one.
        password: of the Redis servers.
    """

    hosts: tuple[tuple[str, int], ...]
    service: str
    db: int
    user: str | None
    password: str | None = field(repr=False)


def check_redis_url(url: str) -> None:
    """Check a URL of Redis.

    Raises:
        PydanticCustomError: it is none.
    """
    if url.startswith(SENTINEL):
        parse_sentinel(url)
    else:
        check_url(url, FORM, ("redis", "rediss", "unix"))


def parse_sentinel(url: str) -> SentinelAddress:
    """The parts of a `redis+sentinel://` URL.

    Raises:
        PydanticCustomError: it is none.
    """
    found = _SENTINEL.fullmatch(url)
    hosts = [_host(text) for text in found["hosts"].split(",")] if found else []
    if found is None or None in hosts:
        raise bad_url(FORM)
    return SentinelAddress(
        hosts=tuple(host for host in hosts if host is not None),
        service=found["service"],
        db=int(found["db"] or 0),
        user=unquote(found["user"] or "") or None,
        password=unquote(found["password"] or "") or None,
    )


def _host(text: str) -> tuple[str, int] | None:
    found = _HOST.fullmatch(text)
    if found is None:
        return None
    port = int(found["port"] or SENTINEL_PORT)
    return (found["name"].strip("[]"), port) if 0 < port < 65536 else None
