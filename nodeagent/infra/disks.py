"""One disk of the pool: its marker, its room, and whether a clip goes there.

Each hour of a camera has one disk, drawn in proportion to what the disks can keep, so that all of them keep clips for
equally long.  All but the draw asks the disk and blocks for as long as the disk does.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from nodeagent.contract.clip import StreamName
from nodeagent.contract.errors import StorageUnavailable
from nodeagent.infra.clip_folders import hour_at, hour_folder, made, open_folder
from nodeagent.infra.files import write_atomically
from nodeagent.infra.pins import StorageFull
from nodeagent.infra.settings.sections import GIB, PoolSettings

#: File that makes a folder a disk of the pool.
MARKER = ".nodeagent-pool"
#: No weights: quotas alone count.
_EVEN: Mapping[Path, float] = MappingProxyType({})


class StorageMissing(StorageUnavailable):
    """No disk of the pool carries its marker."""


class DiskRetired(StorageUnavailable):
    """The disk takes no new clips; what it has is read and ages out."""


@dataclass(frozen=True, slots=True)
class Marker:
    """What a disk says of itself.

    Attributes:
        pool_id: its identity, wherever it is mounted; empty when the marker cannot be understood.
        retired: whether it takes no new clips.
    """

    pool_id: str
    retired: bool = False


def read_marker(path: Path) -> Marker | None:
    """The disk's marker; None without one, also when the disk answers with an error."""
    try:
        text = (path / MARKER).read_text()
    except (OSError, UnicodeDecodeError):
        return None
    try:
        body = json.loads(text)
        return Marker(str(body["pool_id"]), bool(body.get("retired", False)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Marker("")


def write_marker(path: Path, marker: Marker) -> None:
    """Replace the disk's marker.

    Raises:
        OSError: the disk refused.
    """
    body = {"v": 1, "pool_id": marker.pool_id, **({"retired": True} if marker.retired else {})}
    write_atomically(path / MARKER, json.dumps(body).encode())


def is_pool(path: Path) -> bool:
    """Whether the folder carries a marker; a disk that answers with an error carries none."""
    try:
        return (path / MARKER).is_file()
    except OSError:
        return False


def init_pool(path: Path) -> str:
    """Make a folder a disk of the pool and return the disk's id; a marked one keeps its id.

    Raises:
        OSError: the folder cannot be written.
    """
    path.mkdir(parents=True, exist_ok=True)
    marker = read_marker(path)
    if marker is None or not marker.pool_id:
        marker = Marker(uuid.uuid4().hex)
        write_marker(path, marker)
    return marker.pool_id


def drawn_order(
    pools: Sequence[PoolSettings], camera_id: str, start_ns: int, weights: Mapping[Path, float] = _EVEN
) -> list[PoolSettings]:
    """The disks in the order in which they are tried for a clip that starts then: a weighted rendezvous draw.

    `weights` says what share of its quota counts for a disk; 1 for those that it does not name.
    """
    return sorted(pools, key=lambda pool: _rank(pool, camera_id, start_ns, weights.get(pool.path, 1.0)))


def _rank(pool: PoolSettings, camera_id: str, start_ns: int, weight: float) -> float:
    key = f"{camera_id}/{hour_at(start_ns)}@{pool.path}".encode()
    drawn = (int.from_bytes(hashlib.blake2b(key, digest_size=6).digest(), "big") + 1) / (2**48 + 1)
    # The least of exponential draws at these rates is each pool's in proportion to its rate.
    return -math.log(drawn) / (pool.quota_gb * weight)


def prepare(pool: PoolSettings, camera_id: str, start_ns: int, stream: StreamName) -> Path:
    """The folder on this disk for a clip that starts at `start_ns`; makes it.

    Raises:
        StorageMissing: the disk has no marker.
        DiskRetired: it takes no new clips.
        StorageFull: it has no room, or cannot be written.
    """
    marker = read_marker(pool.path)
    if marker is None:
        raise StorageMissing(f"{pool.path}: no marker {MARKER}")
    if marker.retired:
        raise DiskRetired(f"{pool.path}: retired")
    folder = hour_folder(pool.path, camera_id, start_ns, stream)
    try:
        room = free_bytes(pool.path) - round(pool.reserve_gb * GIB)
        if room <= 0:
            raise StorageFull(f"{pool.path}: {-room / GIB:.2f} GiB below its reserve")
        with opened_disk(pool.path) as root:
            _made(root, folder.relative_to(pool.path))
    except OSError as exc:
        raise StorageFull(f"{pool.path}: {exc.strerror}") from exc
    # Making a folder that exists does not show that the disk has gone read-only.
    if not os.access(folder, os.W_OK):
        raise StorageFull(f"{pool.path}: cannot be written")
    return folder


def _made(root: int, folder: Path) -> None:
    try:
        made(root, folder)
    except FileNotFoundError:
        # The keeper has just removed an empty folder above it.
        made(root, folder)


@contextmanager
def opened_disk(path: Path) -> Iterator[int]:
    """Descriptor of a disk's folder, looked at for its marker: what is made below it is on that disk or nowhere.

    Raises:
        StorageMissing: the disk has no marker.
        OSError: it does not answer.
    """
    root = open_folder(path)
    try:
        try:
            os.stat(MARKER, dir_fd=root)
        except FileNotFoundError:
            raise StorageMissing(f"{path}: no marker {MARKER}") from None
        yield root
    finally:
        os.close(root)


def free_bytes(path: Path) -> int:
    """Space that the file system of `path` has left for us, bytes.

    Raises:
        OSError: it does not answer.
    """
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize
