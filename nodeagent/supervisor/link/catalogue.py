"""How the cameras that this node may claim are configured, kept so that it can claim them while no registry answers.

It holds stream credentials of cameras that are not served here: only nodes of strategy `claim` have it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import CameraId
from nodeagent.infra.wanted import Grant, Wanted, read_wanted, write_wanted
from nodeagent.supervisor.link.reconcile import Offer

log = logging.getLogger(__name__)

#: Its file in the state folder, mode 0600.
CATALOGUE = "catalogue.json"


class Catalogue:
    """The last list of a registry.

    Attributes:
        offers: its cameras; none is granted by it.
    """

    def __init__(self, state_dir: Path) -> None:
        """Begin with what was noted; a file that cannot be read is replaced by the next list."""
        self._path = state_dir / CATALOGUE
        self.offers: dict[CameraId, Offer] = {}
        self._version = 0
        try:
            found = read_wanted(self._path)
        except (DecodeError, OSError) as exc:
            log.warning("%s; the registry is asked", exc, extra={"event": "catalogue_unreadable"})
            return
        self._version = found.version
        self.offers = {
            camera.camera_id: Offer(camera, found.grants[camera.camera_id].version, 0)
            for camera in found.cameras
            if camera.camera_id in found.grants
        }

    def keep(self, listed: Mapping[CameraId, Offer]) -> None:
        """Note a list, if it tells anything new; a disk that refuses costs the next life the list, no camera."""
        offers = {camera_id: Offer(offer.spec, offer.version, 0) for camera_id, offer in listed.items()}
        if offers == self.offers:
            return
        self.offers = offers
        self._version += 1
        cameras = tuple(offers[name].spec for name in sorted(offers))
        versions = {name: Grant(0, offer.version) for name, offer in offers.items()}
        try:
            write_wanted(self._path, Wanted(self._version, cameras, versions))
        except OSError as exc:
            log.warning("%s: %s", self._path, exc.strerror, extra={"event": "catalogue_not_noted"})
