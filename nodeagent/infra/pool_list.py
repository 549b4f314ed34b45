"""The disks that are in use now: a file that the supervisor writes at its start and at each reload, and workers follow.

So a disk comes and goes without a restart: captures look at the list at each clip, the keeper at each look.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from nodeagent.infra.files import write_atomically
from nodeagent.infra.settings.sections import PoolSettings

POOLS = "pools.json"


def write_pools(state_dir: Path, pools: Sequence[PoolSettings]) -> None:
    """Replace the list; a reader sees the old one or the new one, also after a power cut.

    Raises:
        OSError: the state folder cannot be written.
    """
    body = {"v": 1, "pools": [pool.model_dump(mode="json") for pool in pools]}
    write_atomically(state_dir / POOLS, json.dumps(body).encode())


class PoolList:
    """Follows the list; costs one stat when nothing changed.  The last good one stays when it cannot be read."""

    def __init__(self, state_dir: Path, first: Sequence[PoolSettings]) -> None:
        """`first` is in use until there is a file."""
        self._path = state_dir / POOLS
        self._stamp: tuple[int, int] | None = None
        self._pools = tuple(first)

    def now(self) -> tuple[PoolSettings, ...]:
        """The disks."""
        try:
            info = os.stat(self._path)
            stamp = (info.st_ino, info.st_mtime_ns)
            if stamp != self._stamp:
                body = json.loads(self._path.read_bytes())
                self._pools = tuple(PoolSettings.model_validate(pool) for pool in body["pools"]) or self._pools
                self._stamp = stamp
        except (OSError, ValidationError, ValueError, KeyError, TypeError):
            return self._pools
        return self._pools
