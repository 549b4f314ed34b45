"""What an agent asks the registries: it reports, fetches its cameras, and asks who owns others.

How they are asked, and in which order, is told in `infra.registry_api`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import CameraId, Epoch, Frozen
from nodeagent.contract.ownership import AgentReport, Owner, ReportAnswer, Version
from nodeagent.infra.clock import Clock
from nodeagent.infra.registry_api import RegistryApi
from nodeagent.infra.settings.registry import RegistrySettings
from nodeagent.supervisor.link.reconcile import Offer

#: A list of cameras may be long, seconds.
LIST_READ_S = 10.0


class _Listed(Frozen):
    """One camera of a node's list; with epoch 0 one that it may claim."""

    camera: CameraSpec
    version: Version
    epoch: Epoch | Literal[0]


class Whereabouts(Frozen):
    """What a registry says of one camera.

    Attributes:
        known: whether there is such a camera and a node is to serve it.  Said in so many words: an answer of another
            kind must end nothing.
        owner: who owns it; none when nobody does.
    """

    known: bool
    owner: Owner | None = None


_LIST: Final = TypeAdapter(list[dict[str, Any]])


@dataclass(frozen=True, slots=True)
class Listing:
    """A node's cameras as a registry lists them.

    Attributes:
        offers: by camera.
        unfit: cameras whose configuration this agent cannot read, with the reason.
    """

    offers: dict[CameraId, Offer]
    unfit: dict[str, str]


class RegistryClient:
    """Asks the registries; any thread."""

    def __init__(self, settings: RegistrySettings, node_id: str, clock: Clock) -> None:
        """Connects at the first call.

        Raises:
            ConfigError: the token or the certificates cannot be read.
        """
        self._strategy = settings.strategy
        self._node_id = node_id
        self._api = RegistryApi(settings, clock)

    def report(self, report: AgentReport) -> ReportAnswer:
        """Report, and take the answer.

        Raises:
            Unavailable: no registry answered as it should.
            RegistryRefuses: one refused the report.
        """
        answer = self._api.ask("POST", f"nodes/{self._node_id}/report", body=report.model_dump_json().encode())
        try:
            return ReportAnswer.model_validate_json(answer)
        except ValidationError:
            raise Unavailable("the registry's answer to a report cannot be read") from None

    def cameras(self, incarnation: str) -> Listing:
        """The cameras that this life of the node is to serve, with credentials; with strategy `claim` also those that
        it may claim.

        Raises:
            Unavailable: no registry answered as it should.
            RegistryRefuses: one refused to tell.
        """
        path = f"nodes/{self._node_id}/cameras"
        params = {"incarnation": incarnation, "strategy": self._strategy}
        answer = self._api.ask("GET", path, params=params, read_s=LIST_READ_S)
        try:
            rows = _LIST.validate_json(answer)
        except ValidationError:
            raise Unavailable("the registry's list of cameras cannot be read") from None
        return _listing(rows)

    def owner(self, camera_id: CameraId) -> Whereabouts:
        """Who owns a camera.

        Raises:
            Unavailable: no registry answered as it should.
            RegistryRefuses: one refused to tell.
        """
        answer = self._api.ask("GET", f"cameras/{camera_id}/owner")
        try:
            return Whereabouts.model_validate_json(answer)
        except ValidationError:
            raise Unavailable("the registry's word on an owner cannot be read") from None

    def close(self) -> None:
        """Close all connections."""
        self._api.close()


def _listing(rows: Sequence[dict[str, Any]]) -> Listing:
    """The rows, each by itself: one that a newer registry fills with what this agent does not know spoils no other."""
    listing = Listing({}, {})
    for row in rows:
        camera = row.get("camera")
        name = str(camera.get("camera_id", "?")) if isinstance(camera, dict) else "?"
        try:
            listed = _Listed.model_validate(row)
        except ValidationError as exc:
            # Without the value: it may be a stream's URL.
            error = exc.errors(include_url=False, include_input=False)[0]
            listing.unfit[name] = f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
        else:
            camera_id = listed.camera.camera_id
            listing.offers[camera_id] = Offer(listed.camera, listed.version, listed.epoch)
    return listing
