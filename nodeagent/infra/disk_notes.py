"""What a node's processes tell one another of the pool's disks: files in the state folder, never on the disks.

- `disks/<hash>.aside`: this disk refused or stalled; nobody begins a clip on it.  A capture makes it, the keeper probes
  the disk, touches the file while that fails, and removes it when the disk works again.  One that nobody has touched
  for a while counts no more: without a keeper, a disk is tried again.
- `disks/measured.json`: how long a small synced write took on each disk, and how much room it has, from the keeper.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.files import write_atomically

#: A note that was not touched for this long counts no more, ns: several probes.
ASIDE_NS = 120 * NS_PER_S
_ASIDE = ".aside"
_MEASURED = "measured.json"
#: A disk whose synced write takes longer than this, seconds, and this many times as long as the fastest one's, is slow.
SLOW_S, SLOW_TIMES = 0.25, 4.0
#: Share of its quota that counts for a slow disk when clips are spread.
SLOW_WEIGHT = 0.25
#: How much more of its quota counts for an empty disk than for a full one: a new disk beside full ones fills twice as
#: fast as they are written anew, and all keep clips for equally long when it is full.
ROOM_WEIGHT = 1.0


@dataclass(frozen=True, slots=True)
class Aside:
    """A disk that nobody begins a clip on.

    Attributes:
        disk: its folder.
        why: one sentence.
        since_ns: wall clock, UTC ns.
    """

    disk: Path
    why: str
    since_ns: int


class DiskNotes:
    """The notes of one node.  A state folder that cannot be written loses notes, never a clip: they are hints."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "disks"
        self._stamp: tuple[int, int] | None = None
        self._weights: dict[Path, float] = {}

    def set_aside(self, disk: Path, why: str, now_ns: int) -> None:
        """Tell all processes of this node; the first reason stays while the note does."""
        path = self._path(disk)
        try:
            if path.exists():
                os.utime(path)
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps({"v": 1, "disk": str(disk), "why": why, "since_ns": now_ns}).encode())
        except OSError:
            return

    def aside(self, now_ns: int) -> dict[Path, Aside]:
        """The disks that are set aside now, by folder."""
        found = {}
        for path in self._folder.glob(f"*{_ASIDE}"):
            try:
                if abs(now_ns - path.stat().st_mtime_ns) > ASIDE_NS:
                    continue
                body = json.loads(path.read_bytes())
                note = Aside(Path(body["disk"]), str(body["why"]), int(body["since_ns"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue
            found[note.disk] = note
        return found

    def bring_back(self, disk: Path) -> None:
        """The disk works again."""
        try:
            self._path(disk).unlink(missing_ok=True)
        except OSError:
            return

    def write_measured(self, took_s: Mapping[Path, float], room: Mapping[Path, float]) -> None:
        """Tell how long a synced write takes on each disk, seconds, and what part of its quota is free, 0 to 1.

        Raises:
            OSError: the state folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        parts = {"sync_s": (took_s, 4), "room": (room, 1)}
        told = {name: {str(disk): round(x, digits) for disk, x in of.items()} for name, (of, digits) in parts.items()}
        write_atomically(self._folder / _MEASURED, json.dumps({"v": 1, **told}).encode())

    def measured(self) -> dict[Path, float]:
        """How long a synced write took on each disk, seconds, as it was last measured."""
        return self._read("sync_s")

    def room(self) -> dict[Path, float]:
        """What part of each disk's quota is free, 0 to 1."""
        return self._read("room")

    def _read(self, name: str) -> dict[Path, float]:
        try:
            body = json.loads((self._folder / _MEASURED).read_bytes())
            return {Path(disk): float(value) for disk, value in body.get(name, {}).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def weights(self) -> dict[Path, float]:
        """What share of its quota counts for each disk, 1 for those not named; one stat when nothing changed."""
        try:
            info = os.stat(self._folder / _MEASURED)
        except OSError:
            return {}
        stamp = (info.st_ino, info.st_mtime_ns)
        if stamp != self._stamp:
            self._stamp, self._weights = stamp, weights_of(self.measured(), self.room())
        return self._weights

    def _path(self, disk: Path) -> Path:
        return self._folder / f"{hashlib.blake2b(bytes(disk), digest_size=8).hexdigest()}{_ASIDE}"


def weights_of(took_s: Mapping[Path, float], room: Mapping[Path, float]) -> dict[Path, float]:
    """Shares by speed (seconds of a synced write) and by room (free part of the quota)."""
    fastest_s = min(took_s.values(), default=0.0)
    slow = {disk for disk, value in took_s.items() if value > max(SLOW_S, SLOW_TIMES * fastest_s)}
    return {
        disk: (SLOW_WEIGHT if disk in slow else 1.0) * (1 + ROOM_WEIGHT * min(max(room.get(disk, 0.0), 0.0), 1.0))
        for disk in {*slow, *room}
    }
