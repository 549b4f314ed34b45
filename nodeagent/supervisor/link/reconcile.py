"""What the link does about this node's cameras, from what Redis and the registry say.  Pure.

Three rules keep a camera recorded whatever fails.  Only another owner that was *read* takes a camera away, never an
answer that is missing or a list that lacks it.  A grant to another life of this node is not ours, but it ends nothing
unless it is later than the one that we hold: after a restart the last grant is the old life's, and its cameras run on
until the registry grants them anew or moves them.  A camera whose new configuration cannot run here keeps the old one.

Redis says who owns a camera, the registry how it is configured.  Of what Redis does not know (it is away, was flushed,
or carries broadcasts only) the registry's word counts: its list as a grant while it is fresh, and whom it names as the
owner of a camera that its list lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.ids import CameraId
from nodeagent.contract.ownership import LEASE_S, RECONCILE_S, Owner
from nodeagent.infra.ownership.port import Renewal, Standing
from nodeagent.infra.wanted import Grant

#: Age at which the registry's list says nothing more about who owns a camera, seconds: by then it may have moved.
LIST_S = LEASE_S
#: How often the list is asked for while Redis is away, seconds: little is granted then, and all nodes ask.
AWAY_S = 10.0
#: How long a camera that has another owner is kept at most until it is captured there, seconds: a new owner has its
#: first key frame by then, or will not have one soon.  Also when no registry says: the node that cannot be heard is the
#: one whose cameras are given away, a moment before anybody else captures them.
HAND_OVER_S = 8.0


@dataclass(frozen=True, slots=True)
class Offer:
    """A camera as the registry lists it for this node.

    Attributes:
        spec: its configuration, with credentials.
        version: of that.
        epoch: with which the registry says that it is granted to this node; 0: it is not, but may be claimed.
    """

    spec: CameraSpec
    version: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Word:
    """What Redis said in one turn.

    Attributes:
        renewals: what became of the keys of `owners`; a camera that came up meanwhile is not among them.
        owned: every camera that this life of the node owns.
    """

    renewals: Mapping[CameraId, Renewal]
    owned: Mapping[CameraId, Owner]


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision depends on.  Times are monotonic seconds.

    Attributes:
        node_id, incarnation: who we are.
        held: cameras that are served here, and with which grant.
        word: what Redis said; None when it did not answer.
        offers: what the registry listed last.
        asked_s: when that list was asked for; None before there was one.
        is_stale: the registry said that a configuration changed since.
        named: whom the registry names as owner of held cameras that its list lacks; None for those that it does not
            know any more.
        moved_s: since when another owner is read for a camera that is held still.
        captured: by whom cameras that are held are captured elsewhere, as the registry said last.
        unfit: cameras whose configuration cannot run here; they are not among the offers.
        leaving: this node is about to stop.
    """

    node_id: str
    incarnation: str
    held: Mapping[CameraId, Grant]
    word: Word | None = None
    offers: Mapping[CameraId, Offer] = field(default_factory=lambda: MappingProxyType({}))
    asked_s: float | None = None
    is_stale: bool = False
    named: Mapping[CameraId, Owner | None] = field(default_factory=lambda: MappingProxyType({}))
    moved_s: Mapping[CameraId, float] = field(default_factory=lambda: MappingProxyType({}))
    captured: Mapping[CameraId, Owner] = field(default_factory=lambda: MappingProxyType({}))
    unfit: frozenset[CameraId] = frozenset()
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Take:
    """Serve a camera with this grant and this configuration; None: with the one that it has."""

    camera_id: CameraId
    grant: Grant
    spec: CameraSpec | None


@dataclass(frozen=True, slots=True)
class LetGo:
    """Serve a camera no longer."""

    camera_id: CameraId
    why: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask the registry for its list."""

    why: str


Action = Take | LetGo | Fetch


def reconcile(facts: Facts, now_s: float) -> list[Action]:
    """The actions of this turn, in the order of the cameras' names; at most one `Fetch`, at the end."""
    owned = facts.word.owned if facts.word is not None else {}
    actions: list[Action] = []
    for camera_id in sorted({*facts.held, *facts.offers, *owned}):
        grant = facts.held.get(camera_id)
        action = _held(facts, camera_id, grant, now_s) if grant else _other(facts, camera_id, now_s)
        actions += [action] if action is not None else []
    why = _question(facts, now_s)
    return [*actions, Fetch(why)] if why else actions


def owners(
    node_id: str, incarnation: str, held: Mapping[CameraId, Grant], offers: Mapping[CameraId, Offer]
) -> dict[CameraId, Owner]:
    """Whose keys are to be renewed: ours, of what we hold and of what is offered.

    What is another's by now is left alone by the renewal, which compares, and says so.
    """
    epochs = {camera_id: offer.epoch for camera_id, offer in offers.items() if offer.epoch}
    epochs |= {camera_id: grant.epoch for camera_id, grant in held.items()}
    return {
        camera_id: Owner(node_id=node_id, incarnation=incarnation, epoch=epoch) for camera_id, epoch in epochs.items()
    }


