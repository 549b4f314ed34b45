"""Files that survive a power cut: written beside, synced, renamed, and the folder synced."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomically(path: Path, body: bytes, mode: int = 0o644) -> None:
    """Replace `path`: a reader sees the old content or the new one, never a part.

    Raises:
        OSError: the disk refused; the old content stays.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as out:
            out.write(body)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def rename_durably(source: Path, target: Path) -> None:
    """Rename within one folder and sync the folder.  The caller has synced the content."""
    source.replace(target)
    sync_folder(target.parent)
