"""The time by which clips are old: the wall clock, but not at once when it has jumped ahead.

A clock that is set years ahead by mistake would make every clip old, and what is deleted does not come back when the
mistake is seen.  So after a jump the ages stand where they were, and go on with the time that really passes, for a day.
An agent that was off for longer than a day looks the same from here, and then deletes a day late.

A clock that is set back makes clips younger at once, which deletes nothing.  Where it was set back from is remembered
for a day: a computer without a battery clock begins each start years ago, and goes on there when it has heard the time.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.files import write_atomically

log = logging.getLogger(__name__)

#: A clock that is further ahead than this has jumped, ns: no clock drifts by a day.
JUMP_NS = 24 * 3600 * NS_PER_S
#: How long a jump is not believed, seconds: a person or a time server has noticed by then.
HOLD_S = 24 * 3600.0
#: How often the time is kept for the next start, seconds: less than a jump, so that a crash is none.
KEEP_S = 3600.0


class AgeClock:
    """Follows the wall clock; for one thread.

    Args:
        path: file that keeps the time over a restart.
        wall_ns, monotonic_s: the clocks now.
    """

    def __init__(self, path: Path, wall_ns: int, monotonic_s: float) -> None:
        self._path = path
        self._kept_s: float | None = None
        self._trusted_ns, self._trusted_s = _read(path, wall_ns), monotonic_s
        self._held_since_s: float | None = None
        self._held_ahead = False

    def now_ns(self, wall_ns: int, monotonic_s: float) -> int:
        """The time by which clips are old, UTC ns."""
        expected_ns = self._trusted_ns + round((monotonic_s - self._trusted_s) * NS_PER_S)
        ahead = wall_ns > expected_ns
        if abs(wall_ns - expected_ns) > JUMP_NS:
            if self._held_since_s is None or ahead != self._held_ahead:
                self._held_since_s, self._held_ahead = monotonic_s, ahead
                log.warning(
                    "the clock is %.1f days %s what it was: for %.0f hours %s",
                    abs(wall_ns - expected_ns) / JUMP_NS,
                    "ahead of" if ahead else "behind",
                    HOLD_S / 3600,
                    "no clip is old by it" if ahead else "it may come back",
                    extra={"event": "clock_jumped"},
                )
            if monotonic_s - self._held_since_s < HOLD_S:
                return min(wall_ns, expected_ns)
        self._held_since_s = None
        self._trusted_ns, self._trusted_s = wall_ns, monotonic_s
        if self._kept_s is None or monotonic_s - self._kept_s >= KEEP_S:
            self._kept_s = monotonic_s
            self._keep(wall_ns)
        return wall_ns

    def _keep(self, wall_ns: int) -> None:
        try:
            write_atomically(self._path, json.dumps({"v": 1, "wall_ns": wall_ns}).encode())
        except OSError as exc:
            log.warning("%s cannot be written: %s", self._path, exc.strerror, extra={"event": "clock_not_kept"})


def _read(path: Path, wall_ns: int) -> int:
    """The time that was kept; now when there is none, or none that can be read."""
    try:
        return int(json.loads(path.read_bytes())["wall_ns"])
    except (OSError, ValueError, KeyError, TypeError):
        return wall_ns
