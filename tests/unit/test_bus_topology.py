"""The bus's names and numbers."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from nodeagent.infra.bus.rabbitmq_layout import camera_bindings, stale_bindings
from nodeagent.infra.bus.topology import DETECTIONS, SHARDS_MAX, Node, detections_queue
from nodeagent.infra.settings.sections import JudgeSettings


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
