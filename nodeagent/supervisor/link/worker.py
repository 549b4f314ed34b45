"""The child `link`: keeps this node's cameras to what the registry and Redis say, and tells the registry of the node.

One loop reads, decides (`reconcile`), acts; broadcasts only have it look at once.  The registry is talked to in two
others (`talk`), broadcasts are heard in a fourth.  Killed anywhere it begins anew from the snapshot: nothing that it
knows besides is needed to keep a camera recorded.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from nodeagent.contract.camera import DEFAULT_CLASS, CameraSpec
from nodeagent.contract.errors import ConfigError, Fault
from nodeagent.contract.ids import CameraId
from nodeagent.contract.ownership import RECONCILE_S, Broadcast, Told
from nodeagent.contract.states import State
from nodeagent.infra.board import Board
from nodeagent.infra.incarnation import BOARD
from nodeagent.infra.ownership.broadcasts import Listener, Missed
from nodeagent.infra.redis import connect_redis
from nodeagent.infra.settings.registry import RegistrySettings
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.worker import EXIT_OK, WorkerContext
from nodeagent.supervisor.link.catalogue import Catalogue
from nodeagent.supervisor.link.client import RegistryClient
from nodeagent.supervisor.link.handoff import is_leaving, say_nobody_takes
from nodeagent.supervisor.link.live import Live
from nodeagent.supervisor.link.reconcile import (
    Facts,
    Fetch,
    LetGo,
    Offer,
    Take,
    moved_away,
    nobody_takes,
    reconcile,
)
from nodeagent.supervisor.link.report import Reports
from nodeagent.supervisor.link.snapshot import Snapshot
from nodeagent.supervisor.link.talk import Heard, Talk

log = logging.getLogger(__name__)

#: How long the loop waits for a broadcast before it looks at anything else, seconds.
WAIT_S: Final = 0.1
#: Between two turns while cameras are handed over, seconds: each that is let go sooner is recorded twice for less long.
HAND_OVER_TURN_S: Final = 0.5
#: A turn asks Redis several times, each within its time-out, seconds.
TURN_ALLOW_S: Final = 60.0


def main(ctx: WorkerContext, _arg: str) -> int:
    """Serve until told to stop.

    Raises:
        ConfigError: the token or the certificates of `[registry]` cannot be read.
    """
    registry = ctx.settings.node_door
    if registry is None:
        raise ConfigError([Fault("registry", "required, but missing")])
    if not _has_token(ctx, registry):
        return EXIT_OK
    link = Link(ctx, registry)
    try:
        link.run()
    finally:
        link.close()
    return EXIT_OK


def _has_token(ctx: WorkerContext, registry: RegistrySettings) -> bool:
    """Wait for the first token of a registry inside; whether there is one: not when told to stop meanwhile."""
    while registry.inside and registry.token_file is not None and not registry.token_file.exists():
        ctx.cell.beat()
        ctx.cell.state(State.STARTING, "waits for the registry")
        if ctx.stop.wait(WAIT_S):
            return False
    return True


def incarnation_of(memory_dir: Path) -> str:
    """The incarnation of a life: the same for all of its links, another one for each life on each host."""
    return hashlib.sha256(str(memory_dir).encode()).hexdigest()[:16]


def unfit(spec: CameraSpec, settings: Settings) -> str:
    """Why a camera cannot run with what this node has loaded; empty when it can."""
    models = sorted(model.name for model in settings.models)
    if spec.model and spec.model not in models:
        return f"model {spec.model!r} is not loaded, expected one of {models}"
    classes = sorted({DEFAULT_CLASS, *(section.name for section in settings.retention)})
    if spec.retention and spec.retention not in classes:
        return f"class of retention {spec.retention!r} is not known, expected one of {classes}"
    return ""


class Link:
    """Everything of the link, tied together."""

    def __init__(self, ctx: WorkerContext, registry: RegistrySettings) -> None:
        self._ctx = ctx
        settings, clock = ctx.settings, ctx.clock
        self._node_id, self._incarnation = settings.node.node_id, incarnation_of(ctx.memory_dir)
        self._snapshot = Snapshot(settings.node.state_dir, ctx.memory_dir)
        self._redis = redis = connect_redis(settings.redis_url)
        self._live = Live(redis, self._node_id, self._incarnation, clock, claims=registry.strategy == "claim")
        board = Board.open(ctx.memory_dir / BOARD)
        self._reports = reports = Reports(settings, registry, ctx.memory_dir, board, clock)
        self._client = RegistryClient(registry, self._node_id, clock)
        self._talk = Talk(self._client, reports, self._incarnation, ctx.cell, clock)
        self._listener = Listener(redis)
        self._catalogue = Catalogue(settings.node.state_dir) if registry.strategy == "claim" else None
        self._leaving = False
        self._turn_at_s = 0.0
        #: Since when other owners of cameras that we hold are read, monotonic seconds.
        self._moved_s: dict[CameraId, float] = {}
        self._unfit: dict[CameraId, str] = {}

    def run(self) -> None:
        """The work loop."""
        cell, clock = self._ctx.cell, self._ctx.clock
        # Also has the supervisor look: the last link may have died before it said so.
        self._snapshot.note()
        self._talk.tell(self._snapshot.grants, leaving=False)
        self._talk.start()
        cell.state(State.RUNNING)
        cell.ready()
        while not self._ctx.stop.requested:
            cell.beat()
            hinted = self._hear(WAIT_S)
            self._look_whether_leaving()
            if hinted or self._talk.is_news or clock.monotonic_s() >= self._turn_at_s:
                cell.beat(allow_s=TURN_ALLOW_S)
                self._turn()
        cell.state(State.DRAINING)
        # What nobody has taken yet need not wait for the end of our keys.
        self._live.release(self._snapshot.grants)

    def close(self) -> None:
        """Let go of everything."""
        self._talk.close()
        self._reports.close()
        self._listener.close()
        self._client.close()
        self._redis.close()

    def _look_whether_leaving(self) -> None:
        if not self._leaving and is_leaving(self._ctx.memory_dir):
            log.info("this node leaves: its cameras are handed over", extra={"event": "leaving"})
            self._leaving = True
            self._turn_at_s = 0.0

    def _hear(self, wait_s: float) -> bool:
        """Take all broadcasts that there are; whether one of them concerns us."""
        found, concerns = self._listener.get(wait_s), False
        while found is not None:
            concerns |= self._concerns(found)
            found = self._listener.get(0.0)
        return concerns

    def _concerns(self, told: Broadcast | Missed) -> bool:
        if isinstance(told, Missed):
            return True
        if told.told is Told.CHANGED and told.camera_id in self._snapshot.grants:
            self._talk.want_list()
            return False
        return told.node_id == self._node_id or told.camera_id in self._snapshot.grants or told.told is Told.POOLED

    def _turn(self) -> None:
        clock = self._ctx.clock
        heard = self._talk.heard()
        offers = self._fit(self._listed(heard), heard.listing.unfit)
        ignorant = heard.asked_s is None and not offers
        word = self._live.turn(
            self._snapshot.grants, offers, leaving=self._leaving, alone=heard.is_alone, ignorant=ignorant
        )
        now_s = clock.monotonic_s()
        facts = Facts(
            node_id=self._node_id,
            incarnation=self._incarnation,
            held=self._snapshot.grants,
            word=word,
            offers=offers,
            asked_s=heard.asked_s,
            is_stale=heard.is_stale,
            named=heard.named,
            moved_s=self._moved_s,
            captured=heard.captured,
            unfit=frozenset(self._unfit),
            leaving=self._leaving,
        )
        moved = moved_away(facts)
        self._moved_s = {camera_id: self._moved_s.get(camera_id, now_s) for camera_id in moved}
        self._act(facts, now_s)
        if nobody_takes(facts, alone=heard.is_alone, claimed=self._catalogue is not None):
            # A folder that refuses costs the wait.
            with suppress(OSError):
                say_nobody_takes(self._ctx.memory_dir)
        self._show(heard)
        hurry = self._leaving or bool(moved)
        self._turn_at_s = clock.monotonic_s() + (HAND_OVER_TURN_S if hurry else RECONCILE_S)

    def _act(self, facts: Facts, now_s: float) -> None:
        actions = reconcile(facts, now_s)
        came, went = self._snapshot.change(action for action in actions if isinstance(action, Take | LetGo))
        self._snapshot.note()
        for action in actions:
            if isinstance(action, Fetch):
                log.debug("the registry is asked: %s", action.why)
                self._talk.want_list()
        self._talk.tell(self._snapshot.grants, leaving=self._leaving)
        cell = self._ctx.cell
        cell.add("given", came)
        cell.add("taken", went)
        cell.set("cameras", len(self._snapshot.grants))

    def _listed(self, heard: Heard) -> Mapping[CameraId, Offer]:
        """What the registry listed; before it did, what may be claimed by what it listed to the last life."""
        if self._catalogue is None:
            return heard.listing.offers
        if heard.asked_s is None:
            return self._catalogue.offers
        self._catalogue.keep(heard.listing.offers)
        return heard.listing.offers

    def _fit(self, listed: Mapping[CameraId, Offer], unreadable: Mapping[str, str]) -> dict[CameraId, Offer]:
        """The offers that can run here; what is given to this node and cannot is said once."""
        reasons, fit = dict(unreadable), {}
        for camera_id, offer in listed.items():
            why = unfit(offer.spec, self._ctx.settings)
            if not why:
                fit[camera_id] = offer
            elif offer.epoch:
                reasons[camera_id] = why
        for camera_id, why in reasons.items():
            if self._unfit.get(camera_id) != why:
                log.error("camera %s: %s", camera_id, why, extra={"event": "camera_unfit", "camera": camera_id})
        self._unfit = reasons
        return fit

    def _show(self, heard: Heard) -> None:
        """The worst first: what keeps the node from being given cameras, then what keeps one camera from running."""
        cell = self._ctx.cell
        if heard.trouble is not None:
            cell.state(*heard.trouble)
        elif self._live.trouble:
            cell.state(State.REDIS_DOWN, self._live.trouble)
        elif self._snapshot.trouble:
            cell.state(State.STORAGE_FULL, self._snapshot.trouble)
        elif self._unfit:
            cell.state(State.CAMERA_UNFIT, "; ".join(f"{name}: {why}" for name, why in sorted(self._unfit.items())))
        else:
            cell.state(State.RUNNING, "; ".join(heard.warnings))
