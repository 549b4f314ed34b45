"""URLs of Redis: which are taken, what they mean, and that a wrong one is refused without its password."""

from __future__ import annotations

import pytest

from nodeagent.contract.errors import ConfigError
from nodeagent.infra.redis import connect_redis
from nodeagent.infra.redis_url import FORM, SentinelAddress, check_redis_url, parse_sentinel

SENTINEL = "redis+sentinel://"


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("a/site", SentinelAddress((("a", 26379),), "site", 0, None, None)),
        ("a:1,b.example:65535/my-site/3", SentinelAddress((("a", 1), ("b.example", 65535)), "my-site", 3, None, None)),
        (":pw@10.0.0.1:26379/site/0/", SentinelAddress((("10.0.0.1", 26379),), "site", 0, None, "pw")),
        (
            "me:p%40s:s@[::1]:5000,[fe80::2]/s",
            SentinelAddress((("::1", 5000), ("fe80::2", 26379)), "s", 0, "me", "p@s:s"),
        ),
    ],
)
def test_a_sentinel_url_is_read(rest: str, expected: SentinelAddress) -> None:
    check_redis_url(SENTINEL + rest)
    found = parse_sentinel(SENTINEL + rest)
    assert found == expected
    assert not found.password or found.password not in repr(found)


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "/",
        ":hunter2@",
        ":hunter2@host:26379",
        ":hunter2@host:26379/",
        ":hunter2@host:0/site",
        ":hunter2@host:65536/site",
        ":hunter2@host:port/site",
        ":hunter2@host,/site",
        ":hunter2@host：26379/site",
        ":hunter2@host:26379/site/db",
        ":hunter2@host:26379/site/0/1",
        ":hunter2@more@host:26379/site",
        ":hunter2/@host:26379/site",
        ":hunter2@[::1/site",
        ":hunter2@host/site?db=0",
    ],
)
def test_a_wrong_sentinel_url_is_refused_without_its_password(rest: str) -> None:
    with pytest.raises(ValueError, match="expected redis://") as caught:
        check_redis_url(SENTINEL + rest)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError) as fault:
        connect_redis(SENTINEL + rest)
    assert FORM in str(fault.value)
    assert "hunter2" not in str(fault.value)


@pytest.mark.parametrize("url", ["http://host/0", "redis+sentinels://a/site", "rediss+sentinel://a/site", "redis://"])
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected redis://"):
        check_redis_url(url)
