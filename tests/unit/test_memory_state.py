"""What only the in-memory state of ownership does: it goes on while Redis is away, and reads its own clock."""

from __future__ import annotations

import pytest

from nodeagent.contract.errors import Fenced, Unavailable
from nodeagent.contract.ownership import Broadcast
from registry.memory_state import MemoryLeader, MemoryState
from tests.support.fake_processes import TurnedClock

LIFE = "0" * 16


def test_a_broadcast_that_cannot_be_sent_undoes_nothing() -> None:
    asked: list[Broadcast] = []

    def away(broadcast: Broadcast) -> None:
        asked.append(broadcast)
        raise Unavailable("redis: publish")

    clock = TurnedClock()
    leader = MemoryLeader(clock)
    state = MemoryState(leader, clock, away)
    term = leader.acquire("one")
    assert term is not None
    owner = state.grant(term, "cam", "n1", LIFE)
    assert state.owned_by("n1", LIFE) == {"cam": owner}
    assert state.evict(term, "cam", owner)
    assert state.pool() == ["cam"]
    assert [b.told for b in asked] == ["granted", "stop", "pooled"]


def test_a_clock_that_stands_or_goes_back_makes_no_epoch_twice() -> None:
    clock = TurnedClock()
    leader = MemoryLeader(clock)
    state = MemoryState(leader, clock, lambda _: None)
    epochs = []
    for now_s in (100.0, 100.0, 99.5, 99.6):
        clock.now_s = now_s
        term = leader.acquire("one")
        assert term is not None
        epochs.append(state.grant(term, "cam", f"n{len(epochs)}", LIFE).epoch)
    assert epochs == [100_001, 100_002, 100_003, 100_004]


def test_a_term_ends_by_the_clock() -> None:
    clock = TurnedClock()
    leader = MemoryLeader(clock)
    state = MemoryState(leader, clock, lambda _: None)
    term = leader.acquire("one", ttl_ms=1000)
    assert term is not None
    clock.now_s += 0.9
    assert state.offer(term, ["cam"]) == 1
    clock.now_s += 0.2
    with pytest.raises(Fenced):
        state.offer(term, ["cam-2"])
    assert leader.acquire("two") is not None
    assert not leader.renew(term)
