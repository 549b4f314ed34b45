"""The link's conversation with the registry, in threads of its own: a registry that is slow holds no renewal up.

One thread reports once a second, the other asks for the list of cameras when it is told to: a list that takes long must
not keep reports back, or the node is taken for dead.  What they hear lies here until the work loop takes it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import NS_PER_S, CameraId
from nodeagent.contract.ownership import LEASE_S, REPORT_S, SKEW_NS, AgentReport, Owner, ReportAnswer
from nodeagent.contract.states import State
from nodeagent.infra.board import BoardCell
from nodeagent.infra.clock import Clock
from nodeagent.infra.registry_api import RegistryRefuses
from nodeagent.infra.wanted import Grant
from nodeagent.supervisor.link.client import Listing, Whereabouts
from nodeagent.supervisor.link.probing import Probing

log = logging.getLogger(__name__)

#: Least time between two questions for the list, seconds: what one answer leaves open is asked for soon, not in a spin.
ASK_LEAST_S = 0.25
#: The same after a failure, seconds.
ASK_AGAIN_S = 1.0
#: What is being asked at the end is waited for so long, seconds: its time-outs, for one registry.
CLOSE_S = 3.0
#: How long nobody looks whether the list is wanted, unless he is told, seconds.
IDLE_S = 60.0
#: Cameras that a list lacks are asked for one by one, so many at a time.
NAMED_AT_ONCE = 50

Trouble = tuple[State, str]


class Registry(Protocol):
    """What is asked of a registry; `client.RegistryClient` says what each call raises."""

    def report(self, report: AgentReport) -> ReportAnswer:
        """Report, and take the answer."""
        ...

    def cameras(self, incarnation: str) -> Listing:
        """The cameras of this life of the node."""
        ...

    def owner(self, camera_id: CameraId) -> Whereabouts:
        """Who owns a camera."""
        ...


class Reporter(Protocol):
    """Makes reports (`report.Reports`)."""

    def make(self, incarnation: str, seq: int, grants: Mapping[CameraId, Grant], *, leaving: bool) -> AgentReport:
        """The next one."""
        ...


@dataclass(frozen=True, slots=True)
class Heard:
    """What the registry said so far.

    Attributes:
        listing: its last list of our cameras.
        asked_s: monotonic time before that was asked for; None before there was one.
        is_stale: a configuration changed since.
        named: of held cameras that the list lacked: their owners; None: the registry knows no such camera.
        captured: who else captures cameras that we held, by its last answer to a report.
        trouble: why it does not hear us, if so.
        is_alone: reports have failed for `LEASE_S`, whichever registry was asked: one that is restarted is back sooner.
        warnings: sentences for a person.
    """

    listing: Listing = field(default_factory=lambda: Listing({}, {}))
    asked_s: float | None = None
    is_stale: bool = False
    named: Mapping[CameraId, Owner | None] = field(default_factory=lambda: MappingProxyType({}))
    captured: Mapping[CameraId, Owner] = field(default_factory=lambda: MappingProxyType({}))
    trouble: Trouble | None = None
    is_alone: bool = False
    warnings: tuple[str, ...] = ()


class Talk:
    """The threads and what they exchange with the work loop."""

    def __init__(self, registry: Registry, reports: Reporter, incarnation: str, cell: BoardCell, clock: Clock) -> None:
        self._registry = registry
        self._reports = reports
        self._incarnation = incarnation
        self._cell = cell
        self._clock = clock
        self._probing = Probing()
        self._changed = threading.Condition()
        self._closing = False
        self._wants_list = False
        self._grants: Mapping[CameraId, Grant] = {}
        self._leaving = False
        self._heard = Heard()
        self._is_news = False
        #: Since when no report is answered, monotonic seconds; None while they are.
        self._silent_s: float | None = None
        #: Version of all configurations: as the registry told last, and as it was before the last list.
        self._version: int | None = None
        self._listed_version: int | None = None
        self._report_at_s = 0.0
        self._list_at_s = 0.0
        turns = {"reports": (self._report_in_s, self._report_turn), "lists": (self._list_in_s, self._list_turn)}
        self._threads = [
            threading.Thread(target=self._run, args=turn, name=name, daemon=True) for name, turn in turns.items()
        ]

    def start(self) -> None:
        """Begin to talk."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Say no more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        end_s = self._clock.monotonic_s() + CLOSE_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end_s - self._clock.monotonic_s()))

    def tell(self, grants: Mapping[CameraId, Grant], *, leaving: bool) -> None:
        """What the next reports say; that the node leaves is said at once."""
        with self._changed:
            if leaving and not self._leaving:
                self._report_at_s = 0.0
                self._changed.notify_all()
            self._grants, self._leaving = dict(grants), leaving

    def want_list(self) -> None:
        """Have the list asked for."""
        with self._changed:
            self._wants_list = True
            self._changed.notify_all()

    def heard(self) -> Heard:
        """What was heard so far."""
        with self._changed:
            self._is_news = False
            return self._heard

    @property
    def is_news(self) -> bool:
        """Whether something was heard since the last call of `heard` that is to be acted on at once."""
        return self._is_news

    def _run(self, due_in_s: Callable[[float], float], turn: Callable[[float], None]) -> None:
        """Take a turn whenever one is due, until `close`; both get the monotonic time."""
        while True:
            with self._changed:
                if self._closing:
                    return
                now_s = self._clock.monotonic_s()
                wait_s = due_in_s(now_s)
                if wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
            try:
                turn(now_s)
            except Exception:
                # The outermost line of the thread: a report that cannot be made must not end all that follow.
                log.exception("talking to the registry failed; goes on", extra={"event": "registry_error"})

    def _report_in_s(self, now_s: float) -> float:
        return self._report_at_s - now_s

    def _report_turn(self, now_s: float) -> None:
        with self._changed:
            # From the time that it was due, so that reports keep their rhythm, unless some were missed.
            late_s = now_s - self._report_at_s
            self._report_at_s = now_s + (REPORT_S - late_s if late_s < REPORT_S else REPORT_S)
        self._note_silence(is_answered=self._ask(self._report))

    def _note_silence(self, *, is_answered: bool) -> None:
        """How long it lasts is counted from failure to failure: a link that was frozen between two heard of none."""
        now_s = self._clock.monotonic_s()
        with self._changed:
            if is_answered:
                self._silent_s = None
            elif self._silent_s is None:
                self._silent_s = now_s
            is_alone = self._silent_s is not None and now_s - self._silent_s >= LEASE_S
            self._heard = replace(self._heard, is_alone=is_alone)

    def _list_in_s(self, now_s: float) -> float:
        return self._list_at_s - now_s if self._wants_list else IDLE_S

    def _list_turn(self, now_s: float) -> None:
        self._list_at_s = now_s + ASK_LEAST_S
        self._ask(self._list)

    def _ask(self, what: Callable[[], None]) -> bool:
        """Whether a registry answered, if only to refuse."""
        try:
            what()
        except Unavailable as exc:
            self._fail((State.REGISTRY_DOWN, str(exc)))
            return False
        except RegistryRefuses as exc:
            self._fail((State.REGISTRY_REFUSES, str(exc)))
        return True

    def _report(self) -> None:
        # On the board it outlives a link that is killed, and grows through all of this life.
        self._cell.add("seq")
        report = self._reports.make(self._incarnation, self._cell.get("seq"), self._grants, leaving=self._leaving)
        if results := self._probing.results():
            report = report.model_copy(update={"probes": results})
        asked_s, asked_ns = self._clock.monotonic_s(), self._clock.wall_ns()
        answer = self._registry.report(report)
        self._probing.told(results)
        self._probing.take(answer.probes)
        self._cell.add("reports")
        self._cell.set("answer_ms", round((self._clock.monotonic_s() - asked_s) * 1000))
        self._version = answer.cameras_version
        # Also when the list came before any report was answered: nobody knows then of which version it is.
        stale = self._heard.asked_s is not None and self._version != self._listed_version
        warnings = (*answer.warnings, *skew(asked_ns, answer.now_ns, self._clock.wall_ns()))
        with self._changed:
            if self._heard.trouble is not None:
                log.info("the registry answers again", extra={"event": "registry_up"})
            for sentence in set(warnings) - set(self._heard.warnings):
                log.warning("registry: %s", sentence, extra={"event": "registry_warning"})
            self._is_news |= (stale and not self._heard.is_stale) or answer.captured != self._heard.captured
            self._heard = replace(
                self._heard, trouble=None, warnings=warnings, is_stale=stale, captured=answer.captured
            )

    def _list(self) -> None:
        # Before the question: a change that comes while it is answered is seen in the next report.
        version, asked_s = self._version, self._clock.monotonic_s()
        listing = self._registry.cameras(self._incarnation)
        named = self._name(sorted(self._grants.keys() - listing.offers.keys() - listing.unfit.keys()))
        self._listed_version = version
        with self._changed:
            self._wants_list = False
            self._is_news = True
            self._heard = replace(self._heard, listing=listing, asked_s=asked_s, named=named, is_stale=False)

    def _name(self, missing: list[CameraId]) -> dict[CameraId, Owner | None]:
        """Ask who owns cameras that we hold and the list lacks."""
        named: dict[CameraId, Owner | None] = {}
        for camera_id in missing[:NAMED_AT_ONCE]:
            try:
                found = self._registry.owner(camera_id)
            except Unavailable as exc:
                # Nor would it answer for the others, and each would take its time-outs.
                log.debug("camera %s: %s", camera_id, exc)
                break
            except RegistryRefuses as exc:
                log.debug("camera %s: %s", camera_id, exc)
                continue
            if not found.known:
                named[camera_id] = None
            elif found.owner is not None:
                named[camera_id] = found.owner
        return named

    def _fail(self, trouble: Trouble) -> None:
        with self._changed:
            self._cell.add("failed")
            self._list_at_s = self._clock.monotonic_s() + ASK_AGAIN_S
            before, self._heard = self._heard.trouble, replace(self._heard, trouble=trouble)
        if before != trouble:
            log.warning("%s", trouble[1], extra={"event": trouble[0].value})


def skew(sent_ns: int, theirs_ns: int, received_ns: int) -> tuple[str, ...]:
    """A sentence when the registry's clock differs from ours by more than the way there and back explains."""
    early_ns, late_ns = sent_ns - theirs_ns, theirs_ns - received_ns
    off_ns = max(early_ns, late_ns)
    if off_ns <= SKEW_NS:
        return ()
    ahead = "behind" if late_ns == off_ns else "ahead of"
    return (f"this host's clock is {round(off_ns / NS_PER_S)} s {ahead} the registry's",)
