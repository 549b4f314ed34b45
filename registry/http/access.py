"""Who asks: tokens in a header, looked up in the database and remembered for a while.

A report comes every second from every node, so no request waits for the database whose token was looked up not long
ago; it is looked up again behind the request.  While the database is away whoever was let in stays in: all nodes that
fall silent at once would be worse, and nobody can revoke a token meanwhile.

The easy mistake: to remember the tokens themselves.  What is remembered is their hashes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nodeagent.contract.errors import DecodeError, Unavailable
from nodeagent.infra.clock import Clock
from registry.tokens import Bearer, Presented, parse_token

#: Seconds after which a token is looked up again, behind the request: how long a revoked one may go on here.
FRESH_S = 30.0
#: Seconds after which a request waits for that: its token was not in use, so nothing hangs on it.
TRUST_S = 90.0
#: Tokens that are remembered, good ones and wrong ones: more than a site has nodes and people.
GOOD_MAX, WRONG_MAX = 20_000, 1_000

_Value = TypeVar("_Value")


class TokenStore(Protocol):
    """What is asked of the store; both may raise Unavailable."""

    def bearer_of(self, presented: Presented) -> Bearer | None:
        """Whom a token belongs to; None when it is none of ours, or revoked."""
        ...

    def used(self, when_ns: Mapping[str, int]) -> None:
        """Write down when tokens were used last, by their ids."""
        ...


@dataclass(slots=True)
class Pass:
    """A token that is remembered.

    Attributes:
        asked_s: when the database was last asked, monotonic seconds.
        asking: it is being asked.
    """

    bearer: Bearer
    asked_s: float
    asking: bool = False


def presented_in(header: str) -> Presented | None:
    """The token in an `Authorization` header; None when there is none of a registry's form."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        return parse_token(given.strip())
    except DecodeError:
        return None


class Doorkeeper:
    """Knows who has which token.  Any thread may call any method."""

    def __init__(self, tokens: TokenStore, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock
        self._lock = threading.Lock()
        self._good: OrderedDict[str, Pass] = OrderedDict()
        self._wrong: OrderedDict[str, float] = OrderedDict()
        self._used_ns: dict[str, int] = {}

    def remembered(self, presented: Presented) -> Pass | None:
        """What is remembered of a token without asking anybody; None: ask (`look_up`)."""
        key, now_s = presented.sha256, self._clock.monotonic_s()
        with self._lock:
            known = self._good.get(key)
            if known is None or now_s - known.asked_s > TRUST_S:
                return None
            self._good.move_to_end(key)
            self._use(known.bearer)
            return known

    def is_wrong(self, presented: Presented) -> bool:
        """Whether it was looked up not long ago, and is none."""
        with self._lock:
            asked_s = self._wrong.get(presented.sha256)
        return asked_s is not None and self._clock.monotonic_s() - asked_s < FRESH_S

    def wants_look_up(self, known: Pass) -> bool:
        """Whether a token that is remembered is to be looked up again now; says so once."""
        with self._lock:
            due = not known.asking and self._clock.monotonic_s() - known.asked_s > FRESH_S
            known.asking = known.asking or due
        return due

    def look_up(self, presented: Presented) -> Bearer | None:
        """Ask the database whose token it is; None: nobody's.

        Raises:
            Unavailable: it is away, and the token was not seen before.
        """
        key = presented.sha256
        try:
            bearer = self._tokens.bearer_of(presented)
        except Unavailable:
            with self._lock:
                known = self._good.get(key)
                if known is None:
                    raise
                known.asked_s = self._clock.monotonic_s()
                return known.bearer
        finally:
            # Whatever came of it: a token that is being asked for ever would never be asked for again.
            with self._lock:
                if key in self._good:
                    self._good[key].asking = False
        now_s = self._clock.monotonic_s()
        with self._lock:
            if bearer is None:
                self._good.pop(key, None)
                _remember(self._wrong, key, now_s, WRONG_MAX)
            else:
                _remember(self._good, key, Pass(bearer, now_s), GOOD_MAX)
                self._use(bearer)
        return bearer

    def forget(self, token_id: str) -> None:
        """A token was revoked: let it in no more, at once."""
        with self._lock:
            for key in [key for key, known in self._good.items() if known.bearer.token_id == token_id]:
                del self._good[key]

    def write_uses(self) -> None:
        """Write down when tokens were used since the last time.

        Raises:
            Unavailable: the database is away; the next call writes them.
        """
        with self._lock:
            used, self._used_ns = self._used_ns, {}
        try:
            self._tokens.used(used)
        except Unavailable:
            with self._lock:
                self._used_ns = used | self._used_ns
            raise

    def _use(self, bearer: Bearer) -> None:
        self._used_ns[bearer.token_id] = self._clock.wall_ns()


def _remember(known: OrderedDict[str, _Value], key: str, value: _Value, most: int) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)
