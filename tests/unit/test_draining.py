"""How far a drain is: nothing that is not known is ever taken for done."""

from __future__ import annotations

import pytest

from nodeagent.contract.ownership import Unfinished
from registry.draining import NAMED_MOST, DrainState, Gone, sort_gone, state_of
from registry.member import NodePhase
from registry.tasks import START_S

NOTHING = Unfinished(cameras=0, clips=0, detections=0, alarms=0)
UNDER_WAY = Gone(starting=1)


@pytest.mark.parametrize(
    ("phase", "left", "gone", "unfinished", "state"),
    [
        (NodePhase.DRAINING, 1, UNDER_WAY, None, DrainState.MOVING),
        (NodePhase.DRAINING, 0, UNDER_WAY, NOTHING, DrainState.STARTING),
        (NodePhase.DRAINING, 0, Gone(), NOTHING, DrainState.DONE),
        # What nobody captures for long, such as a camera that is switched off, is named and keeps nobody waiting.
        (NodePhase.DRAINING, 0, Gone(uncaptured=("cam",)), NOTHING, DrainState.DONE),
        (NodePhase.DRAINING, 0, Gone(), None, DrainState.UNTOLD),
        (NodePhase.DRAINING, 0, Gone(), Unfinished(), DrainState.FINISHING),
        *(
            (NodePhase.DRAINING, 0, Gone(), NOTHING.model_copy(update={name: count}), DrainState.FINISHING)
            for name in Unfinished.model_fields
            for count in (1, None)
        ),
        # What it told before it fell silent may be otherwise by now.
        (NodePhase.SUSPECT, 0, Gone(), NOTHING, DrainState.FINISHING),
        (NodePhase.DEAD, 0, Gone(), NOTHING, DrainState.LOST),
        (NodePhase.DEAD, 0, UNDER_WAY, NOTHING, DrainState.STARTING),
        (NodePhase.DEAD, 2, Gone(), None, DrainState.MOVING),
    ],
)
def test_the_state_follows_from_what_is_known(
    phase: NodePhase, left: int, gone: Gone, unfinished: Unfinished | None, state: DrainState
) -> None:
    assert state_of(phase, left, gone, unfinished, reported=True) is state


def test_a_node_that_was_not_heard_yet_is_waited_for() -> None:
    assert state_of(NodePhase.DRAINING, 0, Gone(), None, reported=False) is DrainState.FINISHING


def test_a_camera_may_take_the_time_of_a_start_until_it_is_captured() -> None:
    left_s = {"early": 100.0, "late": 101.0, "seen": 90.0}
    assert sort_gone(left_s, frozenset({"seen"}), 101.0) == Gone(starting=2)
    assert sort_gone(left_s, frozenset({"seen"}), 100.0 + START_S) == Gone(1, ("early",))
    assert sort_gone(left_s, frozenset({"seen", "early", "late"}), 900.0) == Gone()
    many = {f"cam{n:03}": 0.0 for n in range(NAMED_MOST + 5)}
    assert sort_gone(many, frozenset(), START_S) == Gone(0, tuple(sorted(many)[:NAMED_MOST]))
