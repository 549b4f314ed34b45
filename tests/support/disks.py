"""Disks that are small, full or read-only: a tmpfs of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted_tmpfs(folder: Path, size: str = "8m") -> Iterator[Path]:
    """A disk of this size at `folder`; without the right to mount the test fails in CI and is skipped elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        hint = "NOT TESTED: a sick disk needs the right to mount a tmpfs (root, CAP_SYS_ADMIN)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(hint)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
