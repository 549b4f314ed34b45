"""The rings that this worker has open."""

from __future__ import annotations

from pathlib import Path

from nodeagent.contract.errors import DecodeError, Unavailable
from nodeagent.ring import RingReader, ring_path


class Rings:
    """One open ring per camera; a newer generation replaces the older, and a ring whose file is gone is let go."""

    def __init__(self, memory_dir: Path) -> None:
        self._memory_dir = memory_dir
        self._open: dict[str, RingReader] = {}

    def reader(self, camera_id: str, generation: int) -> RingReader | None:
        """The camera's ring of this generation; None when it cannot be read any more."""
        known = self._open.get(camera_id)
        if known is not None and known.generation == generation:
            return known
        try:
            reader = RingReader.open(self._memory_dir, camera_id, generation)
        except (Unavailable, DecodeError):
            return None
        if known is not None:
            known.close()
        self._open[camera_id] = reader
        return reader

    def drop_gone(self) -> None:
        """Let go of the memory of rings that lost their name: their capture is gone or has a newer one."""
        for camera_id, reader in list(self._open.items()):
            if not ring_path(self._memory_dir, camera_id, reader.generation).exists():
                self._open.pop(camera_id).close()

    def close(self) -> None:
        """Let go of all."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()
