"""The registries' HTTP API, as agents and commands use it.

Any of the registries will do.  One that answered is asked again, so that an agent's reports do not wander; one that
does not answer, or is in trouble, makes way for the next, within the same call.  So what changes something may be sent
twice, which the API allows.  The bearer token is never part of an error, and neither is an address.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
from pydantic import TypeAdapter, ValidationError

from nodeagent.contract.errors import AgentError, ConfigError, Fault, Unavailable
from nodeagent.infra.clock import Clock
from nodeagent.infra.settings.registry import RegistrySettings

#: Where the API is.
PREFIX: Final = "/api/v1/"
#: Seconds to connect, and to wait for an answer: a report goes out every second, and its silence counts after four.
CONNECT_S, READ_S = 1.0, 2.0
#: Longest answer that is read, bytes: ten thousand cameras with their rules.
ANSWER_MOST_BYTES = 64_000_000
#: Rows of a list that are asked for at a time: as many as the registry gives.
PART_ROWS: Final = 1000
_DONE: Final = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT})
#: Answers that are the request's fault: no other registry would say anything else.
_REFUSALS: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.PRECONDITION_FAILED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.PRECONDITION_REQUIRED,
    }
)
#: Longest sentence that is taken over from an answer, characters: what is to be done stands at its end.
_SAID_MOST: Final = 400
#: Longest name of a faulty field, characters.
_FIELD_MOST: Final = 160
#: Most faulty fields that are taken over.
_FAULTS_MOST: Final = 50
_OBJECT: Final = TypeAdapter(dict[str, Any])


class RegistryRefuses(AgentError):
    """The registry understood and says no.  The message is for a person; asking again helps when something changed.

    Attributes:
        status: HTTP status.
        why: what it says, one line.
        faults: fields of the request that are wrong, with what was expected.
    """

    def __init__(self, status: int, why: str, faults: Iterable[Fault] = ()) -> None:
        super().__init__(f"status {status}: {why}" if why else f"status {status}")
        self.status = status
        self.why = why
        self.faults = tuple(faults)


class RegistryApi:
    """Asks the registries; any thread."""

    def __init__(self, settings: RegistrySettings, clock: Clock) -> None:
        """Connects at the first call.

        Raises:
            ConfigError: the token or the certificates cannot be read.
        """
        self._settings = settings
        self._clock = clock
        self._urls = [url.get_secret_value().rstrip("/") for url in settings.urls]
        self._at = 0
        self._stamp, self._token = _stamp_of(settings), _token_of(settings)
        self._client = httpx.Client(
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
            verify=_trusted(settings.ca_file),
            # No proxy of the environment: the registries of a site are its own network.
            trust_env=False,
            follow_redirects=False,
        )

    def __enter__(self) -> RegistryApi:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        params: Mapping[str, str] | None = None,
        read_s: float = READ_S,
    ) -> bytes:
        """Ask the registry that answered last, then the others; each once.

        Args:
            method: of HTTP.
            path: behind `/api/v1/`.
            body: JSON.
            params: of the query.
            read_s: how long the whole answer may take, seconds.

        Raises:
            Unavailable: none answered as it should.
            RegistryRefuses: one refused.
        """
        why: list[str] = []
        # A number of its own: threads that fail at once at the same registry must not step over the next one.
        at = self._at
        for _ in self._urls:
            try:
                answer = self._once(method, f"{self._urls[at]}{PREFIX}{path}", body, params, read_s)
            except (httpx.RequestError, ssl.SSLError, httpx.InvalidURL) as exc:
                # Its text may hold the address.
                why.append(type(exc).__name__)
            else:
                if answer.status_code in _DONE | _REFUSALS:
                    self._at = at
                if answer.status_code in _DONE:
                    return answer.content
                if answer.status_code in _REFUSALS:
                    raise RegistryRefuses(answer.status_code, said(answer.content), faults_in(answer.content))
                why.append(": ".join(filter(None, (f"status {answer.status_code}", said(answer.content)))))
            at = (at + 1) % len(self._urls)
        others = f", nor do {len(self._urls) - 1} others" if len(self._urls) > 1 else ""
        raise Unavailable(f"the registry does not answer ({'; '.join(dict.fromkeys(why))}){others}")

    def document(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        params: Mapping[str, str] | None = None,
        read_s: float = READ_S,
    ) -> dict[str, Any]:
        """As `ask`, where the answer is a JSON object."""
        return _document(self.ask(method, path, body=body, params=params, read_s=read_s))

    def rows(
        self, path: str, *, params: Iterable[tuple[str, str]] = (), read_s: float = READ_S
    ) -> Iterator[dict[str, Any]]:
        """All rows of a list, part by part to the end; their place in an answer is named as the path ends.

        `params` may name one twice.  Raises as `ask` does, in the middle of the list, too.
        """
        name, query = path.rpartition("/")[2], f"?{urlencode([('limit', str(PART_ROWS)), *params])}"
        seen = set()
        while query not in seen:
            seen.add(query)
            found = self.document("GET", path + query, read_s=read_s)
            listed = found.get(name)
            if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
                raise Unavailable(f"the registry's list of {name} cannot be read")
            yield from listed
            if found.get("next") is None:
                return
            query = _query_of(found["next"])
        raise Unavailable(f"the registry's list of {name} has no end")

    def _once(
        self, method: str, url: str, body: bytes | None, params: Mapping[str, str] | None, read_s: float
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._current_token()}", "Content-Type": "application/json"}
        timeout = httpx.Timeout(read_s, connect=CONNECT_S)
        # The time-out counts between two bytes; a registry that drips must not hold a report up for ever either.
        end_s = self._clock.monotonic_s() + CONNECT_S + read_s
        with self._client.stream(
            method, url, content=body, params=params or None, headers=headers, timeout=timeout
        ) as answer:
            taken = bytearray()
            for piece in answer.iter_bytes():
                taken += piece
                if len(taken) > ANSWER_MOST_BYTES or self._clock.monotonic_s() > end_s:
                    raise httpx.ReadError("too long")
        return httpx.Response(answer.status_code, content=bytes(taken))

    def _current_token(self) -> str:
        """The token, which may have been replaced in its file; as it was while the file holds none."""
        stamp = _stamp_of(self._settings)
        if stamp != self._stamp:
            with suppress(ConfigError):
                self._token, self._stamp = _token_of(self._settings), stamp
        return self._token


def said(body: bytes) -> str:
    """What a refusal says, in one line: the field's message where a field is named."""
    found = _object(body).get("detail", "")
    if isinstance(found, list) and found and isinstance(found[0], dict):
        where = ".".join(str(part) for part in found[0].get("loc", ()) if part != "body")
        found = f"{where}: {found[0].get('msg', '')}" if where else found[0].get("msg", "")
    return _line(found, _SAID_MOST)


