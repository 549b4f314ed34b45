"""The clips of an alarm's window, kept from retention until the alarm is final."""

from __future__ import annotations

import logging

from nodeagent.alarm.plan import ROUNDING_NS
from nodeagent.alarm.steps import Checkpoint
from nodeagent.alarm.store import AlarmStore
from nodeagent.contract.errors import StorageUnavailable
from nodeagent.infra.alarm_records import AlarmRow
from nodeagent.infra.storage import Listing, Storage, StoredClip

log = logging.getLogger(__name__)


#: Sets of pins that are looked up at a time: a statement takes only so many values.
AT_ONCE = 500


def let_go_of_done(storage: Storage, store: AlarmStore) -> None:
    """Unpin what alarms that are done have left on disks that were away then.

    Raises:
        Unavailable: the database is away.
    """
    keys = storage.pin_keys()
    for first in range(0, len(keys), AT_ONCE):
        for key in store.done_of(keys[first : first + AT_ONCE]):
            storage.unpin(key)


def pin_window(storage: Storage, listing: Listing, row: AlarmRow, checkpoint: Checkpoint) -> list[StoredClip]:
    """What is there of the window by now, ordered, pinned where the disk allows it.

    `listing` is what was read of the pool in the same turn for other alarms.
    """
    # One rounding further: a clip that ends just with the window does not prove to reach it, the next one does.
    found = storage.clips(row.camera_id, row.replay_from_ns, row.replay_to_ns + 2 * ROUNDING_NS, listing)
    held = {stored.clip: stored for stored in storage.pinned(row.dedup_key)}
    try:
        fresh = [stored for stored in found if stored.clip not in held]
        held |= {stored.clip: stored for stored in storage.pin(fresh, row.dedup_key)}
    except StorageUnavailable as exc:
        log.warning("alarm %s: clips not pinned: %s", row.dedup_key, exc, extra={"event": "pin_failed"})
        held = {stored.clip: stored for stored in found} | held
    checkpoint("pinned")
    return sorted(held.values(), key=lambda stored: stored.clip.start_ns)
