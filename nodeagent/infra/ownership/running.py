"""Runs the scripts of ownership on one Redis."""

from __future__ import annotations

from typing import Any

import redis

from nodeagent.infra.ownership import scripts
from nodeagent.infra.redis import translated

#: Every script, by the name that errors call it.
_TEXTS = {
    "grant": scripts.GRANT,
    "claim": scripts.CLAIM,
    "take back": scripts.TAKE_BACK,
    "offer": scripts.OFFER,
    "forget": scripts.FORGET,
    "rebuild": scripts.REBUILD,
    "tidy": scripts.TIDY,
    "renew": scripts.RENEW,
    "owned by": scripts.OWNED_BY,
    "alive": scripts.ALIVE,
    "lead": scripts.LEAD,
    "lead on": scripts.LEAD_ON,
    "resign": scripts.RESIGN,
}


class Scripts:
    """The scripts on one client.  A Redis that was restarted or flushed of scripts gets them anew by itself."""

    def __init__(self, client: redis.Redis) -> None:
        self._scripts: dict[str, Any] = {name: client.register_script(text) for name, text in _TEXTS.items()}

    def run(self, name: str, *arguments: object) -> Any:
        """The answer of a script; texts in it are bytes.

        Raises:
            Unavailable: Redis is away; the script may or may not have run.
        """
        with translated(name):
            return self._scripts[name](args=[str(argument) for argument in arguments])
