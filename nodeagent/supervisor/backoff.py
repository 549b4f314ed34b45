"""How long a child that died waits before it is started again.  Pure; the caller throws the dice.

Nothing here gives up: a camera that was unplugged for a month is back within a minute of its power.
"""

from __future__ import annotations

#: Ceiling of the first delay, seconds.  Doubles at each failure in a row: one crash costs a camera under a second.
RESTART_MIN_S = 0.5
#: Ceiling of any delay, and the delay of a child that said a restart cannot mend it, seconds.
RESTART_MAX_S = 60.0
#: A child that was able to work for so long has shown that its start is sound: the count begins anew, seconds.
HEALTHY_S = 30.0
#: Beyond this exponent the delay is at its ceiling anyway; keeps the power small.
_EXPONENT_MAX = 30


def restart_delay_s(failures: int, jitter: float) -> float:
    """Delay before the restart after `failures` (from 1) in a row; `jitter` in [0, 1) spreads it over its upper half.

    The spread keeps children that a common cause killed from all coming back at once.
    """
    ceiling = min(RESTART_MAX_S, RESTART_MIN_S * 2 ** min(failures - 1, _EXPONENT_MAX))
    return float(ceiling * (0.5 + 0.5 * jitter))


def failures_after(failures: int, worked_s: float) -> int:
    """Failures in a row once a child has ended that was able to work for `worked_s` (0: never got there)."""
    return 1 if worked_s >= HEALTHY_S else failures + 1
