"""The registry's HTTP API, as an agent uses it.

Any of the registries will do.  One that answered is asked again, so that an agent's reports do not wander; one that
does not answer, or is in trouble, makes way for the next, within the same call.  The bearer token is never part of an
error, and neither is an address.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Literal

import httpx
from pydantic import TypeAdapter, ValidationError

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import AgentError, ConfigError, Fault, Unavailable
from nodeagent.contract.ids import CameraId, Epoch, Frozen
from nodeagent.contract.ownership import AgentReport, Owner, ReportAnswer, Version
from nodeagent.infra.clock import Clock
from nodeagent.infra.settings.registry import RegistrySettings
from nodeagent.supervisor.link.reconcile import Offer

#: Seconds to connect, and to wait for an answer: a report goes out every second, and its silence counts after four.
CONNECT_S, READ_S = 1.0, 2.0
#: A list of cameras may be long, seconds.
LIST_READ_S = 10.0
#: Longest answer that is read, bytes: ten thousand cameras with their rules.
ANSWER_MOST_BYTES = 64_000_000
#: Answers that are the request's fault: no other registry would say anything else.
_REFUSALS: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
#: Longest sentence that is taken over from an answer, characters.
_SAID_MOST = 160


class RegistryRefuses(AgentError):
    """The registry understood and says no.  The message is for a person; asking again helps when something changed.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"status {status}: {why}" if why else f"status {status}")
        self.status = status


class _Listed(Frozen):
    """One camera of a node's list; with epoch 0 one that it may claim."""

    camera: CameraSpec
    version: Version
    epoch: Epoch | Literal[0]


class Whereabouts(Frozen):
    """What a registry says of one camera.

    Attributes:
        known: whether there is such a camera.  Said in so many words: an answer of another kind must end nothing.
        owner: who owns it; none when nobody does.
    """

    known: bool
    owner: Owner | None = None


_LIST: Final = TypeAdapter(list[dict[str, Any]])


@dataclass(frozen=True, slots=True)
class Listing:
    """A node's cameras as a registry lists them.

    Attributes:
        offers: by camera.
        unfit: cameras whose configuration this agent cannot read, with the reason.
    """

    offers: dict[CameraId, Offer]
    unfit: dict[str, str]


