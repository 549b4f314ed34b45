import pytest

from nodeagent.contract.phases import IllegalStep, step
from nodeagent.contract.report import Phase
from nodeagent.supervisor.lifecycle import ALIVE, NEXT, Event


def test_every_phase_has_a_row() -> None:
    assert set(NEXT) == set(Phase)


def test_every_phase_can_be_reached_and_left() -> None:
    reached = {to for row in NEXT.values() for to in row.values()}
    assert reached == set(Phase)
    assert all(set(row.values()) - {phase} for phase, row in NEXT.items())


def test_a_process_can_always_end_and_always_be_told_to_stop() -> None:
    for phase in Phase:
        assert step(NEXT, phase, Event.STOP) in {Phase.STOPPING, Phase.EXITED}
    for phase in ALIVE:
        assert step(NEXT, phase, Event.ENDED) not in ALIVE
        assert step(NEXT, phase, Event.GAVE_UP) not in ALIVE


def test_only_a_phase_without_a_process_starts_one() -> None:
    assert {phase for phase in Phase if Event.SPAWN in NEXT[phase]} == set(Phase) - ALIVE


@pytest.mark.parametrize(
    ("phase", "event"), [(Phase.EXITED, Event.READY), (Phase.BACKOFF, Event.ENDED), (Phase.RUNNING, Event.SPAWN)]
)
def test_an_unknown_pair_is_refused(phase: Phase, event: Event) -> None:
    with pytest.raises(IllegalStep, match=f"{event.value} while {phase.value}"):
        step(NEXT, phase, event)
