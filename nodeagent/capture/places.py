"""Finds a place for each clip: a folder on a disk that answers, and the thread that writes there.

A disk that refused or stalled is set aside for all captures of the node (`infra.disk_notes`) until the keeper finds
that it works again: the others are asked before it.  No call here waits for a disk
longer than a stall lasts, and none at all for one whose thread is known to hang.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from nodeagent.capture.disk_writer import STALL_S, DiskStalled, Hand, Hands
from nodeagent.contract.clip import ClipId, StreamName
from nodeagent.contract.errors import StorageUnavailable
from nodeagent.infra.clock import Clock
from nodeagent.infra.disks import drawn_order, prepare
from nodeagent.infra.settings.sections import PoolSettings
from nodeagent.infra.storage import Storage, StorageMissing, none_takes

log = logging.getLogger(__name__)

#: A disk is given so long to show its marker and make a folder, seconds; then the next one is asked.  The last one gets
#: as long as a stall lasts: to give up on it loses a GOP.
PLACE_PATIENCE_S = 1.0
#: A disk that refused or stalled is the last to be tried here for this long, seconds, also when no note can be left.
ASIDE_S = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a clip is written.

    Attributes:
        hand: the thread of the disk.
        folder: the folder there; it exists.
    """

    hand: Hand
    folder: Path


class Places:
    """The disks as one recorder sees them."""

    def __init__(self, storage: Storage, hands: Hands, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._hands = hands
        self._aside_until_s: dict[Path, float] = {}

    def find(self, clip: ClipId, stream: StreamName, without: Collection[Path] = ()) -> Place:
        """A place for a clip, on none of the disks `without`.

        Raises:
            StorageMissing: no disk has its marker.
            StorageFull: no marked disk has room, can be written, or answers.
        """
        why: list[str] = []
        asked = [pool for pool in self._in_order(clip) if pool.path not in without]
        for pool in asked:
            hand = self._hands.of(pool.path)
            patience_s = STALL_S if pool is asked[-1] else PLACE_PATIENCE_S
            try:
                if hand.stalls:
                    raise DiskStalled(f"no answer for {hand.waits_s:.0f} s")
                making = hand.ask(lambda pool=pool: prepare(pool, clip.camera_id, clip.start_ns, stream))  # type: ignore[misc]
                return Place(hand, making.result(patience_s))
            except DiskStalled as exc:
                self.set_aside(pool.path, str(exc))
                why.append(f"{pool.path}: {exc}")
            except StorageMissing:
                continue
            except StorageUnavailable as exc:
                why.append(str(exc))
        if without and not why:
            why = ["no other disk"]
        raise none_takes(self._storage.pools, why)

    def _in_order(self, clip: ClipId) -> list[PoolSettings]:
        now_s, notes = self._clock.monotonic_s(), self._storage.notes
        aside = {disk for disk, until_s in self._aside_until_s.items() if now_s < until_s}
        weights: dict[Path, float] = {}
        if notes is not None:
            aside |= notes.aside(self._clock.wall_ns()).keys()
            weights = notes.weights()
        drawn = drawn_order(self._storage.pools, clip.camera_id, clip.start_ns, weights)
        return sorted(drawn, key=lambda pool: pool.path in aside)

    def set_aside(self, disk: Path, why: str) -> None:
        """The other disks go before this one for a while."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._aside_until_s.get(disk, now_s):
            log.warning("disk %s is set aside: %s", disk, why, extra={"event": "disk_aside", "disk": str(disk)})
        self._aside_until_s[disk] = now_s + ASIDE_S
        if self._storage.notes is not None:
            self._storage.notes.set_aside(disk, why, self._clock.wall_ns())
