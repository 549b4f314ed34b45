"""Disks that are small, full or read-only: a tmpfs of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.missing import not_tested


@contextmanager
def mounted_tmpfs(folder: Path, size: str = "8m") -> Iterator[Path]:
    """A disk of this size at `folder`; without the right to mount the test fails in CI and is skipped elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        not_tested("a disk of its own needs the right to mount a tmpfs (root, CAP_SYS_ADMIN)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
