"""Which registry leads: a lock in Redis that expires, with a token that grows at every change of the leader.

The token is above Redis' clock in ms as well as above the last one, so it grows through the loss of both keys.
"""

from __future__ import annotations

import redis

from nodeagent.contract.ids import NodeId
from nodeagent.infra.ownership.port import LEADER_MS, Term
from nodeagent.infra.ownership.running import Scripts


class RedisLeader:
    """`Leader` on Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._scripts = Scripts(client)

    def acquire(self, registry_id: NodeId, known: int = 0, ttl_ms: int = LEADER_MS) -> Term | None:
        """Begin a term, or go on with the own one; see the port."""
        token = self._scripts.run("lead", registry_id, known, ttl_ms)
        return Term(registry_id=registry_id, token=int(token)) if token is not None else None

    def renew(self, term: Term, ttl_ms: int = LEADER_MS) -> bool:
        """Go on leading; see the port."""
        return bool(self._scripts.run("lead on", term, term.token, ttl_ms))

    def resign(self, term: Term) -> None:
        """End the term."""
        self._scripts.run("resign", term)
