"""What every request passes: who asks, how large it is, and what of it stands in the log.

The log has a line for each change that somebody made, and one for each refusal of its kind: an agent whose token is
wrong is refused every second and told of once.  A report that is taken, and a page that is looked at, have none.  Who
asks is named by the token's name; an address is written without its query, a body never.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from http import HTTPStatus
from threading import Lock

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from nodeagent.contract.errors import AgentError
from nodeagent.infra.clock import Clock
from nodeagent.infra.web.problems import CHALLENGE, Problem, Seen, answer_of, stranger
from registry.http.access import Doorkeeper, presented_in
from registry.http.problems import SAID, failure, problem_of
from registry.tokens import Bearer, Presented

log = logging.getLogger(__name__)

#: Tokens that are looked up in the database at a time: guessing must not keep the routes from it.
LOOK_UPS_MOST = 4
#: Seconds after which a refusal of the same kind is told of again, and kinds that are remembered.
TOLD_S, TOLD_MAX = 600.0, 2_000
#: Refusals that are one kind whatever the address is: whoever tries all of them gets one line.
_ANYWHERE = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})
_ADDRESS = re.compile(r"[A-Za-z0-9/_.-]{0,200}")
#: Largest body of any request, bytes; routes take less (`body.JsonBody`).
BODY_MOST_BYTES = 32_000_000
#: Where the gate leaves the caller for the routes; None for who shows no token.
CALLER = "registry.caller"


class Gate:
    """An ASGI application around the other."""

    def __init__(self, app: ASGIApp, doorkeeper: Doorkeeper, clock: Clock) -> None:
        self._app = app
        self._doorkeeper = doorkeeper
        self._clock = clock
        self._told = Told(clock)
        self._limiter = CapacityLimiter(LOOK_UPS_MOST)
        self._behind: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = Seen(send)
        try:
            await self._serve(scope, receive, seen)
        except ClientDisconnect:
            # Nobody is there to be told.
            scope[SAID] = "the client went away"
        except Exception:
            log.exception("request failed", extra={"event": "request_failed"})
            if not seen.status:
                await failure()(scope, receive, seen)
        finally:
            self._account(scope, seen.status)

    async def _serve(self, scope: Scope, receive: Receive, send: Seen) -> None:
        headers = Headers(scope=scope)
        try:
            scope[CALLER] = await self._caller(headers)
            _check_length(headers)
        except AgentError as exc:
            problem = problem_of(exc, conditional=False)
            scope[SAID] = problem.detail
            await answer_of(problem)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _caller(self, headers: Headers) -> Bearer | None:
        """Who asks; None for who shows no token.

        Raises:
            Problem: the token is none of ours.
            Unavailable: nobody can say.
        """
        given = headers.get("authorization")
        if given is None:
            return None
        presented = presented_in(given)
        if presented is None:
            raise stranger()
        known = self._doorkeeper.remembered(presented)
        if known is not None:
            if self._doorkeeper.wants_look_up(known):
                self._look_up_behind(presented)
            return known.bearer
        found = None if self._doorkeeper.is_wrong(presented) else await self._look_up(presented)
        if found is None:
            raise Problem(HTTPStatus.UNAUTHORIZED, "this token is not known, or was revoked", (), CHALLENGE)
        return found

    async def _look_up(self, presented: Presented) -> Bearer | None:
        return await to_thread.run_sync(self._doorkeeper.look_up, presented, limiter=self._limiter)

    def _look_up_behind(self, presented: Presented) -> None:
        async def again() -> None:
            try:
                await self._look_up(presented)
            except Exception as exc:
                # The next request asks again; one line says what keeps all of them from it.
                if self._told.first(("token_failed", type(exc))):
                    log.exception("a token cannot be looked up", extra={"event": "token_failed"})

        task = asyncio.ensure_future(again())
        # Somebody has to hold it until it is done.
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    def _account(self, scope: Scope, status: int) -> None:
        method = scope["method"]
        refused = status >= HTTPStatus.BAD_REQUEST
        if not refused and (method in ("GET", "HEAD") or scope.get("path", "").endswith("/report")):
            return
        caller: Bearer | None = scope.get(CALLER)
        who = caller.name if caller else f"address {scope['client'][0] if scope['client'] else '?'}"
        path = _plain(scope.get("path", ""))
        kind = (who, method, status) if status in _ANYWHERE else (who, method, status, path)
        if refused and not self._told.first(kind):
            return
        said = f" ({scope[SAID]})" if SAID in scope else ""
        level = logging.WARNING if refused and status != HTTPStatus.NOT_FOUND else logging.INFO
        log.log(
            level, "%s %s by %s: %d%s", method, path, who, status, said,
            extra={"event": "request", "status": int(status), "by": who},
        )  # fmt: skip


def _plain(path: str) -> str:
    """An address as far as ids go: what follows may be a URL with a password, in the place of a camera's id."""
    found = _ADDRESS.match(path)
    return path if found is not None and found[0] == path else f"{found[0] if found is not None else ''}..."


class Told:
    """What was told of not long ago; any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._at_s: OrderedDict[object, float] = OrderedDict()

    def first(self, what: object) -> bool:
        """Whether this is the first of its kind for a while."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            last_s = self._at_s.get(what)
            if last_s is not None and now_s - last_s < TOLD_S:
                return False
            self._at_s[what] = now_s
            self._at_s.move_to_end(what)
            if len(self._at_s) > TOLD_MAX:
                self._at_s.popitem(last=False)
            return True


def too_large(most: int) -> Problem:
    """The answer to a body that is larger than what is read."""
    detail = f"expected a body of at most {most} bytes"
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, (), {"Connection": "close"})


def _check_length(headers: Headers) -> None:
    given = headers.get("content-length", "")
    if given.isdecimal() and int(given[:20]) > BODY_MOST_BYTES:
        raise too_large(BODY_MOST_BYTES)
