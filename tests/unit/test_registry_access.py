"""The registry remembers tokens: no request waits that need not, and no revoked token goes on for long."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from nodeagent.contract.errors import DecodeError, Unavailable
from registry.http import access
from registry.http.access import FRESH_S, TRUST_S, Doorkeeper, presented_in
from registry.tokens import Bearer, Presented, Role, token_of


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ns(self) -> int:
        return int(self.now_s * 1e9)


class Store:
    """Knows some tokens; counts how often it is asked."""

    def __init__(self) -> None:
        self.bearers: dict[str, Bearer] = {}
        self.asked = 0
        self.away = False
        self.broken = False
        self.noted: list[Mapping[str, int]] = []

    def bearer_of(self, presented: Presented) -> Bearer | None:
        self.asked += 1
        self._here()
        return self.bearers.get(presented.text)

    def used(self, when_ns: Mapping[str, int]) -> None:
        self._here()
        self.noted.append(dict(when_ns))

    def _here(self) -> None:
        if self.away:
            raise Unavailable("database: token: away")
        if self.broken:
            raise DecodeError("table token: role: not one of ours")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def keeper(store: Store, clock: Clock) -> Doorkeeper:
    return Doorkeeper(store, clock)


def token(store: Store, number: int = 1, *, good: bool = True) -> Presented:
    presented = token_of(bytes([number]) * 40)
    if good:
        store.bearers[presented.text] = Bearer(token_id=presented.token_id, name=f"t{number}", role=Role.VIEWER)
    return presented


def test_only_a_token_of_ours_in_its_own_scheme_is_one() -> None:
    text = token_of(bytes(40)).text
    assert presented_in(f"Bearer {text}") == presented_in(f"bearer  {text} ") == token_of(bytes(40))
    for header in ("", text, f"Basic {text}", "Bearer", f"Bearer {text}x", f"Bearer {text.upper()}"):
        assert presented_in(header) is None


def test_a_token_is_looked_up_once_then_behind_and_waited_for_when_it_was_not_in_use(
    keeper: Doorkeeper, store: Store, clock: Clock
) -> None:
    good = token(store)
    assert keeper.remembered(good) is None
    bearer = keeper.look_up(good)
    known = keeper.remembered(good)
    assert known is not None
    assert known.bearer == bearer
    clock.now_s += FRESH_S
    assert not keeper.wants_look_up(known)
    clock.now_s += 1
    assert keeper.wants_look_up(known)
    assert not keeper.wants_look_up(known), "one look-up at a time"
    keeper.look_up(good)
    known = keeper.remembered(good)
    assert known is not None
    assert not keeper.wants_look_up(known)
    clock.now_s += TRUST_S + 1
    assert keeper.remembered(good) is None
    assert store.asked == 2


def test_a_token_that_was_revoked_elsewhere_is_let_in_no_more_after_the_next_look(
    keeper: Doorkeeper, store: Store
) -> None:
    good = token(store)
    keeper.look_up(good)
    store.bearers.clear()
    assert keeper.remembered(good) is not None
    assert keeper.look_up(good) is None
    assert keeper.remembered(good) is None
    assert keeper.is_wrong(good)


def test_a_token_that_was_revoked_here_is_let_in_no_more_at_once(keeper: Doorkeeper, store: Store) -> None:
    revoked, other = token(store, 1), token(store, 2)
    for each in (revoked, other):
        keeper.look_up(each)
    keeper.forget(revoked.token_id)
    assert keeper.remembered(revoked) is None
    assert keeper.remembered(other) is not None


def test_while_the_database_is_away_who_was_let_in_stays_in(keeper: Doorkeeper, store: Store, clock: Clock) -> None:
    good, late = token(store, 1), token(store, 2)
    keeper.look_up(good)
    store.away = True
    for _ in range(5):
        clock.now_s += TRUST_S + 1
        bearer = keeper.look_up(good)
        assert bearer is not None
        known = keeper.remembered(good)
        assert known is not None
        # A look-up that failed is one: it is not tried again with every request.
        assert not keeper.wants_look_up(known)
    with pytest.raises(Unavailable):
        keeper.look_up(late)
    assert not keeper.is_wrong(late)


def test_a_look_up_that_fails_in_an_odd_way_is_made_again(keeper: Doorkeeper, store: Store, clock: Clock) -> None:
    good = token(store)
    keeper.look_up(good)
    clock.now_s += FRESH_S + 1
    store.broken = True
    for _ in range(3):
        known = keeper.remembered(good)
        assert known is not None
        assert keeper.wants_look_up(known)
        with pytest.raises(DecodeError):
            keeper.look_up(good)
    store.broken = False
    store.bearers.clear()
    assert keeper.look_up(good) is None, "revoked meanwhile: it is let in no longer"
    assert keeper.remembered(good) is None


def test_wrong_tokens_cost_one_question_and_push_no_good_one_out(
    keeper: Doorkeeper, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "WRONG_MAX", 3)
    good = token(store)
    keeper.look_up(good)
    wrong = [token(store, number, good=False) for number in range(2, 8)]
    for each in wrong:
        assert keeper.look_up(each) is None
    assert [keeper.is_wrong(each) for each in wrong] == [False] * 3 + [True] * 3
    assert keeper.remembered(good) is not None
    clock.now_s += FRESH_S
    assert not keeper.is_wrong(wrong[-1])


def test_the_token_that_was_not_used_for_longest_is_forgotten_first(
    keeper: Doorkeeper, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "GOOD_MAX", 2)
    first, second, third = (token(store, number) for number in (1, 2, 3))
    keeper.look_up(first)
    keeper.look_up(second)
    keeper.remembered(first)
    keeper.look_up(third)
    assert [keeper.remembered(each) is not None for each in (first, second, third)] == [True, False, True]


def test_uses_are_noted_once_and_kept_while_they_cannot_be(keeper: Doorkeeper, store: Store, clock: Clock) -> None:
    good = token(store)
    keeper.look_up(good)
    store.away = True
    with pytest.raises(Unavailable):
        keeper.write_uses()
    clock.now_s += 1
    keeper.remembered(good)
    store.away = False
    keeper.write_uses()
    keeper.write_uses()
    assert store.noted == [{good.token_id: clock.wall_ns()}, {}]
