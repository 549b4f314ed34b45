"""Which disk of the pool a clip goes to, and the making of its folder there.

Each hour of a camera has one disk, drawn in proportion to the disks' quotas, so that all of them keep clips for equally
long.  Nothing here is asked of a disk but by `prepare`, which may block for as long as the disk does.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

from nodeagent.contract.clip import StreamName
from nodeagent.infra.clip_folders import hour_at, hour_folder, made
from nodeagent.infra.settings.sections import GIB, PoolSettings
from nodeagent.infra.storage import MARKER, StorageFull, StorageMissing, free_bytes, is_pool


def drawn_order(pools: Sequence[PoolSettings], camera_id: str, start_ns: int) -> list[PoolSettings]:
    """The disks in the order in which they are tried for a clip that starts then: a weighted rendezvous draw."""
    return sorted(pools, key=lambda pool: _rank(pool, camera_id, start_ns))


def _rank(pool: PoolSettings, camera_id: str, start_ns: int) -> float:
    key = f"{camera_id}/{hour_at(start_ns)}@{pool.path}".encode()
    drawn = (int.from_bytes(hashlib.blake2b(key, digest_size=6).digest(), "big") + 1) / (2**48 + 1)
    # The least of exponential draws at these rates is each pool's in proportion to its rate.
    return -math.log(drawn) / pool.quota_gb


def prepare(pool: PoolSettings, camera_id: str, start_ns: int, stream: StreamName) -> Path:
    """The folder on this disk for a clip that starts at `start_ns`; makes it.

    Raises:
        StorageMissing: the disk has no marker.
        StorageFull: it has no room, or cannot be written.
    """
    if not is_pool(pool.path):
        raise StorageMissing(f"{pool.path}: no marker {MARKER}")
    try:
        room = free_bytes(pool.path) - round(pool.reserve_gb * GIB)
        if room <= 0:
            raise StorageFull(f"{pool.path}: {-room / GIB:.2f} GiB below its reserve")
        folder = made(hour_folder(pool.path, camera_id, start_ns, stream))
    except OSError as exc:
        raise StorageFull(f"{pool.path}: {exc.strerror}") from exc
    # Making a folder that exists does not show that the disk has gone read-only.
    if not os.access(folder, os.W_OK):
        raise StorageFull(f"{pool.path}: cannot be written")
    return folder
