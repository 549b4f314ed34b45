"""What a child is told at its start: the configuration as it is now, with the cameras that are wanted now."""

from __future__ import annotations

from pathlib import Path

from nodeagent.contract.camera import CameraSpec
from nodeagent.infra.settings.sections import PoolSettings, Settings
from nodeagent.supervisor.child import Order
from nodeagent.supervisor.roster import Want


class OrderMaker:
    """Knows what all orders share."""

    def __init__(self, settings: Settings, memory_dir: Path, preload: str) -> None:
        self._settings = settings
        self._memory_dir = memory_dir
        self._preload = preload

    def set_cameras(self, cameras: tuple[CameraSpec, ...]) -> None:
        """Children that are started from now on see these cameras; all sections but these and the pool's stay."""
        self._settings = self._settings.model_copy(update={"cameras": cameras})

    def set_pools(self, pools: tuple[PoolSettings, ...]) -> None:
        """Children that are started from now on see these disks; those that run follow the list in the state folder."""
        if pools != self._settings.pools:
            self._settings = self._settings.model_copy(update={"pool": pools})

    def make(self, want: Want, worker: str, cell: int) -> Order:
        """The order for one start of one child."""
        return Order(
            name=want.name,
            arg=want.arg,
            worker=worker,
            settings=self._settings,
            memory_dir=self._memory_dir,
            cell=cell,
            preload=self._preload,
        )
