"""What `nodeagent pool list` and `pool check` find out of a disk; each look gives up on a disk that does not answer."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nodeagent.infra.clip_folders import STREAM_FOLDERS, folders_in, hours_on, names_in, stream_folder
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.disk_notes import Aside
from nodeagent.infra.disks import MARKER, free_bytes, read_marker
from nodeagent.infra.files import sync_file, sync_folder
from nodeagent.infra.hours import read_summary
from nodeagent.infra.settings.sections import GIB, PoolSettings

#: How long one disk may take to answer, seconds.
PATIENCE_S = 10.0
#: What `check` writes, bytes: enough to tell a fast disk from a slow one, and nothing that a full one misses.
CHECK_BYTES = 8 << 20

T = TypeVar("T")


class Silent(OSError):
    """The disk does not answer."""


def answered(work: Callable[[], T]) -> T:
    """The result of work on a disk, done in a thread that is left behind when the disk hangs.

    Raises:
        Silent: no answer in time.
        OSError: what the disk said.
    """
    results: list[T] = []
    errors: list[OSError] = []

    def run() -> None:
        try:
            results.append(work())
        except OSError as exc:
            errors.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    if errors:
        raise errors[0]
    if not results:
        raise Silent(f"no answer for {PATIENCE_S:g} s")
    return results[0]


@dataclass(frozen=True, slots=True)
class DiskRow:
    """One disk of the pool.

    Attributes:
        path: its folder.
        pool_id: the marker's id; empty without one.
        state: `ok`, `missing`, `full`, `aside`, `retired` or `silent`.
        why: a sentence when it is not ok.
        quota, reserve: as configured, bytes.
        used: bytes in clips, as the disk's own directories say; None when it does not, or they are too many.
        free: bytes; None when the disk does not say.
        sync_ms: how long a small synced write took lately, by the agent's measurement.
    """

    path: str
    pool_id: str
    state: str
    why: str
    quota: int
    reserve: int
    used: int | None
    free: int | None
    sync_ms: float | None


def disk_row(pool: PoolSettings, aside: Mapping[Path, Aside], sync_s: Mapping[Path, float]) -> DiskRow:
    """Look at one disk."""
    state, why, pool_id = "ok", "", ""
    used = free = None
    try:
        marker = answered(lambda: read_marker(pool.path))
        if marker is None:
            state, why = "missing", f"no marker {MARKER}: mount it, or run `nodeagent pool init {pool.path}`"
        else:
            pool_id = marker.pool_id
            free = answered(lambda: free_bytes(pool.path))
            used = _used(pool.path)
            if marker.retired:
                state, why = "retired", "takes no new clips" + ("" if used else "; it is empty and can be removed")
            elif pool.path in aside:
                state, why = "aside", aside[pool.path].why
            elif free < pool.reserve_gb * GIB:
                state, why = "full", "below its reserve"
    except Silent as exc:
        state, why = "silent", str(exc)
    except OSError as exc:
        state, why = "silent", exc.strerror or str(exc)
    took_s = sync_s.get(pool.path)
    return DiskRow(
        path=str(pool.path),
        pool_id=pool_id,
        state=state,
        why=why,
        quota=round(pool.quota_gb * GIB),
        reserve=round(pool.reserve_gb * GIB),
        used=used,
        free=free,
        sync_ms=None if took_s is None else round(took_s * 1000, 1),
    )


def _used(disk: Path) -> int | None:
    try:
        return answered(lambda: used_bytes(disk))
    except Silent:
        # It answers, but has too many files to be counted in passing.
        return None


def used_bytes(disk: Path) -> int:
    """Bytes in clips: of closed hours from their summaries, of others from the files.

    Raises:
        OSError: a folder cannot be read.
    """
    total = 0
    for stream in STREAM_FOLDERS:
        for camera in folders_in(stream_folder(disk, stream)):
            for folder in hours_on(disk, camera.name, stream):
                known = read_summary(folder, folder.stat())
                total += (
                    known[1] if known is not None else sum(os.lstat(folder / name).st_size for name in names_in(folder))
                )
    return total


def checked(disk: Path) -> tuple[list[str], str]:
    """Try all that recording needs of a disk: its faults, each one line, and a sentence on what it is."""
    if answered(lambda: read_marker(disk)) is None:
        return [f"no marker {MARKER}: mount it, or run `nodeagent pool init {disk}`"], ""
    faults: list[str] = []
    path = disk / f".nodeagent-check-{uuid.uuid4().hex[:8]}"
    other, link = path.with_suffix(".renamed"), path.with_suffix(".link")
    body = os.urandom(CHECK_BYTES)
    clock = SystemClock()
    began_s = clock.monotonic_s()
    try:
        for what, step in (
            ("write and sync", lambda: _write(path, body)),
            ("read back", lambda: _read_back(path, body)),
            ("rename", lambda: _rename(path, other)),
            ("hard link", lambda: os.link(other, link)),
        ):
            try:
                answered(step)
            except OSError as exc:
                faults.append(f"{what}: {exc.strerror or exc}")
                break
            if what == "write and sync":
                speed = CHECK_BYTES / 1e6 / max(clock.monotonic_s() - began_s, 1e-6)
    finally:
        for left in (path, other, link):
            try:
                answered(lambda left=left: left.unlink(missing_ok=True))  # type: ignore[misc]
            except OSError:
                continue
    if faults:
        return faults, ""
    free = answered(lambda: free_bytes(disk))
    return [], f"{file_system(disk)}, {free / GIB:.1f} GiB free, {speed:.0f} MB/s written and synced"


def _write(path: Path, body: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(body)
        while left:
            left = left[os.write(fd, left) :]
        sync_file(fd)
    finally:
        os.close(fd)


def _read_back(path: Path, body: bytes) -> None:
    if path.read_bytes() != body:
        raise OSError("what was written is not what is read")


def _rename(path: Path, other: Path) -> None:
    path.replace(other)
    sync_folder(other.parent)


def file_system(path: Path) -> str:
    """Type of the file system that a folder lies on, from the kernel's list of mounts; else `unknown`."""
    best, found = -1, "unknown"
    real = os.path.realpath(path)
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            _, point, kind, *_ = line.split(" ")
            point = point.encode().decode("unicode_escape")
            if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= best:
                best, found = len(point), kind
    return found
