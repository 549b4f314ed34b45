"""What every request passes: who asks, how often, one line in the log, one count on the board.

The log names the token by its name and the address without its query, where a link's signature stands.
"""

from __future__ import annotations

import logging
from collections import Counter
from http import HTTPStatus
from threading import Lock

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from nodeagent.capture.endpoint.access import Doorkeeper
from nodeagent.capture.endpoint.buckets import Clients
from nodeagent.infra.clock import Clock
from nodeagent.infra.web.problems import CHALLENGE, Problem, Seen, answer_of

log = logging.getLogger(__name__)

#: Wrong tokens of one address, per second and at once: guessing is hopeless anyway, this keeps it from costing much.
WRONG_PER_S, WRONG_AT_ONCE = 1.0, 10.0
#: Characters of an address in the log.
PATH_MAX = 200
#: Where the gate leaves the caller's token's name for the routes, None for who shows none; and where these leave the
#: name of the token that a good link was made with.
CALLER, LINK = "nodeagent.caller", "nodeagent.link"


class Tally:
    """Counts of the server's thread, collected by the one that owns the status board's cell."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, name: str, count: int = 1) -> None:
        """Count `count` more."""
        with self._lock:
            self._counts[name] += count

    def drain(self) -> dict[str, int]:
        """What was counted since the last time."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return dict(counts)


class Gate:
    """An ASGI application around the other."""

    def __init__(self, app: ASGIApp, doorkeeper: Doorkeeper, per_s: float, tally: Tally, clock: Clock) -> None:
        self._app = app
        self._doorkeeper = doorkeeper
        self._clients = Clients(per_s, 2 * per_s)
        self._wrong = Clients(WRONG_PER_S, WRONG_AT_ONCE)
        self._tally = tally
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen, began_s, note = Seen(send), self._clock.monotonic_s(), ""
        address = scope["client"][0] if scope["client"] else "?"
        given = Headers(scope=scope).get("authorization")
        caller = scope[CALLER] = self._doorkeeper.holder(given) if given else None
        refusal = self._refusal(address, caller, wrong=given is not None and caller is None)
        try:
            await (answer_of(refusal) if refusal else self._app)(scope, receive, seen)
        except ConnectionAbortedError as exc:
            # The connection is closed by the server, as the answer is not complete.
            note = str(exc)
        except Exception:
            log.exception("request failed", extra={"event": "request_failed"})
            note = "failed"
            self._tally.add("failed")
            if not seen.status:
                problem = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "failed: see the node's log")
                await answer_of(problem)(scope, receive, seen)
        finally:
            who = caller or (f"link of {scope[LINK]}" if LINK in scope else address)
            self._account(scope, seen, who, began_s, note)

    def _refusal(self, address: str, caller: str | None, *, wrong: bool) -> Problem | None:
        """Why the request is not looked at."""
        now_s = self._clock.monotonic_s()
        if wrong:
            wait_s = self._wrong.take(address, now_s)
            if not wait_s:
                return Problem(HTTPStatus.UNAUTHORIZED, "this token is not known", (), CHALLENGE)
        else:
            wait_s = self._clients.take(f"token {caller}" if caller else f"address {address}", now_s)
        return too_many(wait_s, "too many requests") if wait_s else None

    def _account(self, scope: Scope, seen: Seen, who: str, began_s: float, note: str) -> None:
        self._tally.add("requests")
        self._tally.add("bytes", seen.size)
        if seen.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            self._tally.add("refused")
        if seen.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._tally.add("limited")
        # Percent-encoded as it came, so that nothing in it can begin a line of its own.
        path = scope.get("raw_path", b"").decode("ascii", "replace")[:PATH_MAX]
        took_ms = round((self._clock.monotonic_s() - began_s) * 1000)
        log.info(
            "%s %s by %s: %d, %d bytes, %d ms%s",
            scope["method"],
            path,
            who,
            seen.status,
            seen.size,
            took_ms,
            f" ({note})" if note else "",
            extra={"event": "request", "status": int(seen.status), "by": who},
        )


def too_many(wait_s: float, detail: str) -> Problem:
    """Told to come back after so many seconds, whole ones."""
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"Retry-After": str(max(1, round(wait_s + 0.5)))})
