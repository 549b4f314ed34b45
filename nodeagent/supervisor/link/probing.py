"""Probes that the registry orders: each is carried out by a process of its own, at most two at a time.

The link loads no video library, and what a camera sends can end no more than that process.  An order comes with every
answer until its result was taken, so a lost answer, or a link that is killed, costs a second; it is carried out once a
life of the link.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from nodeagent.contract.camera import REVEAL
from nodeagent.contract.probe import RESULTS_MOST, ProbeId, ProbeOrder, ProbeResult

log = logging.getLogger(__name__)

#: The process, by its module.
MODULE: Final = "nodeagent.capture.probe_camera"
#: Seconds that it has; its own alarm clock ends it sooner.
PROCESS_S: Final = 30.0
#: Probes at a time: each decodes nothing, but is a connection that a camera may not have to spare.
AT_ONCE: Final = 2
#: Orders that are known again when they come a second time.
KNOWN_MOST: Final = 64

_ID: Final[TypeAdapter[str]] = TypeAdapter(ProbeId)


def run_probe(order: ProbeOrder) -> ProbeResult:
    """Carry an order out; returns within PROCESS_S."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", MODULE],
            input=order.model_dump_json(context=REVEAL).encode(),
            stdout=subprocess.PIPE,
            # FFmpeg's own words may hold a URL.
            stderr=subprocess.DEVNULL,
            timeout=PROCESS_S,
            check=False,
        )
        return ProbeResult.model_validate_json(done.stdout)
    except subprocess.TimeoutExpired:
        why = f"it did not end within {PROCESS_S:.0f} s"
    except ValidationError:
        why = f"its process ended with code {done.returncode}"
    except OSError as exc:
        why = f"its process cannot be started: {exc.strerror}"
    return ProbeResult(probe_id=order.probe_id, trouble=why)


class Probing:
    """Orders and results of this life of the link; any thread."""

    def __init__(self, run: Callable[[ProbeOrder], ProbeResult] = run_probe) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._known: deque[str] = deque(maxlen=KNOWN_MOST)
        self._running = 0
        self._results: deque[ProbeResult] = deque(maxlen=RESULTS_MOST)

    def take(self, orders: Iterable[Mapping[str, Any]]) -> None:
        """Begin with the orders of an answer that are new; one that cannot be read is answered so."""
        for told in orders:
            try:
                probe_id = _ID.validate_python(told.get("probe_id"))
            except ValidationError:
                continue
            with self._lock:
                if probe_id in self._known:
                    continue
                self._known.append(probe_id)
            self._begin(probe_id, told)

    def results(self) -> tuple[ProbeResult, ...]:
        """For the next report."""
        with self._lock:
            return tuple(self._results)

    def told(self, results: Iterable[ProbeResult]) -> None:
        """A report with these results was answered."""
        with self._lock:
            for result in results:
                if result in self._results:
                    self._results.remove(result)

    def _begin(self, probe_id: str, told: Mapping[str, Any]) -> None:
        try:
            order = ProbeOrder.model_validate(told)
        except ValidationError as exc:
            # Without the value: it may be a stream's URL.
            where = ".".join(map(str, exc.errors(include_url=False, include_input=False)[0]["loc"]))
            self._end(ProbeResult(probe_id=probe_id, trouble=f"this agent cannot read the order: {where}"[:200]))
            return
        with self._lock:
            busy = self._running >= AT_ONCE
            self._running += not busy
        if busy:
            self._end(ProbeResult(probe_id=probe_id, trouble=f"the node has {AT_ONCE} probes under way already"))
            return
        log.info("probe of %d streams begins", len(order.streams), extra={"event": "probe"})
        threading.Thread(target=self._carry_out, args=(order,), name="probe", daemon=True).start()

    def _carry_out(self, order: ProbeOrder) -> None:
        try:
            result = self._run(order)
        except Exception:
            # The outermost line of the thread: without a result whoever asked would wait to the end.
            log.exception("a probe failed", extra={"event": "probe_failed"})
            result = ProbeResult(probe_id=order.probe_id, trouble="internal error, see the agent's log")
        with self._lock:
            self._running -= 1
        self._end(result)

    def _end(self, result: ProbeResult) -> None:
        with self._lock:
            self._results.append(result)
