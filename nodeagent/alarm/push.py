"""One HTTP request to one target.

The time-out is for all of it: an answer that drips in cannot hold a thread.  Redirects are not followed (the body
would go to somebody whom nobody configured), and of the answer only the first few kilobytes are read.  Neither URL nor
secret gets into a record, and no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from functools import cache
from typing import Final

import httpx

from nodeagent.alarm.payload import KEY_HEADER, SIGNATURE_HEADER, signature
from nodeagent.infra.alarm_records import PushRow
from nodeagent.infra.clock import Clock
from nodeagent.infra.settings.sections import PushSettings

#: Of an answer's body no more is read, bytes.
ANSWER_MAX: Final = 4096
#: Longest error text in a record, characters.
ERROR_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    text: str


def send(target: PushSettings, key: str, body: bytes, clock: Clock) -> PushRow:
    """POST the body once.  Never raises for what the other side does: that is in the result."""
    started_ns, started_s = clock.wall_ns(), clock.monotonic_s()
    status, error = None, ""
    try:
        answer = asyncio.run(_post(target, key, body))
        status = answer.status
        if not 200 <= status < 300:
            error = f"HTTP {status}" + (f": {answer.text}" if answer.text else "")
    except TimeoutError:
        error = f"no answer within {target.timeout_s:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ssl.SSLError, OSError, ValueError) as exc:
        error = _cause(exc)
    duration_ms = round((clock.monotonic_s() - started_s) * 1000)
    return PushRow(target.name, started_ns, duration_ms, status, not error, _clean(error, target))


async def _post(target: PushSettings, key: str, body: bytes) -> _Answer:
    headers = {"Content-Type": "application/json", KEY_HEADER: key, "User-Agent": "nodeagent"}
    if target.secret.get_secret_value():
        headers[SIGNATURE_HEADER] = signature(body, target.secret.get_secret_value())
    async with (
        asyncio.timeout(target.timeout_s),
        httpx.AsyncClient(verify=_trust(), trust_env=False, follow_redirects=False, timeout=None) as client,  # noqa: S113
        client.stream("POST", target.url.get_secret_value(), content=body, headers=headers) as response,
    ):
        text = b""
        if not response.is_success:
            async for chunk in response.aiter_raw():
                text += chunk
                if len(text) >= ANSWER_MAX:
                    break
        return _Answer(response.status_code, text[:ANSWER_MAX].decode("utf-8", "replace"))


@cache
def _trust() -> ssl.SSLContext:
    """The certificates that are trusted; read once, it takes tens of milliseconds."""
    return httpx.create_ssl_context(trust_env=False)


def _cause(error: Exception) -> str:
    """What went wrong by its kind only: a library's text may hold the URL."""
    deepest: BaseException = error
    while (inner := deepest.__cause__ or deepest.__context__) is not None:
        deepest = inner
    if isinstance(deepest, ssl.SSLCertVerificationError):
        return f"certificate refused: {deepest.verify_message}"
    if isinstance(deepest, OSError) and deepest.strerror:
        return f"{type(error).__name__}: {deepest.strerror}"
    return type(error).__name__


def _clean(text: str, target: PushSettings) -> str:
    """One short printable line without the target's secrets, should an answer repeat them."""
    line = "".join(c if c.isprintable() else " " for c in text)
    for secret in (target.secret.get_secret_value(), target.url.get_secret_value(), *_url_secrets(target)):
        if secret:
            line = line.replace(secret, "***")
    return line[:ERROR_MAX].strip()


def _url_secrets(target: PushSettings) -> tuple[str, ...]:
    try:
        url = httpx.URL(target.url.get_secret_value())
    except httpx.InvalidURL:
        # Nobody was asked by it, so nobody can repeat a part of it.
        return ()
    return url.password, url.query.decode("utf-8", "replace")
