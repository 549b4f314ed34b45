"""Questions to placement, made from what the registry knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nodeagent.contract.ids import CameraId, NodeId
from registry.core.catalogue import Catalogue
from registry.core.site import Site
from registry.core.wishes import SPREAD, Costs, Question, members_of, nodes_of, wish
from registry.explain import Explanation, explain
from registry.membership import NodeView
from registry.placement import Placement, capacity_without
from registry.placement_load import Scales, loads, used_of
from registry.placement_rules import Camera, Members, estimate
from registry.placement_table import Cameras, Nodes


class Asked:
    """Makes questions; any thread."""

    def __init__(self, site: Site, catalogue: Catalogue) -> None:
        self._site, self._catalogue = site, catalogue
        #: The groups of cameras, and the catalogue's version that they are of.
        self._groups: tuple[int, Mapping[CameraId, str]] = (-1, {})

    def costs(self) -> Costs:
        """What cameras need, as far as was measured."""
        with self._site.lock:
            measured = dict(self._site.costs)
        return Costs(measured, estimate(measured.values()))

    def cameras(self, camera_ids: Iterable[CameraId], costs: Costs) -> list[Camera]:
        """Those of these cameras that there are, as placement sees them."""
        found = []
        with self._site.lock:
            for camera_id in camera_ids:
                row = self._catalogue.get(camera_id)
                if row is not None:
                    found.append(wish(row, costs.of(camera_id), self._site.members.tasks.avoid(camera_id)))
        return found

    def groups(self) -> Mapping[CameraId, str]:
        """The group of each camera that is to be kept apart from others."""
        version, found = self._groups
        if version != self._catalogue.version:
            version = self._catalogue.version
            rows = (self._catalogue.get(camera_id) for camera_id in self._catalogue.wanted)
            found = {row.camera_id: row.labels[SPREAD] for row in rows if row is not None and row.labels.get(SPREAD)}
            self._groups = version, found
        return found

    def where(
        self,
        camera_ids: Iterable[CameraId],
        views: Sequence[NodeView],
        forced: bool = False,
        orphans: frozenset[CameraId] = frozenset(),
    ) -> Question:
        """Where these cameras should go; see `Question`."""
        costs = self.costs()
        return Question(self.cameras(camera_ids, costs), views, costs, self.groups(), forced, orphans)

    def loads(self, views: Sequence[NodeView]) -> dict[NodeId, float]:
        """How full each node is, as placement counts; 1 is full."""
        nodes = Nodes.of(nodes_of(views, self.costs()))
        return dict(zip(nodes.ids, loads(used_of(nodes), Scales.of(nodes).per).tolist(), strict=True))

    def without(self, view: NodeView, views: Sequence[NodeView]) -> Placement:
        """Where a node's cameras would go without it."""
        costs = self.costs()
        cameras, nodes = self.cameras(view.cameras, costs), nodes_of(views, costs, joining=True)
        return capacity_without(view.node_id, Cameras.of(cameras), Nodes.of(nodes), self._members(views))

    def explain(self, camera_id: CameraId, owner: str, views: Sequence[NodeView]) -> Explanation | None:
        """Why a camera is where it is, and how it would do elsewhere; none: there is no such camera."""
        costs = self.costs()
        cameras, nodes = self.cameras([camera_id], costs), nodes_of(views, costs, joining=True)
        return explain(cameras[0], nodes, owner=owner, members=self._members(views)) if cameras else None

    def _members(self, views: Sequence[NodeView]) -> Members:
        return members_of(views, self.groups())
