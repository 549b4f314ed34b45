"""The inference worker: loads every configured model, then serves clip tasks until TERM."""

from __future__ import annotations

import logging

import cv2

from nodeagent.contract.errors import BadModel
from nodeagent.contract.states import State
from nodeagent.inference.model import load_models
from nodeagent.inference.pipeline import Pipeline
from nodeagent.infra.bus.aside import watch_aside
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.topology import CLIPS, clips_queue
from nodeagent.infra.worker import EXIT_FATAL, WorkerContext

log = logging.getLogger(__name__)

#: Loading a model and running it for the first time takes at most this long, seconds.
LOAD_MAX_S = 60.0


def main(ctx: WorkerContext, arg: str) -> int:
    """Serve clip tasks until TERM; `arg` is the worker's number."""
    settings = ctx.settings
    # The thread that resizes is one of three on this worker's share of the cores; more would take the cameras'.
    cv2.setNumThreads(1)
    ctx.cell.state(State.LOADING_MODEL)
    ctx.cell.beat(allow_s=LOAD_MAX_S * max(1, len(settings.models)))
    try:
        models = load_models(settings)
    except BadModel as exc:
        ctx.cell.state(State.BAD_MODEL, str(exc))
        log.error("inference %s cannot serve: %s", arg, exc, extra={"event": "bad_model"})  # noqa: TRY400
        return EXIT_FATAL
    own = clips_queue(settings.node.node_id)
    ctx.cell.set("in_hand", 0)
    bus = open_bus(settings, lambda queue, count: ctx.cell.set("in_hand", count) if queue == own else None)
    watch_aside(ctx, bus, CLIPS)
    try:
        return Pipeline(ctx, bus, models).run()
    finally:
        bus.close()