def moved_away(facts: Facts) -> frozenset[CameraId]:
    """Cameras that are held and have another owner."""
    return frozenset(camera_id for camera_id, grant in facts.held.items() if _successor(facts, camera_id, grant))


def nobody_takes(facts: Facts, *, alone: bool, claimed: bool) -> bool:
    """Whether a node that is about to stop waits in vain for others to take its cameras.

    Args:
        facts: of this turn.
        alone: no registry has answered for a while.
        claimed: nodes take cameras from the pool, which needs no registry.
    """
    # One that was moved before the registry went is captured elsewhere soon.
    return facts.leaving and alone and not claimed and not moved_away(facts)


def _held(facts: Facts, camera_id: CameraId, grant: Grant, now_s: float) -> Action | None:
    if facts.named.get(camera_id, grant) is None and not _is_owned(facts, camera_id):
        return LetGo(camera_id, "it was removed")
    successor = _successor(facts, camera_id, grant)
    if successor is not None:
        # Recorded twice for a moment rather than not at all: judges take one of the two.
        # Only a word that this very owner captures it ends that sooner: a registry that was started a moment ago, or an
        # owner after the one that was heard of, has said nothing yet.
        waited_s = now_s - facts.moved_s.get(camera_id, now_s)
        if facts.captured.get(camera_id) != successor and waited_s < HAND_OVER_S:
            return None
        return LetGo(camera_id, f"{successor.node_id} owns it, epoch {successor.epoch}")
    offer = facts.offers.get(camera_id)
    epoch = max(grant.epoch, _granted(facts, camera_id, now_s))
    if offer is not None and offer.version > grant.version:
        return Take(camera_id, Grant(epoch, offer.version), offer.spec)
    return Take(camera_id, Grant(epoch, grant.version), None) if epoch > grant.epoch else None


def _other(facts: Facts, camera_id: CameraId, now_s: float) -> Take | None:
    epoch, offer = _granted(facts, camera_id, now_s), facts.offers.get(camera_id)
    # A node that leaves begins nothing: whoever granted it reads in its report that it goes.
    if not epoch or offer is None or facts.leaving:
        return None
    return Take(camera_id, Grant(epoch, offer.version), offer.spec)


def _is_owned(facts: Facts, camera_id: CameraId) -> bool:
    return facts.word is not None and camera_id in facts.word.owned


def _granted(facts: Facts, camera_id: CameraId, now_s: float) -> int:
    """The epoch with which this life owns the camera; 0 when it does not, as far as is known."""
    if facts.word is not None:
        owner = facts.word.owned.get(camera_id)
        if owner is not None:
            return owner.epoch
        renewal = facts.word.renewals.get(camera_id)
        if renewal is None or renewal.standing not in (Standing.HELD, Standing.UNKNOWN):
            return 0
    offer = facts.offers.get(camera_id)
    is_fresh = facts.asked_s is not None and now_s - facts.asked_s <= LIST_S
    return offer.epoch if offer is not None and is_fresh else 0


def _successor(facts: Facts, camera_id: CameraId, grant: Grant) -> Owner | None:
    """Who owns the camera after us, if that was read."""
    if _is_owned(facts, camera_id):
        # Also when the renewal, a moment before, read another one: it was granted to us anew in between.
        return None
    renewal = facts.word.renewals.get(camera_id) if facts.word is not None else None
    owner = facts.named.get(camera_id)
    if renewal is not None and renewal.standing is not Standing.UNKNOWN:
        owner = renewal.owner if renewal.standing is Standing.TAKEN else None
    if owner is None or (owner.node_id, owner.incarnation) == (facts.node_id, facts.incarnation):
        return None
    # The same epoch under our name is the grant that we hold, made to our last life.
    later = owner.epoch > grant.epoch or (owner.epoch == grant.epoch and owner.node_id != facts.node_id)
    return owner if later else None


def _question(facts: Facts, now_s: float) -> str:
    """Why the registry is to be asked for its list; empty when it need not be."""
    if facts.asked_s is None:
        return "nothing is known yet"
    if facts.is_stale:
        return "a configuration changed"
    owned = facts.word.owned if facts.word is not None else {}
    missing = sorted(owned.keys() - facts.held.keys() - facts.offers.keys() - facts.unfit)
    if missing:
        return f"{missing[0]} is granted, its configuration is not known"
    if any(offer.epoch for camera_id in moved_away(facts) if (offer := facts.offers.get(camera_id))):
        # Once let go, it would be taken again out of a list that still has it, should Redis go away.
        return "cameras were moved that the list has still"
    every_s = RECONCILE_S if facts.word is not None else AWAY_S
    if now_s - facts.asked_s < every_s:
        return ""
    unknown = _unknown(facts)
    if unknown:
        return f"Redis does not know {unknown[0]}"
    return "" if owned else "Redis tells of no camera of ours"


def _unknown(facts: Facts) -> list[CameraId]:
    """Cameras that are held and that Redis does not know.

    One that was removed while the list was answered is among them: only the next list lacks it.
    """
    renewals = facts.word.renewals if facts.word is not None else {}
    return sorted(c for c in facts.held if c in renewals and renewals[c].standing is Standing.UNKNOWN)