class RegistryClient:
    """Asks the registries; for one thread."""

    def __init__(self, settings: RegistrySettings, node_id: str, clock: Clock) -> None:
        """Connects at the first call.

        Raises:
            ConfigError: the token or the certificates cannot be read.
        """
        self._settings = settings
        self._node_id = node_id
        self._clock = clock
        self._urls = [url.get_secret_value().rstrip("/") for url in settings.urls]
        self._at = 0
        self._token = _token_of(settings)
        self._client = httpx.Client(
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
            verify=_trusted(settings.ca_file),
            # No proxy of the environment: the registries of a site are its own network.
            trust_env=False,
            follow_redirects=False,
        )

    def report(self, report: AgentReport) -> ReportAnswer:
        """Report, and take the answer.

        Raises:
            Unavailable: no registry answered as it should.
            RegistryRefuses: one refused the report.
        """
        answer = self._ask("POST", f"nodes/{self._node_id}/report", body=report.model_dump_json().encode())
        try:
            return ReportAnswer.model_validate_json(answer.content)
        except ValidationError:
            raise Unavailable("the registry's answer to a report cannot be read") from None

    def cameras(self, incarnation: str) -> Listing:
        """The cameras that this life of the node is to serve, with credentials; with strategy `claim` also those that
        it may claim.

        Raises:
            Unavailable: no registry answered as it should.
            RegistryRefuses: one refused to tell.
        """
        path = f"nodes/{self._node_id}/cameras"
        params = {"incarnation": incarnation, "strategy": self._settings.strategy}
        answer = self._ask("GET", path, params=params, read_s=LIST_READ_S)
        try:
            rows = _LIST.validate_json(answer.content)
        except ValidationError:
            raise Unavailable("the registry's list of cameras cannot be read") from None
        return _listing(rows)

    def owner(self, camera_id: CameraId) -> Whereabouts:
        """Who owns a camera.

        Raises:
            Unavailable: no registry answered as it should.
            RegistryRefuses: one refused to tell.
        """
        answer = self._ask("GET", f"cameras/{camera_id}/owner")
        try:
            return Whereabouts.model_validate_json(answer.content)
        except ValidationError:
            raise Unavailable("the registry's word on an owner cannot be read") from None

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        params: dict[str, str] | None = None,
        read_s: float = READ_S,
    ) -> httpx.Response:
        """Ask the registry that answered last, then the others; each once.

        Raises:
            Unavailable: none answered as it should.
            RegistryRefuses: one refused.
        """
        why = ""
        for _ in self._urls:
            try:
                answer = self._once(method, f"{self._urls[self._at]}/api/v1/{path}", body, params, read_s)
            except (httpx.TransportError, ssl.SSLError, httpx.InvalidURL) as exc:
                # Its text may hold the address.
                why = type(exc).__name__
            else:
                status = answer.status_code
                if status == HTTPStatus.OK:
                    return answer
                if status in _REFUSALS:
                    if status == HTTPStatus.UNAUTHORIZED:
                        self._renew_token()
                    raise RegistryRefuses(status, said(answer.content))
                why = f"status {status}"
            self._at = (self._at + 1) % len(self._urls)
        others = f", nor do {len(self._urls) - 1} others" if len(self._urls) > 1 else ""
        raise Unavailable(f"the registry does not answer ({why}){others}")

    def _once(
        self, method: str, url: str, body: bytes | None, params: dict[str, str] | None, read_s: float
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        timeout = httpx.Timeout(read_s, connect=CONNECT_S)
        # The time-out counts between two bytes; a registry that drips must not hold a report up for ever either.
        end_s = self._clock.monotonic_s() + CONNECT_S + read_s
        with self._client.stream(method, url, content=body, params=params, headers=headers, timeout=timeout) as answer:
            taken = bytearray()
            for piece in answer.iter_bytes():
                taken += piece
                if len(taken) > ANSWER_MOST_BYTES or self._clock.monotonic_s() > end_s:
                    raise httpx.ReadError("too long")
        return httpx.Response(answer.status_code, content=bytes(taken))

    def _renew_token(self) -> None:
        """The token may have been replaced in its file."""
        try:
            self._token = _token_of(self._settings)
        except ConfigError:
            return


def said(body: bytes) -> str:
    """What a refusal says, in one line: the field's message where a field is named.

    It is another program's text, so only printable characters are taken, and not many.
    """
    try:
        found = TypeAdapter(dict[str, Any]).validate_json(body).get("detail", "")
    except ValidationError:
        return ""
    if isinstance(found, list) and found and isinstance(found[0], dict):
        where = ".".join(str(part) for part in found[0].get("loc", ()) if part != "body")
        found = f"{where}: {found[0].get('msg', '')}" if where else found[0].get("msg", "")
    text = found if isinstance(found, str) else ""
    return "".join(c if c.isprintable() else " " for c in text)[:_SAID_MOST]


def _listing(rows: Sequence[dict[str, Any]]) -> Listing:
    """The rows, each by itself: one that a newer registry fills with what this agent does not know spoils no other."""
    listing = Listing({}, {})
    for row in rows:
        camera = row.get("camera")
        name = str(camera.get("camera_id", "?")) if isinstance(camera, dict) else "?"
        try:
            listed = _Listed.model_validate(row)
        except ValidationError as exc:
            # Without the value: it may be a stream's URL.
            error = exc.errors(include_url=False, include_input=False)[0]
            listing.unfit[name] = f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
        else:
            camera_id = listed.camera.camera_id
            listing.offers[camera_id] = Offer(listed.camera, listed.version, listed.epoch)
    return listing


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


def _trusted(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as exc:
        raise ConfigError([Fault("registry.ca_file", f"{ca_file}: no certificates to trust: {exc.strerror}")]) from None
