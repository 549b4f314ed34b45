"""Connections to Redis, with the same timeouts and errors for everyone.

The URL may hold a password: it is never logged and never part of an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from nodeagent.contract.errors import ConfigError, Fault, Unavailable
from nodeagent.infra.redis_url import FORM, SENTINEL, SentinelAddress, parse_sentinel

#: Seconds that connecting may take: a Redis on the same network answers in milliseconds or not at all.
CONNECT_TIMEOUT_S = 2.0
#: Seconds that an answer may take; more than any blocking read that this project makes.
ANSWER_TIMEOUT_S = 5.0
#: A connection unused for so many seconds is tried with a PING first, so that a restart of Redis costs nobody an error.
HEALTH_CHECK_S = 10
#: Seconds that one Sentinel may take to connect or to answer: the next one is asked then, and of three two may be away.
SENTINEL_TIMEOUT_S = 1.0


def connect_redis(url: str) -> redis.Redis:
    """A client for `redis://`, `rediss://`, `unix://` or `redis+sentinel://`.

    It connects at its first command and anew when needed; behind Sentinel, to whichever server leads by then.
    Protocol 2 always: under protocol 3 several answers have another shape.

    Raises:
        ConfigError: that is no such URL.
    """
    try:
        if url.startswith(SENTINEL):
            return _behind_sentinel(parse_sentinel(url))
        return redis.Redis.from_url(url, **_options())
    except ValueError:
        # The library's message may quote the URL.
        raise ConfigError([Fault("redis.url", f"expected {FORM}")]) from None


def _options() -> dict[str, Any]:
    return {
        "protocol": 2,
        "decode_responses": False,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": ANSWER_TIMEOUT_S,
        "health_check_interval": HEALTH_CHECK_S,
        # One try more, for pooled connections that a restarted server has closed.
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }


def _behind_sentinel(address: SentinelAddress) -> redis.Redis:
    asked = {
        "protocol": 2,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
    }
    untyped: Any = Sentinel
    sentinels = untyped(list(address.hosts), sentinel_kwargs=asked)
    client: redis.Redis = sentinels.master_for(
        address.service, db=address.db, username=address.user, password=address.password, **_options()
    )
    return client


@contextmanager
def translated(what: str = "") -> Iterator[None]:
    """Turn Redis' and the socket's errors into Unavailable; `what` says what was tried."""
    try:
        yield
    except (RedisError, OSError) as exc:
        tried = f" {what}" if what else ""
        raise Unavailable(f"redis:{tried}: {type(exc).__name__}: {exc}") from exc