def faults_in(body: bytes) -> list[Fault]:
    """The fields that a refusal names, with what was expected (RFC 9457)."""
    listed = _object(body).get("faults")
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    return [
        Fault(_line(row.get("field"), _FIELD_MOST), _line(row.get("message"), _SAID_MOST))
        for row in rows[:_FAULTS_MOST]
    ]


def _line(text: object, most: int) -> str:
    """Another program's text: only printable characters are taken, and not many."""
    return "".join(c if c.isprintable() else " " for c in text)[:most] if isinstance(text, str) else ""


def _object(body: bytes) -> dict[str, Any]:
    try:
        return _OBJECT.validate_json(body)
    except ValidationError:
        return {}


def _document(body: bytes) -> dict[str, Any]:
    try:
        return _OBJECT.validate_json(body)
    except ValidationError:
        raise Unavailable("the registry's answer cannot be read") from None


def _query_of(address: object) -> str:
    """The query of the next part's address.  Its path is not followed: no answer says where the token is sent."""
    try:
        return f"?{urlencode(parse_qsl(urlsplit(str(address)).query))}"
    except ValueError:
        raise Unavailable("the registry's address of a next part cannot be read") from None


def _token_of(settings: RegistrySettings) -> str:
    """The token, from the configuration or from its file.

    Raises:
        ConfigError: the file cannot be read, or holds none.
    """
    if settings.token is not None:
        return settings.token.get_secret_value()
    path = settings.token_file or Path()
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "not ASCII"
        raise ConfigError([Fault("registry.token_file", f"{path} cannot be read: {why}")]) from None
    if not token.isprintable() or not token or " " in token:
        raise ConfigError([Fault("registry.token_file", f"{path}: expected one token")])
    return token


def _stamp_of(settings: RegistrySettings) -> tuple[int, int] | None:
    """What changes when the token's file does; None where there is none."""
    if settings.token_file is None:
        return None
    try:
        info = settings.token_file.stat()
    except OSError:
        return None
    return info.st_ino, info.st_mtime_ns


def _trusted(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as exc:
        raise ConfigError([Fault("registry.ca_file", f"{ca_file}: no certificates to trust: {exc.strerror}")]) from None
