"""What the model saw in a clip, kept on disk, so that the next try of a rule costs no inference.

An entry is the sha256 of its body and the body.  It is written whole or not at all, and one that does not match its
digest is as good as none: a cache can only cost time, never an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from nodeagent.infra.files import write_atomically

#: Larger bodies are not kept, bytes.
ENTRY_MAX = 8 * 1024 * 1024
SUFFIX = ".detections"
_DIGEST = hashlib.sha256().digest_size


def default_folder() -> Path:
    """In the user's cache folder."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is to be ignored.
    base = Path(named) if named.startswith("/") else Path.home() / ".cache"
    return base / "nodeagent" / "backtest"


class Cache:
    """Bodies by key, a sha256 in hex digits."""

    def __init__(self, folder: Path, limit: int) -> None:
        """In `folder`, which is made when it is needed; at most `limit` bytes after `tidy`."""
        self._folder = folder
        self._limit = limit

    def get(self, key: str) -> bytes | None:
        """The body; None when there is none that can be trusted."""
        path = self._folder / f"{key}{SUFFIX}"
        try:
            entry = path.read_bytes()
        except OSError:
            return None
        digest, body = entry[:_DIGEST], entry[_DIGEST:]
        if hashlib.sha256(body).digest() != digest:
            return None
        # When it was last used: `tidy` goes by it.
        with contextlib.suppress(OSError):
            os.utime(path)
        return body

    def put(self, key: str, body: bytes) -> None:
        """Keep a body.

        Raises:
            OSError: the folder cannot be written.
        """
        if len(body) > ENTRY_MAX:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._folder / f"{key}{SUFFIX}", hashlib.sha256(body).digest() + body, 0o600)

    def tidy(self) -> None:
        """Remove what was not used for longest, until the rest is within the limit."""
        entries = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):
                status = path.stat()
                entries.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._limit:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size
