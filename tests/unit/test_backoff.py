from nodeagent.supervisor.backoff import HEALTHY_S, RESTART_MAX_S, RESTART_MIN_S, failures_after, restart_delay_s


def test_delays_double_up_to_the_ceiling_and_stay_there() -> None:
    ceilings = [restart_delay_s(n, 1.0) for n in range(1, 12)]
    assert ceilings[:3] == [RESTART_MIN_S, 2 * RESTART_MIN_S, 4 * RESTART_MIN_S]
    assert ceilings == sorted(ceilings)
    assert ceilings[-1] == restart_delay_s(100_000, 1.0) == RESTART_MAX_S


def test_jitter_spreads_over_the_upper_half() -> None:
    assert restart_delay_s(3, 0.0) == restart_delay_s(3, 1.0) / 2


def test_a_healthy_time_begins_the_count_anew() -> None:
    assert failures_after(7, HEALTHY_S) == 1
    assert failures_after(7, HEALTHY_S - 0.1) == 8
    assert failures_after(0, 0.0) == 1
