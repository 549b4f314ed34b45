"""The errors that this project raises on purpose, named for what the caller must do.

A library's own errors stop at the adapter that wraps it and leave it as one of these.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class AgentError(Exception):
    """Base of every error that this project raises on purpose."""


class Unavailable(AgentError):
    """A peer is away.  Retry later; nothing is wrong with the request."""


class Refused(AgentError):
    """The broker took the message and refused it (full, no route).  Try another way or later; the link is fine."""


class Fenced(AgentError):
    """A newer owner exists.  Stop; never retry."""


class DecodeError(AgentError):
    """Bytes that are not a message of ours.  Never retry; dead-letter them."""

    def __init__(self, why: str, body: bytes = b"") -> None:
        super().__init__(f"{why}: {body[:80]!r}" if body else why)
        self.why = why
        self.body = body


class BadMedia(AgentError):
    """A clip or stream that cannot be decoded as told.  Retrying the same bytes does not help."""


class BadModel(AgentError):
    """A model file or description that cannot serve.  The message names the file, the field and what was expected."""


class StorageUnavailable(AgentError):
    """No disk of the pool can be written now (missing marker, full, read-only).  Retry later."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the configuration.

    Attributes:
        path: dotted path of the field, for example `cameras[2].rules[0].zones[0].polygon`.
        message: what was expected.
        value: what stands there, already free of secrets; empty when the field is missing.
    """

    path: str
    message: str
    value: str = ""

    def __str__(self) -> str:
        got = f" (got {self.value})" if self.value else ""
        return f"{self.path}: {self.message}{got}"


class ConfigError(AgentError):
    """The configuration is unusable.  Lists every fault, not just the first."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))
