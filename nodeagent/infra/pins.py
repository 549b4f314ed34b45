"""Clips that are kept beyond retention: hard links under `<pool>/pins/<key>`, on the disk on which the clip lies.

A pinned clip may lose its name among the clips and keeps its bytes here, until the set is let go.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from nodeagent.contract.errors import StorageUnavailable
from nodeagent.infra.clip_folders import StoredClip, clips_in, folders_in, made, open_folder
from nodeagent.infra.files import sync_file

#: Folder of pins within a disk.
PINS_FOLDER = "pins"
#: What may name a set of pins: it becomes a folder.
_PIN_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class StorageFull(StorageUnavailable):
    """Every disk of the pool is at its reserve, or refuses to be written."""


def pin(disks: Iterable[Path], clips: Sequence[StoredClip], key: str) -> list[StoredClip]:
    """Link clips of these disks under `key`; a clip that is gone by now is left out of the result.

    Raises:
        StorageFull: the disk refused the link.
        ValueError: the key may not be a folder's name, or a clip lies on none of the disks.
    """
    folder = f"{PINS_FOLDER}/{checked(key)}"
    by_disk: dict[Path, list[StoredClip]] = {}
    for stored in clips:
        by_disk.setdefault(_disk_of(disks, stored.path), []).append(stored)
    try:
        there = [stored for disk, of_disk in by_disk.items() for stored in _linked(disk, of_disk, folder)]
    except OSError as exc:
        raise StorageFull(f"pins of {key}: {exc.strerror}") from exc
    return [StoredClip(s.clip, s.duration_ns, _disk_of(disks, s.path) / folder / s.path.name) for s in there]


def _linked(disk: Path, clips: Iterable[StoredClip], folder: str) -> list[StoredClip]:
    """Link clips of one disk into a folder of it; those that are still there.

    All is named from the open disk: when it is unmounted meanwhile nothing is made in its mount point.
    """
    kept = []
    root = open_folder(disk)
    try:
        for stored in clips:
            source = str(stored.path.relative_to(disk))
            with contextlib.suppress(FileNotFoundError):
                os.stat(source, dir_fd=root)
                made(root, Path(folder))
                with contextlib.suppress(FileExistsError):
                    os.link(source, f"{folder}/{stored.path.name}", src_dir_fd=root, dst_dir_fd=root)
                kept.append(stored)
        if kept:
            synced = open_folder(Path(folder), root)
            try:
                sync_file(synced)
            finally:
                os.close(synced)
    finally:
        os.close(root)
    return kept


def pinned(disks: Iterable[Path], key: str) -> list[StoredClip]:
    """Clips that are kept under this key, ordered by start.

    Raises:
        ValueError: the key may not be a folder's name.
    """
    name = checked(key)
    found = {stored.clip: stored for disk in disks for stored in clips_in(disk / PINS_FOLDER / name)}
    return sorted(found.values(), key=lambda stored: stored.clip.start_ns)


def pin_keys(disks: Iterable[Path]) -> list[str]:
    """Keys under which something is kept, sorted."""
    found = {folder.name for disk in disks for folder in folders_in(disk / PINS_FOLDER)}
    return sorted(key for key in found if _PIN_KEY.fullmatch(key))


def unpin(disks: Iterable[Path], key: str) -> None:
    """Let go of what is kept under this key; harmless when nothing is.

    Raises:
        ValueError: the key may not be a folder's name.
    """
    name = checked(key)
    for disk in disks:
        shutil.rmtree(disk / PINS_FOLDER / name, ignore_errors=True)


def checked(key: str) -> str:
    """The key, if it may be a folder's name.

    Raises:
        ValueError: it may not.
    """
    if not _PIN_KEY.fullmatch(key):
        raise ValueError(f"pin key {key!r}: expected letters, digits, `_`, `.`, `-`")
    return key


def _disk_of(disks: Iterable[Path], path: Path) -> Path:
    # The longest: a disk may be mounted below another one.
    found = max((disk for disk in disks if path.is_relative_to(disk)), key=lambda disk: len(disk.parts), default=None)
    if found is None:
        raise ValueError(f"{path} is on no disk of the pool")
    return found
