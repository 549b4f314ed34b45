"""Hands the cameras of draining nodes over, so many at a time: the new owner captures before the next ones go.

A camera is given straight to its new owner, over the old one, which serves it until it reads so.  A node that leaves by
its own word has little time: all of its cameras go at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import Owner
from registry.core.asked import Asked
from registry.core.hands import Hands
from registry.core.site import Site
from registry.core.wishes import decide
from registry.member import NodePhase
from registry.membership import NodeView
from registry.store.nodes import DrainOrder

#: Cameras of one node that are on their way at a time: so few open at once that each does within a second or two.
AT_ONCE = 8
#: Seconds after which a camera that is not captured by its new owner no longer keeps the next ones waiting.
ON_THE_WAY_S = 8.0
#: Seconds between two tries to find nodes for cameras that fit nowhere.
AGAIN_S = 5.0


class Drains:
    """The drains of one term."""

    def __init__(self, hands: Hands, site: Site, asked: Asked) -> None:
        self._hands, self._site, self._asked = hands, site, asked
        self._under_way: dict[NodeId, dict[CameraId, tuple[Owner, float]]] = {}
        self._again_at_s: dict[NodeId, float] = {}

    def act(self, orders: Mapping[NodeId, DrainOrder], now_s: float, goes_on: Callable[[], bool]) -> None:
        """Take the next steps, while `goes_on`.

        Raises:
            Fenced, Unavailable: as hands do; what was not moved stays where it is.
        """
        views = self._site.views(now_s)
        draining = [view for view in views if view.phase is NodePhase.DRAINING]
        self._forget({view.node_id for view in draining})
        for view in draining:
            if view.cameras and goes_on():
                forced = view.node_id in orders and orders[view.node_id].forced
                self._step(view, views, forced, now_s, goes_on)

    def _step(
        self, view: NodeView, views: Sequence[NodeView], forced: bool, now_s: float, goes_on: Callable[[], bool]
    ) -> None:
        node_id = view.node_id
        under_way = self._under_way.setdefault(node_id, {})
        for camera_id, (owner, until_s) in list(under_way.items()):
            if now_s >= until_s or self._site.is_captured(camera_id, owner):
                del under_way[camera_id]
        free = len(view.cameras) if view.leaving else AT_ONCE - len(under_way)
        if free <= 0 or now_s < self._again_at_s.get(node_id, now_s):
            return
        # A node that leaves by its own word is about to stop: what stays with it is recorded by nobody.
        orphans = frozenset(view.cameras) if view.leaving else frozenset[CameraId]()
        decisions = decide(self._asked.where(view.cameras[:free], views, forced, orphans))
        lives = {other.node_id: other.life for other in views}
        for decision in decisions:
            life = lives.get(decision.node_id or "")
            if life is None or decision.node_id is None or not goes_on():
                continue
            reason = f"node {node_id} drains" if view.ordered else f"node {node_id} leaves"
            explanation = {"why": decision.why.value, "detail": decision.detail}
            given = self._hands.give(decision.camera_id, decision.node_id, life.incarnation, reason, explanation)
            if given is not None:
                under_way[decision.camera_id] = (given, now_s + ON_THE_WAY_S)
        stuck = [decision for decision in decisions if decision.node_id is None]
        with self._site.lock:
            self._site.trouble[node_id] = f"camera {stuck[0].camera_id}: {stuck[0].detail}" if stuck else ""
        if len(stuck) == len(decisions):
            self._again_at_s[node_id] = now_s + AGAIN_S

    def _forget(self, draining: set[NodeId]) -> None:
        for node_id in self._under_way.keys() - draining:
            del self._under_way[node_id]
            self._again_at_s.pop(node_id, None)
