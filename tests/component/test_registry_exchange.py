"""What registries tell each other over a real Redis."""

from __future__ import annotations

from typing import Any

import pytest

from nodeagent.infra.redis import connect_redis
from registry.core.exchange import ENTRIES_MOST, STREAM_KEY, Entry, Exchange
from registry.member import NodePhase
from tests.support.registry_nodes import Agent


@pytest.fixture
def client(redis_url: str) -> Any:
    made: Any = connect_redis(redis_url)
    yield made
    made.close()


def exchange(client: Any, name: str) -> Exchange:
    return Exchange(client, name, f"life-of-{name}")


def test_each_hears_once_what_the_others_told(client: Any) -> None:
    one, other, third = (exchange(client, name) for name in ("r1", "r2", "r3"))
    report = Agent("n1").report(1.0)
    assert one.swap([report], {"n1": NodePhase.LIVE}).entries == ()
    for reader in (other, third):
        (entry,) = reader.swap([], None).entries
        assert (entry.registry_id, entry.leads, entry.phases) == ("r1", True, {"n1": NodePhase.LIVE})
        assert entry.reports == (report,)
        assert reader.swap([], None).entries == ()
    assert one.swap([], None).entries == (), "nobody hears himself"
    # Who has nothing to tell adds nothing, and what is added is bounded.
    assert client.xlen(STREAM_KEY) == 1
    for _ in range(ENTRIES_MOST + 10):
        one.swap([report], None)
    assert client.xlen(STREAM_KEY) == ENTRIES_MOST
    assert client.pttl(STREAM_KEY) > 0


def test_old_entries_and_strange_ones_are_skipped_and_a_flush_is_no_end(client: Any) -> None:
    one, other = exchange(client, "r1"), exchange(client, "r2")
    seconds, _ = client.time()
    client.xadd(STREAM_KEY, {"e": b"?"}, id=f"{(seconds - 60) * 1000}-1")
    report = Agent("n1").report(1.0)
    one.swap([report], None)
    client.xadd(STREAM_KEY, {"e": b"not ours"})
    client.xadd(STREAM_KEY, {"other": b""})
    assert [entry.registry_id for entry in other.swap([], None).entries] == ["r1"]
    client.flushall()
    one.swap([report], None)
    assert [entry.registry_id for entry in other.swap([], None).entries] == ["r1"]


def test_reports_that_lay_for_long_say_nothing_of_now(client: Any) -> None:
    one, other = exchange(client, "r1"), exchange(client, "r2")
    one.swap([Agent("n1").report(1.0)], None)
    ((number, fields),) = client.xrange(STREAM_KEY)
    client.delete(STREAM_KEY)
    client.xadd(STREAM_KEY, fields, id=f"{int(number.split(b'-')[0]) - 10_000}-0")
    assert other.swap([], None).entries == ()


def test_what_a_registry_told_itself_is_not_read_again(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, read = exchange(client, "r1"), exchange(client, "r2"), Exchange._read
    one.swap([Agent("n1").report(1.0)], None)
    other.swap([Agent("n2").report(1.0)], None)
    bodies: list[bytes] = []

    def counted(self: Exchange, body: bytes) -> Entry | None:
        bodies.append(body)
        return read(self, body)

    monkeypatch.setattr(Exchange, "_read", counted)
    assert [entry.registry_id for entry in one.swap([], None).entries] == ["r2"]
    assert len(bodies) == 1
