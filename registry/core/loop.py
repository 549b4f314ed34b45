"""The one loop: several times a second it collects, decides and acts.

Collect: the leader's lock, reports of agents and of the other registries, orders of people.  Decide: `Members`.  Act:
`Leading`, in a registry that leads.  A registry that follows collects and judges as well, so that it knows all when it
has to lead.  While the live state is away, nothing is decided and nothing moves.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from nodeagent.contract.errors import Fenced, Unavailable
from nodeagent.contract.ids import NodeId
from nodeagent.contract.ownership import AgentReport
from nodeagent.infra.ownership.port import Leader, Term
from registry.brake import Frozen, Thawed
from registry.core.exchange import Entry, Exchange
from registry.core.inbox import Arrived, Inbox
from registry.core.leading import Leading, Office
from registry.core.memories import compare
from registry.core.site import Herald
from registry.core.witnesses import Witnesses
from registry.http.ports import NotLeader
from registry.member import Accepted, Conflict, NodePhase
from registry.membership import Decision, NodeView, PhaseChanged, Witness
from registry.store.nodes import Seen

log = logging.getLogger(__name__)

#: Seconds between two turns: what they add to the silence that makes a node dead.
TURN_S = 0.25
#: Seconds between two renewals of the leader's lock, a quarter of its life.
RENEW_S = 1.0
#: Seconds between two tries of a registry that follows to lead.
TRY_S = 0.5
#: Seconds of rest after a turn that failed, and for which another registry may lead then.
FAILED_S, LET_LEAD_S = 1.0, 10.0
#: Seconds between two words of the leader on how nodes stand.
HERALD_S = 1.0
#: Seconds between two readings of the live state by a registry that follows.
FOLLOW_S = 1.0

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this registry is.

    Attributes:
        registry_id: its name.
        life: of this process; with the name it holds the leader's lock.
    """

    registry_id: NodeId
    life: str

    @property
    def holder(self) -> NodeId:
        """What the leader's lock says: no two lives are ever taken for one."""
        return f"{self.registry_id[:46]}-{self.life}"


