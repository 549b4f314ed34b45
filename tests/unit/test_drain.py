"""A worker that was told to stop leaves when its queue is empty or its time is over."""

from nodeagent.infra.drain import Drain
from nodeagent.infra.stop import Stop


class TurnedClock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ns(self) -> int:
        return 0


def test_nobody_leaves_without_a_request() -> None:
    drain = Drain(Stop(), TurnedClock(), limit_s=3.0)
    assert not any(drain.over(took) for took in (True, False, False))


def test_one_more_look_is_made_after_the_request_and_an_empty_queue_ends_it() -> None:
    stop = Stop()
    drain = Drain(stop, TurnedClock(), limit_s=3.0)
    stop.request()
    assert not drain.over(took=False), "what the stage before sent last may have come after that look"
    assert not drain.over(took=True)
    assert drain.over(took=False)


def test_a_backlog_ends_with_the_time() -> None:
    stop, clock = Stop(), TurnedClock()
    drain = Drain(stop, clock, limit_s=3.0)
    stop.request()
    assert not drain.over(took=True)
    clock.now_s += 2.9
    assert not drain.over(took=True)
    clock.now_s += 0.1
    assert drain.over(took=True)
