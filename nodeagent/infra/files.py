"""Files that survive a power cut: written beside, synced, renamed, and the folder synced."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class _Syncs:
    """How often this process has synced a file or a folder."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0


_syncs = _Syncs()


def sync_file(fd: int) -> None:
    """Make what was written to `fd` durable, and count it."""
    with _syncs.lock:
        _syncs.count += 1
    os.fsync(fd)


def syncs() -> int:
    """Files and folders that this process has synced since it began: what a disk feels most of it."""
    return _syncs.count


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(fd)
    finally:
        os.close(fd)


def write_atomically(path: Path, body: bytes, mode: int = 0o644) -> None:
    """Replace `path`: a reader sees the old content or the new one, never a part.

    Raises:
        OSError: the disk refused; the old content stays.  It names `path`.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write_by_way_of(beside, path, body, mode)
    except OSError as exc:
        # A file that could not be made is the one beside, and a disk that is full names none.
        raise OSError(exc.errno, exc.strerror, str(path)) from exc


def _write_by_way_of(beside: Path, path: Path, body: bytes, mode: int) -> None:
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as out:
            out.write(body)
            out.flush()
            sync_file(out.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def rename_durably(source: Path, target: Path) -> None:
    """Rename within one folder and sync the folder.  The caller has synced the content."""
    source.replace(target)
    sync_folder(target.parent)
