"""What a recorder is given: its camera, and where that camera's things are written."""

from __future__ import annotations

from dataclasses import dataclass

from nodeagent.capture.account import Account
from nodeagent.capture.closing import Closer
from nodeagent.capture.recovery import Plan
from nodeagent.infra.storage import Storage


@dataclass(frozen=True, slots=True)
class Camera:
    """What the recorder must know of its camera.

    Attributes:
        camera_id: its id.
        clip_ns: length that clips aim at.
        plan: how it is sampled.
    """

    camera_id: str
    clip_ns: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class Books:
    """Where one stream's things are written.

    Attributes:
        storage: the clips.
        closer: the record of those that are complete.
        ledger: the account of time.
    """

    storage: Storage
    closer: Closer
    ledger: Account
