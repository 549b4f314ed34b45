"""How long a condition has held, per place: a clock on watched time that begins anew each time the condition does.

Pure.  It stands still over a gap, because a step over a gap is 0: what was not seen neither holds nor fails.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from nodeagent.judge.association import Flags
from nodeagent.judge.memory import Records
from nodeagent.judge.tracker import Ints

#: Watched time for which the condition has held, and capture time since which it does; 0: it does not.
CLOCK: Final = np.dtype([("on_ns", "<i8"), ("since_ns", "<i8")])


def run(clocks: Records, on: Flags, sample_ns: int, step_ns: int) -> Ints:
    """Advance `clocks`, of a type with the fields of CLOCK, in place; return how long each has been on.

    Args:
        clocks: any shape.
        on: bool of the same shape, whether the condition holds now.
        sample_ns: capture time.
        step_ns: watched time since the sample before.
    """
    on_ns, since_ns = clocks["on_ns"], clocks["since_ns"]
    went_on = on & (since_ns > 0)
    on_ns += step_ns
    on_ns *= went_on
    since_ns *= went_on
    since_ns += sample_ns * (on & ~went_on)
    found: Ints = on_ns
    return found
