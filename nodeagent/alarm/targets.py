"""Which push targets fail now, and who may ask one that keeps everybody waiting.

A target that does not answer costs each alarm its whole time-out.  So only one alarm at a time finds out whether it is
back; the others leave it out and come again later.  Kept in memory only: after a restart it is found out anew.

Safe to use from several threads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from nodeagent.infra.alarm_records import AlarmRow, PushRow
from nodeagent.infra.clock import Clock
from nodeagent.infra.settings.sections import PushSettings

log = logging.getLogger(__name__)

#: Pause after which another alarm may ask a silent target, seconds: the one that found it silent may be in a longer
#: delay, or gone.
PROBE_S = 30.0
#: A refusal that takes longer counts as silence, milliseconds: a gateway answers for a server that hangs behind it.
SLOW_MS = 1000


@dataclass(slots=True)
class _Silence:
    """A target that keeps those waiting who ask it: the alarm that asks it, and when another one may, monotonic."""

    prober: str
    until_s: float


class Targets:
    """All push targets of the node."""

    def __init__(self, targets: Sequence[PushSettings], clock: Clock) -> None:
        self._targets = tuple(targets)
        self._clock = clock
        self._lock = threading.Lock()
        self._silent: dict[str, _Silence] = {}
        self._failing: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._targets)

    @property
    def timeouts_s(self) -> float:
        """Seconds that asking all of them may take."""
        return sum(target.timeout_s for target in self._targets)

    @property
    def failing(self) -> dict[str, str]:
        """What the last attempt at a target gave, by its name, where that was no success."""
        with self._lock:
            return dict(self._failing)

    def owed(self, row: AlarmRow) -> list[PushSettings]:
        """Targets that have not accepted this alarm yet, silent ones last."""
        accepted = {push.target for push in row.pushes if push.accepted}
        owed = [target for target in self._targets if target.name not in accepted]
        with self._lock:
            return sorted(owed, key=lambda target: target.name in self._silent)

    def may_ask(self, target: PushSettings, key: str) -> bool:
        """Whether this alarm may ask now."""
        with self._lock:
            return self._may_ask(target, key)

    def reserve(self, target: PushSettings, key: str) -> bool:
        """As `may_ask`; of a silent target others are kept away until it answers or the time is up."""
        with self._lock:
            if not self._may_ask(target, key):
                return False
            if target.name in self._silent:
                until_s = self._clock.monotonic_s() + target.timeout_s + PROBE_S
                self._silent[target.name] = _Silence(key, until_s)
            return True

    def _may_ask(self, target: PushSettings, key: str) -> bool:
        silence = self._silent.get(target.name)
        return silence is None or silence.prober == key or self._clock.monotonic_s() >= silence.until_s

    def note(self, push: PushRow, key: str) -> None:
        """Take in what an attempt gave."""
        with self._lock:
            was_failing = push.target in self._failing
            if push.accepted:
                self._failing.pop(push.target, None)
            else:
                self._failing[push.target] = push.error
            if push.accepted or (push.status is not None and push.duration_ms < SLOW_MS):
                self._silent.pop(push.target, None)
            else:
                until_s = self._clock.monotonic_s() + PROBE_S
                silence = self._silent.setdefault(push.target, _Silence(key, until_s))
                silence.until_s = until_s
        if was_failing == push.accepted:
            if push.accepted:
                log.info("push to %s is accepted again", push.target, extra={"event": "push_accepted"})
            else:
                log.warning("push to %s fails: %s", push.target, push.error, extra={"event": "push_failing"})
