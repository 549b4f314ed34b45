"""What the leader restores: whatever is remembered by whom, epochs only grow, and what is served stays served."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.contract.ownership import Owner, TaskPhase, TaskStatus
from registry.core.memories import Memory, best, compare, owned

CAMERAS = ("cam-1", "cam-2", "cam-3")
epochs = st.integers(1, 6)
owners = st.builds(Owner, node_id=st.sampled_from(("n1", "n2")), incarnation=st.just("0" * 16), epoch=epochs)


def _status(owner: Owner | None, owns: bool) -> TaskStatus:
    phase = TaskPhase.OWNED if owns and owner is not None else TaskPhase.POOLED
    return TaskStatus(phase=phase, owner=owner, since_ms=1)


statuses = st.builds(_status, st.none() | owners, st.booleans())
memories = st.lists(st.tuples(st.sampled_from(CAMERAS), statuses), max_size=12)


def epoch(status: TaskStatus | None) -> int:
    return status.owner.epoch if status is not None and status.owner is not None else 0


@given(
    state=st.dictionaries(st.sampled_from(CAMERAS), statuses),
    remembered=memories,
    wanted=st.none() | st.frozensets(st.sampled_from(CAMERAS)),
    above=st.integers(0, 2),
)
def test_what_is_restored_only_raises_epochs_and_is_wanted(
    state: dict[str, TaskStatus], remembered: list[Memory], wanted: frozenset[str] | None, above: int
) -> None:
    known = {camera: max([epoch(s) for c, s in remembered if c == camera] or [0]) + above for camera in CAMERAS}
    found = compare(state, remembered, wanted, lambda camera: known[camera])
    for camera, status in found.lost.items():
        assert wanted is None or camera in wanted
        assert camera not in state or epoch(status) > epoch(state[camera])
        assert epoch(status) == max(epoch(s) for c, s in remembered if c == camera)
        if status.phase is TaskPhase.OWNED:
            assert epoch(status) == known[camera], "an owner whose epoch somebody has passed is nobody"
    for camera in state.keys() & {c for c, _ in remembered}:
        newer = epoch(best(remembered)[camera]) > epoch(state[camera])
        assert (camera in found.lost) == (newer and (wanted is None or camera in wanted))
    told = {*state, *found.lost, *found.unknown}
    if wanted is not None:
        assert wanted <= told
        assert set(found.unwanted) == state.keys() - wanted
        assert not set(found.unknown) & {*state, *found.lost}


def test_of_two_memories_of_one_epoch_the_nearer_one_counts() -> None:
    serves = Owner(node_id="n1", incarnation="a" * 16, epoch=5)
    wrote = Owner(node_id="n1", incarnation="b" * 16, epoch=5)
    older = Owner(node_id="n2", incarnation="c" * 16, epoch=4)
    assert best([owned("cam", older), owned("cam", serves), owned("cam", wrote)])["cam"].owner == serves
    # Evicted, and not written down yet: it is nobody's, whatever the database still says.
    pooled = TaskStatus(phase=TaskPhase.POOLED, owner=wrote, since_ms=1)
    assert best([("cam", pooled), owned("cam", wrote)])["cam"] == pooled
