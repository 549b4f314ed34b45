"""What `nodeagent clips --verify` finds of a node's recordings."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from nodeagent.cli.clips_verify import Verified, Wanted, verify
from nodeagent.infra.settings.sections import Settings


def verified(settings: Settings, camera_id: str, *, decode: bool = False) -> Verified:
    """The account of all that is there of a camera."""
    (done,) = verify(settings, [camera_id], Wanted(None, 2**62), ZoneInfo("UTC"), decode=decode)
    return done


def assert_verifies(settings: Settings, camera_id: str, *, decode: bool = False) -> None:
    """Recorded time and the ledger add up to wall time."""
    done = verified(settings, camera_id, decode=decode)
    assert done.span is not None, "nothing is recorded"
    assert done.well, (done.days, done.broken)
