"""Disks that are small, full, read-only, away or hanging: a file system of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.missing import not_tested


def _run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def mounted_tmpfs(folder: Path, size: str = "8m") -> Iterator[Path]:
    """A disk of this size at `folder`; without the right to mount the test fails in CI and is skipped elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)):
        not_tested("a disk of its own needs the right to mount a tmpfs (root, CAP_SYS_ADMIN)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Disk:
    """An ext4 in a file, which can be hurt.

    Attributes:
        folder: where it is mounted; also there, and empty, when it is not.
    """

    def __init__(self, folder: Path, size_mb: int) -> None:
        self.folder = folder
        self._image = folder.with_name(f"{folder.name}.img")
        folder.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(size_mb << 20)
        _must("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))

    def mount(self) -> None:
        """Put it where it belongs."""
        _must("mount", "-o", "loop", str(self._image), str(self.folder))

    def unmount(self) -> None:
        """Take it away, whoever uses it."""
        _must("umount", "-l", str(self.folder))

    def read_only(self) -> None:
        """Refuse every write from now on, as ext4 does after an error: also those to files that are open."""
        _must("mount", "-o", "remount,abort", str(self.folder))

    def freeze(self) -> None:
        """Let every write hang."""
        _must("fsfreeze", "-f", str(self.folder))

    def thaw(self) -> None:
        """Let hanging writes go on; harmless when there are none."""
        _run("fsfreeze", "-u", str(self.folder))

    def fill(self) -> Path:
        """Leave no byte; returns the file to remove."""
        filler = self.folder / "filler"
        with filler.open("wb", buffering=0) as out:
            for size in (1 << 16, 512):
                try:
                    while out.write(b"x" * size) == size:
                        pass
                except OSError:
                    continue
        return filler


def _must(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=True)


@contextmanager
def mounted_disk(folder: Path, size_mb: int = 32) -> Iterator[Disk]:
    """An ext4 of its own at `folder`; without the right to mount the test fails in CI and is skipped elsewhere."""
    try:
        disk = Disk(folder, size_mb)
        disk.mount()
    except (subprocess.CalledProcessError, FileNotFoundError):
        not_tested("a disk that can be hurt needs mkfs.ext4, loop devices and the right to mount (root, CAP_SYS_ADMIN)")
    try:
        yield disk
    finally:
        disk.thaw()
        _run("umount", "-l", str(folder))
