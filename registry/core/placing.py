"""Gives waiting cameras to nodes: decided for all of them at once, carried out a part in each turn.

What fits nowhere waits, and is asked for again when a node or a camera changed, or a while later.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence

from nodeagent.contract.ids import CameraId
from registry.core.asked import Asked
from registry.core.hands import Hands
from registry.core.site import Site
from registry.core.wishes import decide
from registry.member import NodePhase
from registry.membership import NodeView
from registry.placement_rules import Decision

log = logging.getLogger(__name__)

#: Seconds after which cameras that no node could take are asked for again: measured costs may have fallen.
AGAIN_S = 5.0


class Placing:
    """The waiting cameras of one term."""

    def __init__(self, hands: Hands, site: Site, asked: Asked) -> None:
        self._hands, self._site, self._asked = hands, site, asked
        self._queue: deque[Decision] = deque()
        self._stuck: frozenset[CameraId] = frozenset()
        self._saw: tuple[object, ...] = ()
        self._again_at_s = float("-inf")

    def act(self, wanted: Collection[CameraId], now_s: float, goes_on: Callable[[], bool]) -> None:
        """Place what waits, while `goes_on`.

        Raises:
            Fenced, Unavailable: as hands do; what was not placed waits still.
        """
        with self._site.lock:
            waiting = sorted(camera_id for camera_id in self._site.waiting if camera_id in wanted)
        if not waiting:
            self._queue.clear()
            return
        views = self._site.views(now_s)
        saw = tuple((view.node_id, view.phase, view.life) for view in views)
        if saw != self._saw:
            # Nodes changed: what was decided may be wrong by now.
            self._queue.clear()
            self._saw, self._again_at_s = saw, float("-inf")
        if not self._queue and not self._is_stuck(waiting, now_s):
            self._decide(waiting, views, now_s)
        lives = {view.node_id: view.life for view in views}
        while self._queue and goes_on():
            decision = self._queue[0]
            life = lives.get(decision.node_id or "")
            if life is not None and decision.node_id is not None and decision.camera_id in self._site.waiting:
                why = self._site.causes.get(decision.camera_id, "it had no owner")
                explanation = {"why": decision.why.value, "detail": decision.detail}
                self._hands.give(decision.camera_id, decision.node_id, life.incarnation, why, explanation)
            self._queue.popleft()

    def _is_stuck(self, waiting: Sequence[CameraId], now_s: float) -> bool:
        return now_s < self._again_at_s and self._stuck.issuperset(waiting)

    def _decide(self, waiting: Sequence[CameraId], views: Sequence[NodeView], now_s: float) -> None:
        if not any(view.phase in (NodePhase.LIVE, NodePhase.JOINING) for view in views):
            return
        with self._site.lock:
            statuses = self._site.statuses
            orphans = frozenset(camera_id for camera_id in waiting if statuses[camera_id].owner is not None)
        decisions = decide(self._asked.where(waiting, views, orphans=orphans))
        self._queue.extend(decision for decision in decisions if decision.node_id is not None)
        nowhere = {decision.camera_id: decision for decision in decisions if decision.node_id is None}
        for camera_id in sorted(nowhere.keys() - self._stuck):
            decision = nowhere[camera_id]
            log.warning(
                "camera %s: no node can take it: %s", camera_id, decision.detail,
                extra={"event": "camera_unplaced", "camera": camera_id, "why": decision.why.value},
            )  # fmt: skip
        with self._site.lock:
            for camera_id, decision in nowhere.items():
                self._site.reasons[camera_id] = decision.detail
        self._stuck = frozenset(nowhere)
        self._again_at_s = now_s + AGAIN_S
