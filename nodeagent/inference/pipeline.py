"""The inference worker's work loop and its two threads: one reads ahead of the engine, one publishes behind it.

Everything that waits for others (broker, disk, memory) is in the two threads; the loop beats only while both of them
move too, so a thread that hangs is seen as the worker that hangs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from nodeagent.contract.errors import BadModel, ConfigError, Unavailable
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.contract.states import State
from nodeagent.inference.choice import Choice
from nodeagent.inference.clip_files import ClipFiles
from nodeagent.inference.intake import PREFETCH, Intake
from nodeagent.inference.loader import Items, Loader
from nodeagent.inference.model import Model
from nodeagent.inference.publisher import Publisher, Results
from nodeagent.inference.rings import Rings
from nodeagent.inference.tries import Tries
from nodeagent.inference.work import (
    WAIT_S,
    Alien,
    Batch,
    Buffers,
    Cancelled,
    Channel,
    Ended,
    Inferred,
    Job,
    Last,
    Tally,
)
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.topology import CLIPS_SPILL, clips_queue
from nodeagent.infra.clip_client import ClipClient, ConfiguredPeers
from nodeagent.infra.drain import Drain
from nodeagent.infra.storage import follow_storage
from nodeagent.infra.wanted import WantedFile
from nodeagent.infra.worker import EXIT_FAILED, EXIT_FATAL, EXIT_OK, WorkerContext

log = logging.getLogger(__name__)

#: A thread that shows no step for this long hangs, seconds, on top of one publish that waits for its confirm.
STUCK_S = 30.0
#: The loop's next beat may take this many times the slowest engine call so far: a busy machine slows it down.
SLOWER = 20
#: Time between beats that needs no announcement, seconds.
BEAT_S = 1.0
#: Announced for the first engine call at least, seconds: its speed is known from the dry run only.
FIRST_CALL_S = 10.0
#: Part of the node's stop_timeout_s for which tasks that are still coming are taken.
TAKE_SHARE = 0.2
#: Part of the node's stop_timeout_s after which what is under way goes back to the broker.
DRAIN_SHARE = 0.8


class Pipeline:
    """The work loop and its two threads."""

    def __init__(self, ctx: WorkerContext, bus: Bus, models: Mapping[str, Model]) -> None:
        settings = ctx.settings
        self._ctx = ctx
        self._bus = bus
        self._over = threading.Event()
        self._tally = Tally()
        self._buffers = Buffers(settings.inference.batch, self._over)
        for model in models.values():
            self._buffers.add(model)
        self._items: Items = Channel(self._over)
        self._results: Results = Channel(self._over)
        choice = Choice(models, WantedFile(ctx.wanted_path))
        node = settings.node
        rings, intake = Rings(ctx.memory_dir), Intake(node.node_id, bus)
        fetched_dir = node.state_dir / "fetched" / ctx.name.replace(":", "-")
        client = ClipClient(ConfiguredPeers(settings.peers), fetched_dir, ctx.clock)
        files = ClipFiles(node.node_id, follow_storage(settings), client)
        self._tries = Tries(node.state_dir / "inference", self._over, ctx.clock.wall_ns())
        self._loader = Loader(node.node_id, intake, files, rings, choice, self._buffers, self._tries, ctx.clock)
        self._publisher = Publisher(node.node_id, bus, ctx.clock, self._over, self._tally, self._tries)
        self._stuck_s = STUCK_S + (settings.bus.confirm_timeout_s if settings.bus else 0.0)
        slowest_sample_s = max(model.engine.describe().sample_s for model in models.values())
        #: Allowed for one engine call of any model by what the dry runs showed, seconds.
        self._dry_s = SLOWER * slowest_sample_s * settings.inference.batch
        self._slowest_s = max(FIRST_CALL_S, self._dry_s)
        self._calls = 0
        self._infer_ns = 0
        #: Clip whose engine call failed, and why: its other batches are not tried.
        self._failed: tuple[Job, str] | None = None
        self._drain = Drain(ctx.stop, ctx.clock, settings.node.stop_timeout_s * TAKE_SHARE)
        self._drain_until_s: float | None = None
        self._shown: tuple[State, str] | None = None

    def run(self) -> int:
        """Serve until a stop is requested and what was under way is settled."""
        self._ctx.cell.ready()
        if not self._declare():
            return EXIT_FATAL
        threads = (
            threading.Thread(target=self._loader.run, args=(self._items, self._leave), name="loader", daemon=True),
            threading.Thread(target=self._publisher.run, args=(self._results,), name="publisher", daemon=True),
        )
        for thread in threads:
            thread.start()
        try:
            self._work()
        except Cancelled:
            log.warning("stopped with clips under way", extra={"event": "drain_cut_short"})
        finally:
            self._over.set()
            for thread in threads:
                thread.join(WAIT_S * 4)
        self._show()
        if self._loader.crashed or self._publisher.crashed:
            return EXIT_FAILED
        self._tries.give_back_all()
        return EXIT_OK

    def _work(self) -> None:
        """Run the engine until the loader has ended, then wait for the publisher.

        Raises:
            Cancelled: the drain took too long, or the publisher failed.
        """
        while not self._loader.done.is_set():
            self._step(WAIT_S)
        while self._step(0.0):
            pass
        self._hand_over(Last())
        while not self._publisher.done.is_set():
            self._show()
            self._publisher.done.wait(WAIT_S)

    def _leave(self, took: bool) -> bool:
        return self._publisher.crashed or self._over.is_set() or self._drain.over(took)

    def _declare(self) -> bool:
        """Make the topology and consume; retried while the broker is away.  False: it lacks what we need."""
        while not self._ctx.stop.requested:
            self._ctx.cell.beat()
            try:
                self._bus.declare()
            except Unavailable as exc:
                self._ctx.cell.state(State.BUS_DOWN, str(exc))
                self._ctx.stop.wait(WAIT_S)
                continue
            except ConfigError as exc:
                self._ctx.cell.state(State.BUS_DOWN, str(exc))
                log.error("the broker cannot serve: %s", exc, extra={"event": "bad_broker"})  # noqa: TRY400
                return False
            for queue in (CLIPS_SPILL, clips_queue(self._ctx.settings.node.node_id)):
                self._bus.consume(queue, PREFETCH)
            break
        return True

    def _step(self, wait_s: float) -> bool:
        """Handle one item; return whether there was one."""
        self._show()
        item = self._items.poll(wait_s)
        match item:
            case Batch():
                self._infer(item)
            case Ended() if self._failed is not None and self._failed[0] is item.job:
                self._hand_over(Ended(item.job, "none", (), self._failed[1]))
                self._failed = None
            case Ended() | Alien():
                self._hand_over(item)
        return item is not None

    def _infer(self, batch: Batch) -> None:
        """Run the engine; a batch that it cannot run makes its clip unknown, never empty."""
        began_s = self._ctx.clock.monotonic_s()
        try:
            if self._failed is None or self._failed[0] is not batch.job:
                raw = batch.model.engine.infer(batch.frames)
                self._hand_over(Inferred(batch.model, batch.first, raw, batch.placement))
                self._tick(self._ctx.clock.monotonic_s() - began_s)
        except BadModel as exc:
            self._failed = (batch.job, str(exc))
        finally:
            self._buffers.give(batch.model, batch.buffer)

    def _tick(self, took_s: float) -> None:
        # What was measured takes the place of the first call's least.
        known_s = self._dry_s if self._calls == 0 else self._slowest_s
        self._calls += 1
        self._slowest_s = max(known_s, took_s * SLOWER)
        self._infer_ns += round(took_s * NS_PER_S)
        self._tally.add("infer_ms", self._infer_ns // NS_PER_MS)
        self._infer_ns %= NS_PER_MS

    def _hand_over(self, item: Inferred | Ended | Alien | Last) -> None:
        self._results.put(item, self._show)

    def _show(self) -> None:
        """Beat, count, and say how it goes; end the drain when its time is over."""
        cell, now_s = self._ctx.cell, self._ctx.clock.monotonic_s()
        if self._moving(now_s):
            cell.beat(allow_s=self._slowest_s if self._slowest_s > BEAT_S else None)
        for name, count in self._tally.drain().items():
            cell.add(name, count)
        cell.set("last_clip_ns", self._publisher.newest_ns)
        if (shown := self._state()) != self._shown:
            cell.state(*shown)
            self._shown = shown
        if self._ctx.stop.requested and self._drain_until_s is None:
            self._drain_until_s = now_s + self._ctx.settings.node.stop_timeout_s * DRAIN_SHARE
        drained_too_long = self._drain_until_s is not None and now_s > self._drain_until_s
        if drained_too_long or self._publisher.crashed:
            self._over.set()

    def _moving(self, now_s: float) -> bool:
        watched = [part.alive_s for part in (self._loader, self._publisher) if not part.done.is_set()]
        return not watched or now_s - min(watched) < self._stuck_s

    def _state(self) -> tuple[State, str]:
        if self._ctx.stop.requested:
            return State.DRAINING, ""
        if self._publisher.trouble:
            return State.BUS_DOWN, self._publisher.trouble
        if not self._bus.connected:
            return State.BUS_DOWN, "the broker does not answer"
        if fault := self._publisher.outcomes.fault(self._ctx.clock.monotonic_s()):
            return State.ANALYSIS_FAILING, fault
        return State.RUNNING, ""
