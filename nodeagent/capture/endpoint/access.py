"""Who may ask for what: tokens in a header, and links for players that cannot set one.  Pure.

A link is the right to see one stream of one camera over one time range until it expires.  It is signed with a key that
is made from the token that asked for it, so it falls with that token, needs no memory here, and the token itself
stands in no address and no log.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from nodeagent.contract.clip import StreamName
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.settings.endpoint import TokenSettings

#: What a link's key is made for: the same token never signs anything else with it.
_PURPOSE = b"nodeagent clip link v1"
#: Characters of a signature: 160 bits.
_SIGNATURE_LENGTH = 40


@dataclass(frozen=True, slots=True)
class Scope:
    """What a link shows.

    Attributes:
        camera_id: whose clips.
        stream: which of the camera's streams.
        from_ns: first instant, UTC ns.
        to_ns: where it ends, UTC ns; None for one that goes on.
    """

    camera_id: str
    stream: StreamName
    from_ns: int
    to_ns: int | None

    def covers(self, start_ns: int, end_ns: int) -> bool:
        """Whether a clip lies in it, at least in part."""
        return end_ns > self.from_ns and (self.to_ns is None or start_ns < self.to_ns)


@dataclass(frozen=True, slots=True)
class Ticket:
    """The signed part of a link.

    Attributes:
        key: name of the token that it was made with.
        expires_s: seconds since 1970, UTC, at which it ends.
        signature: over all of it and its scope.
    """

    key: str
    expires_s: int
    signature: str


class Doorkeeper:
    """Knows the tokens, and who has them."""

    def __init__(self, tokens: Sequence[TokenSettings]) -> None:
        self._tokens = {item.name: item.token.get_secret_value().encode() for item in tokens}

    def holder(self, header: str) -> str | None:
        """Name of the token in an `Authorization` header; None when it is none of ours."""
        scheme, _, given = header.partition(" ")
        if scheme.lower() != "bearer":
            return None
        found = None
        # All are compared, so that the time it takes says nothing of which one is nearly right.
        for name, token in self._tokens.items():
            if hmac.compare_digest(token, given.strip().encode()):
                found = name
        return found

    def ticket(self, key: str, scope: Scope, expires_s: int) -> Ticket:
        """Sign a scope with the token of this name."""
        return Ticket(key, expires_s, self._signature(self._tokens[key], key, scope, expires_s))

    def admits(self, ticket: Ticket, scope: Scope, now_ns: int) -> str:
        """Why the ticket does not open this scope; empty when it does."""
        token = self._tokens.get(ticket.key)
        if token is None:
            return "the token that this link was made with is not known any more"
        good = self._signature(token, ticket.key, scope, ticket.expires_s)
        if not hmac.compare_digest(good.encode(), ticket.signature.encode()):
            return "the link was changed, or is for another camera or time"
        return "" if now_ns < ticket.expires_s * NS_PER_S else "the link has expired"

    @staticmethod
    def _signature(token: bytes, key: str, scope: Scope, expires_s: int) -> str:
        own = hmac.digest(token, _PURPOSE, hashlib.sha256)
        signed = (key, scope.camera_id, scope.stream, scope.from_ns, scope.to_ns or "", expires_s)
        text = "\n".join(str(part) for part in signed)
        return hmac.new(own, text.encode(), hashlib.sha256).hexdigest()[:_SIGNATURE_LENGTH]


def query_of(scope: Scope, ticket: Ticket) -> str:
    """Scope and ticket as the query of an address, where `Ticket` and the routes read them again."""
    fields: dict[str, object] = {"stream": scope.stream, "from": scope.from_ns}
    if scope.to_ns is not None:
        fields["to"] = scope.to_ns
    fields |= {"key": ticket.key, "expires": ticket.expires_s, "signature": ticket.signature}
    return urlencode(fields)
