"""Moves cameras between live nodes, slowly, until they are as full as each other.

A move gives the camera to its new node over the old one.  Nothing moves while cameras wait for a node, while evictions
are held, or while a node drains: first things first.
"""

from __future__ import annotations

import logging

from nodeagent.contract.ids import NS_PER_MS
from nodeagent.infra.clock import Clock
from registry.core.asked import Asked
from registry.core.hands import Hands
from registry.core.site import Site
from registry.core.wishes import nodes_of
from registry.membership import NodeView
from registry.placement_table import Nodes
from registry.rebalance import Fleet, Placed, rebalance

log = logging.getLogger(__name__)

#: Seconds between two looks: at 1 % a minute there is little to do in between.
LOOK_S = 10.0


class Evening:
    """The rebalancing of one term."""

    def __init__(
        self, hands: Hands, site: Site, asked: Asked, clock: Clock, part_per_minute: float, now_s: float
    ) -> None:
        """`part_per_minute`: of all cameras at most this part moves within a minute, but one may always."""
        self._hands, self._site, self._asked, self._clock = hands, site, asked, clock
        self._part_per_minute = part_per_minute
        self._at_s = now_s + LOOK_S
        self._going = False

    def act(self, now_s: float) -> None:
        """Make the next moves, if it is time.

        Raises:
            Fenced, Unavailable: as hands do.
        """
        if now_s < self._at_s:
            return
        self._at_s = now_s + LOOK_S
        views = self._site.views(now_s)
        plan = rebalance(self._fleet(views, now_s), now_s, self._going, self._part_per_minute)
        self._going = plan.going
        lives = {view.node_id: view.life for view in views}
        for move in plan.moves:
            life = lives.get(move.goes_to)
            if life is not None:
                reason = f"{move.leaves} was fuller than {move.goes_to} by {move.gap:.0%} of the mean"
                self._hands.give(move.camera_id, move.goes_to, life.incarnation, reason)

    def _fleet(self, views: list[NodeView], now_s: float) -> Fleet:
        now_ms = self._clock.wall_ns() // NS_PER_MS
        with self._site.lock:
            since_ms = {camera_id: status.since_ms for camera_id, status in self._site.statuses.items()}
        costs = self._asked.costs()
        placed = []
        for view in views:
            for camera in self._asked.cameras(view.cameras, costs):
                age_s = max(0.0, (now_ms - since_ms.get(camera.camera_id, 0)) / 1000)
                placed.append(Placed(camera=camera, node_id=view.node_id, moved_s=now_s - age_s))
        return Fleet.of(placed, Nodes.of(nodes_of(views, costs)))
