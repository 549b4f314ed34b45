"""One term of this registry as the leader: what it does in each turn, in the order of what matters most.

A term begins by comparing the live state with all that is remembered and restoring what it lost; only then are nodes
judged.  Cameras that nobody seems to know wait until the database has said who owned them, and for a lease after that,
before they are placed: who serves one may not have reported yet, and would lose it to another node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from nodeagent.contract.errors import AgentError
from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import Owner, TaskStatus
from nodeagent.infra.clock import Clock
from nodeagent.infra.ownership.port import LiveState, Term
from registry.core.asked import Asked
from registry.core.catalogue import Catalogue
from registry.core.claims import Judged, Known, judge
from registry.core.clerk import Clerk
from registry.core.drains import Drains
from registry.core.evening import Evening
from registry.core.evictions import Evictions
from registry.core.hands import Hands
from registry.core.memories import Compared, Memory, compare, epoch_of, is_news, owned
from registry.core.placing import Placing
from registry.core.site import Site
from registry.member import NodePhase
from registry.membership import Decision, PhaseChanged

log = logging.getLogger(__name__)

#: Seconds between two readings of the whole live state: how late an owner that an agent made or gave back is noticed.
LOOK_S = 1.0
#: A reading may take this part of the leader's time at most; with many cameras they are rarer.
LOOK_PART = 0.1
#: Seconds that the beginning of a term waits for the database to say who owned what; later it is asked again.
STORED_WAIT_S = 1.0
#: Seconds that one turn may act before it looks at its lock and at the nodes again: a quarter of the lock's life.
ACT_S = 1.0


@dataclass(frozen=True, slots=True)
class Office:
    """What a leader works with.

    Attributes:
        places: whether the registry gives cameras to nodes; otherwise nodes take them (strategy `claim`).
        evens: part of all cameras that it moves per minute until nodes are equally full; 0: it moves none.
    """

    site: Site
    state: LiveState
    catalogue: Catalogue
    clerk: Clerk
    clock: Clock
    places: bool
    evens: float


class Leading:
    """A term.  Its methods raise Fenced when the term is over, and Unavailable when the live state is away."""

    def __init__(self, term: Term, office: Office, now_s: float) -> None:
        self.term = term
        self._office, self._site = office, office.site
        self._hands = Hands(term, office.state, office.site, office.clerk, office.clock)
        asked = Asked(office.site, office.catalogue)
        self._evictions = Evictions(self._hands, office.site, office.places)
        self._placing = Placing(self._hands, office.site, asked)
        self._drains = Drains(self._hands, office.site, asked)
        self._evening = Evening(self._hands, office.site, asked, office.clock, office.evens, now_s)
        self._phases: dict[NodeId, NodePhase] = {}
        self._began_s = now_s
        #: When the database said who owned what: nothing is taken for new, or for lost everywhere, before.
        self._told_s: float | None = None
        #: Cameras that were wanted when it began: each may have an owner that was not heard of yet.
        self._first = office.catalogue.wanted
        self._stored: Future[dict[CameraId, Owner]] | None = office.clerk.ask_owners()
        #: Whose word on which camera was not taken: once a term, or one node could change its epoch for ever.
        self._doubted: set[tuple[NodeId, CameraId]] = set()
        self._look_at_s = float("-inf")
        self._looked_at_version = -1

    @property
    def hands(self) -> Hands:
        """For what an operator asks."""
        return self._hands

    def begin(self) -> None:
        """Restore what the live state lost, and begin to judge nodes."""
        now_s = self._office.clock.monotonic_s()
        self._look(now_s, self._stored_owners(STORED_WAIT_S))
        now_s = self._office.clock.monotonic_s()
        with self._site.lock:
            self._site.begin_term(self._office.clerk.drains, now_s)
            self._phases = {view.node_id: view.phase for view in self._site.views(now_s)}
        log.info(
            "leads from now on: %d cameras have owners, %d wait", len(self.owners()), len(self._site.waiting),
            extra={"event": "term_began", "term": str(self.term)},
        )  # fmt: skip

    def note(self, decisions: Sequence[Decision]) -> None:
        """Take what members decided; `turn` carries it out."""
        for decision in decisions:
            if isinstance(decision, PhaseChanged):
                self._phases[decision.node_id] = decision.new
        self._evictions.note(decisions, lambda node_id: self._phases.get(node_id) is not NodePhase.DRAINING)

    def turn(self, now_s: float) -> None:
        """Do what is due."""
        if now_s >= self._look_at_s or self._office.catalogue.version != self._looked_at_version:
            self._look(now_s, self._stored_owners(0.0))
        goes_on = self._until(now_s + ACT_S)
        if not self._evictions.act(goes_on):
            self._look_at_s = float("-inf")
        if not self._office.places:
            return
        self._placing.act(self._office.catalogue.wanted, now_s, goes_on)
        drains = NodePhase.DRAINING in self._phases.values()
        if drains:
            self._drains.act(self._office.clerk.drains, now_s, goes_on)
        calm = not drains and not self._site.waiting and self._site.members.frozen is None
        if self._office.evens and calm:
            self._evening.act(now_s)

    def look_again(self) -> None:
        """Something may be otherwise than it was thought to be: read the live state in the next turn."""
        self._look_at_s = float("-inf")

    def owners(self) -> dict[CameraId, Owner]:
        """All owners that there are."""
        return self._site.owners()

    def _look(self, now_s: float, stored: Mapping[CameraId, Owner]) -> None:
        """Read the whole live state, and mend where it differs from what should be."""
        version = self._office.catalogue.version
        statuses = self._office.state.statuses()
        wanted = self._office.catalogue.wanted
        judged = self._judged(statuses, stored, now_s)
        self._site.epochs.learn({camera_id: epoch_of(status) for camera_id, status in judged.memories})
        memories = self._memories(judged, statuses, stored)
        found = compare(statuses, memories, wanted, self._site.epochs.highest)
        if found.lost:
            # What was remembered is taken out of memory only when the state has it.
            self._hands.restore(found.lost)
            statuses = self._office.state.statuses()
        self._site.read(statuses, now_s)
        self._mend(found, now_s)
        self._outgrow(judged.doubted)
        took_s = self._office.clock.monotonic_s() - now_s
        self._look_at_s = now_s + max(LOOK_S, took_s / LOOK_PART)
        self._looked_at_version = version

    def _mend(self, found: Compared, now_s: float) -> None:
        for camera_id in found.unwanted:
            self._hands.drop(camera_id, "no node is to serve it any more")
            self._evictions.forget(camera_id)
        settled = self._told_s is not None and self._is_over(self._told_s, now_s)
        new = [camera_id for camera_id in found.unknown if settled or camera_id not in self._first]
        self._hands.offer(new, "it is new")

    def _is_over(self, since_s: float, now_s: float) -> bool:
        """Whether every node had its time to report since then."""
        return now_s - since_s >= self._site.limits.lease_s

    def _judged(
        self, statuses: Mapping[CameraId, TaskStatus], stored: Mapping[CameraId, Owner], now_s: float
    ) -> Judged:
        """What nodes say that they serve, as far as it counts."""
        if self._told_s is None and not self._is_over(self._began_s, now_s):
            # The database, which may know better, has not said yet.
            return Judged()
        with self._site.lock:
            claims = [
                (hold.camera_id, shown.owner(hold))
                for node_id in self._site.heard_within(self._site.limits.lease_s, now_s)
                for shown in (self._site.shown[node_id],)
                for hold in shown.holds.values()
                if hold.epoch > epoch_of(statuses.get(hold.camera_id))
            ]
            if not self._office.places:
                # Nodes take cameras by themselves, and are told all credentials.
                return Judged([owned(camera_id, claim) for camera_id, claim in claims])
            believed = self._told_s is not None and not self._is_over(self._told_s, now_s)
            lost = self._first if believed else frozenset()
            return judge(claims, Known(statuses, self._site.statuses, stored, lost))

    def _memories(
        self, judged: Judged, statuses: Mapping[CameraId, TaskStatus], stored: Mapping[CameraId, Owner]
    ) -> Iterator[Memory]:
        """What is remembered of owners, the nearest first; what the state knows already is left out."""
        with self._site.lock:
            known = [(c, status) for c, status in self._site.statuses.items() if is_news(statuses.get(c), status)]
        yield from judged.memories
        yield from known
        yield from (owned(camera_id, owner) for camera_id, owner in stored.items())

    def _outgrow(self, doubted: Iterable[tuple[CameraId, Owner]]) -> None:
        """Give cameras anew to their owners, above epochs that others claim whom nobody gave them."""
        goes_on = self._until(self._office.clock.monotonic_s() + ACT_S)
        for camera_id, claim in doubted:
            owner = self._site.owner(camera_id)
            if not goes_on():
                # They say it again in their next reports.
                return
            if owner is None or (claim.node_id, camera_id) in self._doubted:
                continue
            log.error(
                "node %s says that it serves camera %s with epoch %d, which nobody gave it: %s keeps the camera",
                claim.node_id, camera_id, claim.epoch, owner.node_id,
                extra={"event": "claim_doubted", "camera": camera_id, "node": claim.node_id},
            )  # fmt: skip
            self._site.epochs.learn({camera_id: claim.epoch})
            reason = f"{claim.node_id} claimed it with a later epoch"
            self._hands.give(camera_id, owner.node_id, owner.incarnation, reason)
            # Only now: what failed above is tried again.
            self._doubted.add((claim.node_id, camera_id))

    def _stored_owners(self, within_s: float) -> dict[CameraId, Owner]:
        """Who owned what by the database, once; empty while it does not say."""
        if self._stored is None or (within_s <= 0 and not self._stored.done()):
            return {}
        try:
            found = self._stored.result(within_s)
        except TimeoutError:
            return {}
        except AgentError:
            # The database is away.  Asked again: it may know of owners that nobody else has told of.
            self._stored = self._office.clerk.ask_owners()
            return {}
        self._stored, self._told_s = None, self._office.clock.monotonic_s()
        return found

    def _until(self, end_s: float) -> Callable[[], bool]:
        return lambda: self._office.clock.monotonic_s() < end_s