class Loop:
    """The loop; see the module.  `turn` and `run` are for one thread, the rest for any."""

    def __init__(
        self, identity: Identity, office: Office, leader: Leader, exchange: Exchange | None, witnesses: Witnesses
    ) -> None:
        """Without `exchange` there is no other registry."""
        self.identity = identity
        self._witnesses = witnesses
        self._office, self._leader, self._exchange = office, leader, exchange
        self._site, self._clock = office.site, office.clock
        self.inbox = Inbox()
        self._leading: Leading | None = None
        self._token = 0
        self._renewed_s = self._try_at_s = self._follow_at_s = self._herald_at_s = float("-inf")
        self._fresh: dict[NodeId, AgentReport] = {}
        self._trouble = ""
        self._requests: queue.SimpleQueue[tuple[Callable[[Leading], Any], Future[Any]]] = queue.SimpleQueue()
        self._closing = threading.Event()
        #: Monotonic time of the newest whole turn.
        self.turned_s = self._clock.monotonic_s()

    # For any thread.

    @property
    def trouble(self) -> str:
        """Why the live state cannot be used now; empty: it can."""
        return self._trouble

    @property
    def leads(self) -> bool:
        """Whether this registry leads, as far as it knows."""
        return self._leading is not None

    @property
    def leader(self) -> str:
        """Id of the registry that leads; empty: not known."""
        if self._leading is not None:
            return self.identity.registry_id
        herald = self._site.leader(self._clock.monotonic_s())
        return herald.registry_id if herald is not None else ""

    def ask(self, deed: Callable[[Leading], _Result], within_s: float) -> _Result:
        """Have the loop do something as the leader, between two turns; raises what the deed raises.

        Raises:
            NotLeader: this registry does not lead.
            Unavailable: it was not done in time.  If it has not begun by then it never is: whoever asked has gone, and
                may have asked for something else since.
        """
        if self._leading is None:
            raise NotLeader(self.leader)
        done: Future[_Result] = Future()
        self._requests.put((deed, done))
        try:
            return done.result(within_s)
        except TimeoutError:
            done.cancel()
            raise Unavailable("the registry is busy") from None

    def run(self) -> None:
        """Turn until `close`."""
        while not self._closing.is_set():
            began_s = self._clock.monotonic_s()
            pause_s = TURN_S if self.guarded_turn() else FAILED_S
            self._closing.wait(max(0.01, began_s + pause_s - self._clock.monotonic_s()))
        self._resign("it stops")

    def guarded_turn(self) -> bool:
        """Turn, whatever comes of it; whether it was a whole one."""
        try:
            self.turn()
        except Exception:
            # The outermost line: one turn that fails must not end all that follow.  What fails here may do elsewhere.
            log.exception("a turn failed; goes on", extra={"event": "turn_failed"})
            self._resign("a turn failed")
            self._try_at_s = self._clock.monotonic_s() + LET_LEAD_S
            return False
        self.turned_s = self._clock.monotonic_s()
        return True

    def close(self) -> None:
        """End after this turn, and let another registry lead at once."""
        self._closing.set()

    # One turn.

    def turn(self) -> None:
        """Collect, decide, act."""
        try:
            asked = self._lead()
            self._swap()
        except Unavailable as exc:
            self._fail(exc)
        else:
            # A state that can be read and not written is away: only the lock's renewal shows that it is back.
            if asked:
                self._well()
        now_s = self._clock.monotonic_s()
        try:
            self._witness(now_s)
        except Unavailable as exc:
            self._fail(exc)
        self._hear()
        decisions = self._decide(now_s)
        try:
            self._act(decisions, now_s)
        except Unavailable as exc:
            self._fail(exc)
        except Fenced as exc:
            self._follow(str(exc))

    def _lead(self) -> bool:
        """Renew the lock, or try to get it; whether it was asked for."""
        now_s = self._clock.monotonic_s()
        asked = False
        if self._leading is not None and now_s - self._renewed_s >= RENEW_S:
            asked = True
            # Stamped before it is sent: the lock lives at least from then on.
            if self._leader.renew(self._leading.term):
                self._renewed_s = now_s
            else:
                self._follow("its term is over")
        # Without the cameras nothing could be placed; another registry may know them.
        if self._leading is None and now_s >= self._try_at_s and self._office.clerk.is_loaded:
            self._try_at_s = now_s + TRY_S
            asked = True
            term = self._leader.acquire(self.identity.holder, self._token)
            if term is not None:
                self._renewed_s = now_s
                self._begin(term)
        return asked

    def _begin(self, term: Term) -> None:
        self._token = term.token
        leading = Leading(term, self._office, self._clock.monotonic_s())
        self._hear()
        try:
            leading.begin()
        except Fenced as exc:
            log.info("lost the lead at once: %s", exc, extra={"event": "term_lost"})
            return
        self._herald_at_s = float("-inf")
        self._leading = leading

    def _follow(self, why: str) -> None:
        """Lead no more."""
        if self._leading is not None:
            log.warning("leads no more: %s", why, extra={"event": "term_ended", "term": str(self._leading.term)})
        self._leading = None
        self._site.end_term()
        while not self._requests.empty():
            done = self._requests.get()[1]
            if done.set_running_or_notify_cancel():
                done.set_exception(NotLeader(self.leader))

    def _swap(self) -> None:
        """Tell the other registries what was heard here, and hear what they did."""
        if self._exchange is None:
            return
        now_s = self._clock.monotonic_s()
        phases = held = None
        if self._leading is not None and now_s >= self._herald_at_s:
            self._herald_at_s = now_s + HERALD_S
            phases, held = self._site.phases(now_s), self._site.held(now_s, self._clock.wall_ns())
        # Taken before they are sent: what a broken connection loses comes with the next reports.
        fresh, self._fresh = self._fresh, {}
        for entry in self._exchange.swap(fresh.values(), phases, held).entries:
            self._take(entry)

    def _take(self, entry: Entry) -> None:
        now_s = self._clock.monotonic_s()
        if entry.leads and self._leading is None:
            self._site.heralded(Herald(entry.registry_id, entry.phases, entry.held, now_s))
        for report in entry.reports:
            self._judge(Arrived(report, now_s, self._clock.wall_ns()), shared=True)

    def _hear(self) -> None:
        for arrived in self.inbox.take():
            self._judge(arrived, shared=False)

    def _judge(self, arrived: Arrived, shared: bool) -> None:
        try:
            self._judged(arrived, shared)
        except Exception:
            # No report may keep those behind it, or this turn, from what they are for.
            log.exception("a report cannot be judged", extra={"event": "report_failed"})

    def _judged(self, arrived: Arrived, shared: bool) -> None:
        report = arrived.report
        node_id = report.report.node_id
        # What another registry heard was compared with its clock, a moment ago; ours says nothing of it.
        wall_ns = report.sent_ns if shared else arrived.wall_ns
        verdict = self._site.hear(report, wall_ns, arrived.at_s)
        if not shared:
            self.inbox.judged(report, verdict)
        match verdict:
            case Conflict(log=line) if line:
                log.error("%s", line, extra={"event": "node_twice", "node": node_id})
            case Accepted(fresh=True, log=lines):
                for line in lines:
                    log.warning("%s", line, extra={"event": "clock_off", "node": node_id})
                if not shared:
                    self._fresh[node_id] = report
                    seen = Seen(report.report.host, report.incarnation, arrived.wall_ns)
                    self._office.clerk.seen({node_id: seen})
            case _:
                return

    def _decide(self, now_s: float) -> list[Decision]:
        with self._site.lock:
            self._site.order(self._office.clerk.drains, now_s)
            return self._site.members.tick(now_s, Witness(gone=self._witnesses.gone, cut_off=bool(self._trouble)))

    def _witness(self, now_s: float) -> None:
        """While evictions are held: of which silent nodes nobody else hears either."""
        if self._leading is None or self._site.members.frozen is None:
            self._witnesses.forget()
        elif not self._trouble:
            self._witnesses.look(self._silent, now_s)

    def _silent(self) -> list[NodeView]:
        views = self._site.views(self._clock.monotonic_s())
        return [view for view in views if view.phase is NodePhase.SUSPECT and view.cameras]

    def _act(self, decisions: list[Decision], now_s: float) -> None:
        for decision in decisions:
            self._tell(decision)
        if self._leading is not None:
            # Noted first: what cannot be done now is done when the state is back.
            self._leading.note(decisions)
            if not self._trouble:
                self._do_requests(self._leading)
                self._leading.turn(now_s)
        elif not self._trouble and now_s >= self._follow_at_s:
            self._follow_at_s = now_s + FOLLOW_S
            self._look(now_s)

    def _look(self, now_s: float) -> None:
        """Read the live state as a follower; what it lost stays in memory, for whoever leads next."""
        statuses = self._office.state.statuses()
        with self._site.lock:
            known = list(self._site.statuses.items())
        wanted = self._office.catalogue.wanted
        lost = compare(statuses, known, wanted, self._site.epochs.highest).lost
        self._site.read(statuses | lost, now_s)

    def _do_requests(self, leading: Leading) -> None:
        for _ in range(self._requests.qsize()):
            deed, done = self._requests.get()
            if not done.set_running_or_notify_cancel():
                continue
            try:
                done.set_result(deed(leading))
            except Exception as exc:
                done.set_exception(exc)
                if isinstance(exc, Fenced | Unavailable):
                    raise

    def _tell(self, decision: Decision) -> None:
        match decision:
            case PhaseChanged(node_id, old, new):
                if new is NodePhase.DRAINING:
                    self._site.drain_begins(node_id)
                word = old.value if old is not None else "new"
                level = logging.WARNING if new is NodePhase.DEAD else logging.INFO
                extra = {"event": "node_phase", "node": node_id, "old": word, "new": new.value}
                log.log(level, "node %s: %s -> %s", node_id, word, new.value, extra=extra)
            case Frozen(reason):
                log.error("evictions are held: %s", reason, extra={"event": "evictions_held"})
            case Thawed(reason):
                log.warning("evictions go on: %s", reason, extra={"event": "evictions_go_on"})
            case _:
                return

    def _fail(self, exc: Unavailable) -> None:
        if not self._trouble:
            log.error("%s; nothing moves until it is back", exc, extra={"event": "state_down"})
        self._trouble = str(exc)
        if self._leading is not None:
            self._leading.look_again()

    def _well(self) -> None:
        if self._trouble:
            log.info("the live state answers again", extra={"event": "state_up"})
        self._trouble = ""

    def _resign(self, why: str) -> None:
        """Let another registry lead at once."""
        if self._leading is None:
            return
        try:
            self._leader.resign(self._leading.term)
        except Unavailable:
            # Its lock runs out by itself.
            return
        finally:
            self._follow(why)
