"""One question to the registries over HTTP, for commands: the first one that answers it counts."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import click
import httpx

from nodeagent.contract.errors import AgentError, ConfigError, Fault, Unavailable

#: Where a registry listens when nobody says so.
DEFAULT_URL: Final = "http://127.0.0.1:8450"
#: Seconds to connect to a registry, and to wait for its answer.
CONNECT_S, READ_S = 2.0, 10.0
#: Where the API is.
PREFIX: Final = "/api/v1/"
#: Rows of a list that are asked for at a time.
PART_ROWS: Final = 1000
#: Longest sentence that is taken over from an answer, characters.
_SAID_MOST = 300

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Refusal(AgentError):
    """The registry understood and says no; the message is for a person."""


def remote_options(command: _Command) -> _Command:
    """Give a command the options that say which registries are asked, and with which token."""
    file = click.Path(dir_okay=False, path_type=Path)
    options = [
        click.option(
            "--url",
            "urls",
            multiple=True,
            envvar="REGISTRY_URL",
            show_envvar=True,
            default=(DEFAULT_URL,),
            show_default=True,
            help="A registry; may be given several times.",
        ),
        click.option("--token", envvar="REGISTRY_TOKEN", show_envvar=True, help="Your token."),
        click.option("--token-file", type=file, help="File that holds it instead."),
        click.option("--ca-file", type=file, help="Certificates to trust, PEM."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class Remote:
    """The registries, as one person asks them."""

    def __init__(self, urls: tuple[str, ...], token: str | None, token_file: Path | None, ca_file: Path | None) -> None:
        """Connects at the first question.

        Raises:
            ConfigError: there is no token, or a file cannot be read.
        """
        self._urls = [url.rstrip("/") for url in urls]
        headers = {"Authorization": f"Bearer {_token(token, token_file)}"}
        timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
        self._client = httpx.Client(headers=headers, timeout=timeout, verify=_trusted(ca_file), trust_env=False)

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, **params: str | int) -> dict[str, Any]:
        """Look at something under `/api/v1`.

        Raises:
            Unavailable: no registry could answer.
            Refusal: one refused.
        """
        return self._ask("GET", f"{PREFIX}{path}", params={name: str(value) for name, value in params.items()})

    def get_all(self, path: str, field: str, **params: str | int) -> list[dict[str, Any]]:
        """A whole list, part by part; `field` is where its rows are.  Raises as `get`."""
        found = self.get(path, limit=PART_ROWS, **params)
        rows = list(found.get(field, []))
        while (more := found.get("next")) is not None:
            found = self._ask("GET", str(more))
            rows += found.get(field, [])
        return rows

    def post(self, path: str, body: object = None) -> dict[str, Any]:
        """Have something done under `/api/v1`; raises as `get`."""
        return self._ask("POST", f"{PREFIX}{path}", json=body)

    def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        why = []
        for url in self._urls:
            try:
                answer = self._client.request(method, f"{url}{path}", **request)
            except (httpx.TransportError, httpx.InvalidURL) as exc:
                why.append(f"{_shown(url)}: {type(exc).__name__}")
                continue
            if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                # It does not lead, or something is away; another one may do.
                why.append(f"{_shown(url)}: {_said(answer)}")
                continue
            if answer.is_error:
                raise Refusal(_said(answer))
            return _document(answer)
        raise Unavailable("no registry could answer: " + "; ".join(why))


def _document(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unavailable("what answers is no registry")
    return found


def _said(answer: httpx.Response) -> str:
    """What a refusal says: its sentence, and a line for each faulty field."""
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return f"status {answer.status_code}"
    faults = found.get("faults", [])
    lines = [f"{fault.get('field')}: {fault.get('message')}" for fault in faults if isinstance(fault, dict)]
    said = [_printable(str(found.get("detail", ""))), *(f"  {_printable(line)}" for line in lines)]
    return "\n".join(said).strip() or f"status {answer.status_code}"


def _printable(text: str) -> str:
    # Another program's text must not write into the terminal what it likes.
    return "".join(c if c.isprintable() else " " for c in text)[:_SAID_MOST]


def _shown(url: str) -> str:
    """An address without user and password."""
    return url.rpartition("@")[2]


def _token(token: str | None, token_file: Path | None) -> str:
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError([Fault("--token-file", f"{token_file} cannot be read")]) from None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError([Fault("--token", "expected a token, as `registry token create` shows it")])
    return token


def _trusted(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError:
        raise ConfigError([Fault("--ca-file", f"{ca_file}: no certificates to trust")]) from None
