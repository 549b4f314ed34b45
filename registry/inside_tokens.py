"""The tokens of a registry inside an agent: the node's own, and that of commands on this machine, each in a file.

They are made anew at each start, so that none is good for longer than a life of the registry, and whoever kept one
from before has nothing.  Order: made, written, then all earlier ones are dropped.  A kill -9 after the first leaves a
token that nobody knows, one after the second a token that is still good; the next start drops both.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import NodeId
from nodeagent.infra.files import write_atomically
from nodeagent.infra.settings.registry import ADMINS_FILE, NODES_FILE
from registry.store.tokens import Tokens
from registry.tokens import Role

log = logging.getLogger(__name__)

#: How the token of commands is called in histories.
ADMIN: Final = "local-admin"


def renew_tokens(tokens: Tokens, folder: Path, node_id: NodeId, now_ns: int) -> None:
    """Make both tokens, write them into `folder`, mode 0600, and drop those of before.

    Raises:
        Unavailable: the database is away, or the folder cannot be written.
    """
    # No person and no command is called so: a space stands in it.
    by = f"registry inside {node_id}"
    node, admin = (
        tokens.make_for_node(node_id, node_id, by, now_ns),
        tokens.make_for_person(ADMIN, Role.ADMIN, by, now_ns),
    )
    for name, (_, secret) in ((NODES_FILE, node), (ADMINS_FILE, admin)):
        _keep(folder / name, secret)
    tokens.drop_others(by, [bearer.token_id for bearer, _ in (node, admin)])
    log.info("tokens of this node and of commands on it are made anew", extra={"event": "tokens_renewed"})


def _keep(path: Path, secret: SecretStr) -> None:
    try:
        write_atomically(path, f"{secret.get_secret_value()}\n".encode(), mode=0o600)
    except OSError as exc:
        raise Unavailable(f"{path}: {exc.strerror}") from exc
