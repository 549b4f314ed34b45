"""Cameras that members took from their nodes, and what happened to them before that was carried out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine

from nodeagent.contract.ownership import Owner
from registry.core.evictions import Evictions
from registry.core.site import Site
from registry.membership import Reborn
from registry.store.epochs import Epochs
from registry.tasks import Orphan

OLD_LIFE, NEW_LIFE = "a" * 16, "b" * 16


class Gives:
    """Hands that note what they give."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def give(self, camera_id: str, *_rest: Any) -> None:
        self.given.append(camera_id)


def owner(node_id: str, epoch: int) -> Owner:
    return Owner(node_id=node_id, incarnation=OLD_LIFE, epoch=epoch)


def test_a_camera_that_was_moved_by_hand_does_not_go_back_to_a_node_that_was_started_anew() -> None:
    site = Site(Epochs(create_engine("sqlite://")), 0.0)
    for camera_id in ("gate", "yard"):
        site.granted(camera_id, owner("rack1", 5), "it is new", 1, 0.0)
    hands = Gives()
    evictions = Evictions(hands, site, gives_back=True)  # type: ignore[arg-type]
    orphans = tuple(Orphan(camera_id, owner("rack1", 5)) for camera_id in ("gate", "yard"))
    evictions.note([Reborn("rack1", NEW_LIFE, orphans, steady=True)], lambda _node: True)
    # In the same turn, before what was decided is carried out, somebody moves one of them.
    site.granted("gate", owner("rack2", 6), "moved by anna", 2, 0.0)
    assert evictions.act(lambda: True)
    assert hands.given == ["yard"]
    evictions.act(lambda: True)
    assert hands.given == ["yard"], "what is done is due no more"
