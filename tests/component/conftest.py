"""What the tests of the alarm worker share: a push target, and a worker with database and pool that pushes to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.alarm_world import SECRET, World, target
from tests.support.receiver import PushReceiver


@pytest.fixture
def receiver() -> Iterator[PushReceiver]:
    """A target that accepts everything."""
    with PushReceiver(SECRET) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, receiver: PushReceiver) -> Iterator[World]:
    """A worker whose one target is `receiver`."""
    made = World(tmp_path, (target(receiver),))
    yield made
    made.close()
