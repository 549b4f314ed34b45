"""The bus's names and numbers."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from nodeagent.infra.bus.rabbitmq_layout import camera_bindings, layout, stale_bindings
from nodeagent.infra.bus.topology import CLIPS, DETECTIONS, SHARDS_MAX, Node, detections_queue
from nodeagent.infra.settings.sections import SHARED_WORDS, JudgeSettings, NodeSettings


def test_the_most_shards_are_those_that_the_settings_allow() -> None:
    assert JudgeSettings(shards=SHARDS_MAX).shards == SHARDS_MAX
    with pytest.raises(ValidationError):
        JudgeSettings(shards=SHARDS_MAX + 1)


@pytest.mark.parametrize("shards", [1, 2, SHARDS_MAX])
def test_a_camera_is_bound_to_one_shard_and_stale_in_all_others(shards: int) -> None:
    node = Node("n1", shards)
    bound = {item.queue for item in camera_bindings(node, "cam") if item.exchange == DETECTIONS}
    stale = {item.queue for item in stale_bindings(node, "cam")}
    assert len(bound) == 1
    assert bound | stale == {detections_queue("n1", shard) for shard in range(SHARDS_MAX)}
    assert not bound & stale


def names_of(node: Node) -> set[str]:
    made = layout(node)
    return {item.name for item in (*made.queues, *made.exchanges)}


@pytest.mark.parametrize("node_id", ["n1", "spilling", "site.dead", "n-dead", "x.retry.5"])
def test_usual_names_are_taken_and_share_no_queue_with_others(node_id: str) -> None:
    assert NodeSettings(node_id=node_id).node_id == node_id
    shared = names_of(Node("one")) & names_of(Node("two"))
    assert not {Node(node_id).queue_for(kind, "cam") for kind in (CLIPS, DETECTIONS)} & shared


def test_every_name_whose_queues_would_be_shared_ones_is_refused() -> None:
    shared = names_of(Node("one")) & names_of(Node("two"))
    of_nodes = {name.split(".", 1)[1] for name in shared if "." in name}
    # `detections.retry.5` is the queue of shard 5 of a node `retry` as well.
    of_nodes |= {name.rsplit(".", 1)[0] for name in of_nodes if "." in name}
    assert of_nodes >= SHARED_WORDS
    for node_id in of_nodes:
        with pytest.raises(ValidationError, match="expected another name"):
            NodeSettings(node_id=node_id)
