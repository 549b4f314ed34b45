"""When a rule alarms too often for anybody to look, and what is told of that.

Pure.  What counts is when alarms were confirmed (capture time), never when they are recorded, and a time before counts
as one after: so no hour ever holds more than so many that were told of, in whatever order messages come.

Alarms that are held count as well: a storm that goes on for a day is told of once, and lets none through each hour.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from nodeagent.contract.ids import NS_PER_S

#: The time in which alarms are counted, and without a held one after which a storm is over, ns.
HOUR_NS: Final = 3_600 * NS_PER_S
#: How long no alarm of a storm may have been recorded before its end is told, ns: judging may lag behind by hours, and
#: goes on in steps of clips.
SETTLED_NS: Final = 600 * NS_PER_S


def is_braked(others_ns: Sequence[int], confirmed_ns: int, per_hour: int) -> bool:
    """Whether some hour around `confirmed_ns` is full: holds `per_hour` other alarms.

    Args:
        others_ns: when the others were confirmed, at least the `per_hour` nearest on each side; in any order.
        confirmed_ns: when this one was.
        per_hour: most alarms of an hour; 0: as many as come.
    """
    if not per_hour:
        return False
    near = sorted(at for at in others_ns if abs(at - confirmed_ns) < HOUR_NS)
    # An hour that is full stays so when it begins with its first alarm, this one included.
    starts = [at for at in near if at <= confirmed_ns] + [confirmed_ns]
    return any(bisect_left(near, at + HOUR_NS) - bisect_left(near, at) >= per_hour for at in starts)


def is_over(last_ns: int, touched_ns: int, now_ns: int) -> bool:
    """Whether a storm is to be told as over.

    Args:
        last_ns: capture time of the last alarm that was held.
        touched_ns: wall clock at which one was recorded last.
        now_ns: wall clock.
    """
    return now_ns >= max(last_ns + HOUR_NS, touched_ns + SETTLED_NS)


def summary_key(camera_id: str, rule_id: str, first_key: str, *, over: bool) -> str:
    """Key of what is told at the start or end of a storm whose first held alarm has this key (32 hex digits)."""
    text = "\x1f".join(("storm over" if over else "storm", camera_id, rule_id, first_key))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def began_text(camera_id: str, rule_id: str, per_hour: int) -> str:
    """What is told at the start."""
    return f"rule {rule_id} on camera {camera_id}: {_count(per_hour)} within the hour, further ones are recorded only"


def over_text(camera_id: str, rule_id: str, held: int) -> str:
    """What is told at the end."""
    return f"rule {rule_id} on camera {camera_id}: the storm is over, {_count(held)} more recorded and not told"


def _count(alarms: int) -> str:
    return f"{alarms} alarm{'s' if alarms != 1 else ''}"
