"""Tokens that open the registry: how one looks, how it is compared, and who may do what with it.

Pure.  A token is `nreg_<id>_<secret>`: the id finds its row, the secret proves it.  Only a hash is kept.  A plain
SHA-256 is enough: the secret is 256 random bits, which nobody guesses from their hash, unlike a password.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from nodeagent.contract.errors import DecodeError

#: What every token begins with, so that people and scanners for leaked secrets know one when they see it.
PREFIX: Final = "nreg_"
#: Random bytes of the id: enough that two tokens never get the same.
ID_BYTES: Final = 8
#: Random bytes of the secret: 256 bits.
SECRET_BYTES: Final = 32

_TOKEN = re.compile(rf"{PREFIX}([0-9a-f]{{{2 * ID_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})")


class Role(StrEnum):
    """What a person may do, from the least."""

    #: Look at everything that is no secret.
    VIEWER = "viewer"
    #: And run the site: cameras, rules, moves, drains.
    OPERATOR = "operator"
    #: And what cannot be taken back, or opens the registry to others.
    ADMIN = "admin"


class Deed(StrEnum):
    """What the registry can be asked to do."""

    #: Look at nodes, cameras, assignments and their history, streams redacted.
    READ = "read"
    #: Make and change cameras.
    CHANGE_CAMERA = "change_camera"
    #: Delete a camera: its stream credentials are gone for good.
    DELETE_CAMERA = "delete_camera"
    #: Write many cameras at once.
    IMPORT = "import"
    #: Have a camera's stream opened to see whether it answers.
    PROBE = "probe"
    #: Change rules and parameters of algorithms.
    CHANGE_RULE = "change_rule"
    #: Give a camera to a node by hand.
    MOVE = "move"
    #: Order a node to drain, or take the order back.
    DRAIN = "drain"
    #: Drain a node although the others lack capacity, so that cameras are left without one.
    FORCE_DRAIN = "force_drain"
    #: End a freeze of evictions.
    THAW = "thaw"
    #: Forget a node that is gone for good.
    FORGET_NODE = "forget_node"
    #: Make, list and revoke tokens.
    TOKENS = "tokens"
    #: Report a node's status.
    REPORT = "report"
    #: Fetch the configuration of a node's own cameras, stream credentials included.
    FETCH = "fetch"


_VIEWER: Final = frozenset({Deed.READ})
_OPERATOR: Final = _VIEWER | {
    Deed.CHANGE_CAMERA,
    Deed.PROBE,
    Deed.CHANGE_RULE,
    Deed.MOVE,
    Deed.DRAIN,
    Deed.THAW,
}
_ADMIN: Final = _OPERATOR | {Deed.DELETE_CAMERA, Deed.IMPORT, Deed.FORCE_DRAIN, Deed.FORGET_NODE, Deed.TOKENS}
#: What people may do.
ROLE_DEEDS: Final[Mapping[Role, frozenset[Deed]]] = {
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _OPERATOR,
    Role.ADMIN: _ADMIN,
}
#: What a node may do, in its own name only.  No person may: nobody but the owner of a camera sees its credentials.
NODE_DEEDS: Final = frozenset({Deed.REPORT, Deed.FETCH})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Who holds a token: a person with a role, or a node.

    Attributes:
        token_id: the part of the token that is no secret.
        name: in logs and histories.
        role: none for a node.
        node_id: none for a person.
    """

    token_id: str
    name: str
    role: Role | None = None
    node_id: str | None = None

    def may(self, deed: Deed, node_id: str | None = None) -> bool:
        """Whether the bearer may do this; for a node's deeds, in the name of the node `node_id`."""
        if self.role is not None:
            return deed in ROLE_DEEDS[self.role]
        return self.node_id is not None and self.node_id == node_id and deed in NODE_DEEDS


@dataclass(frozen=True, slots=True)
class Presented:
    """A token as somebody presents it; its secret is not printed."""

    token_id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """The whole token: a secret."""
        return f"{PREFIX}{self.token_id}_{self.secret}"

    @property
    def sha256(self) -> str:
        """What is kept of it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def matches(self, sha256: str) -> bool:
        """Whether it is the token of which this is kept; takes as long whatever the difference is."""
        return hmac.compare_digest(self.sha256.encode(), sha256.encode())


def token_of(random: bytes) -> Presented:
    """A new token.

    Args:
        random: `ID_BYTES + SECRET_BYTES` bytes that nobody can guess.

    Raises:
        ValueError: so many they are not.
    """
    if len(random) != ID_BYTES + SECRET_BYTES:
        raise ValueError(f"expected {ID_BYTES + SECRET_BYTES} random bytes, not {len(random)}")
    return Presented(random[:ID_BYTES].hex(), random[ID_BYTES:].hex())


def parse_token(text: str) -> Presented:
    """A token from its text.

    Raises:
        DecodeError: it is none; what stands there is not told, for it may be another secret.
    """
    found = _TOKEN.fullmatch(text)
    if found is None:
        raise DecodeError("not a token of a registry")
    return Presented(found[1], found[2])
