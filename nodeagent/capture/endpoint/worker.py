"""The process that serves this node's clips to other nodes and to players."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Final

from nodeagent.capture.endpoint.app import make_app, make_parts
from nodeagent.capture.endpoint.certificate import certificate_faults, key_pair
from nodeagent.capture.endpoint.gate import Tally
from nodeagent.capture.endpoint.parts import Parts
from nodeagent.capture.endpoint.transfer import SEND_PATIENCE_S
from nodeagent.contract.errors import ConfigError
from nodeagent.contract.states import State
from nodeagent.infra.wanted import WantedFile
from nodeagent.infra.web.port import take_port
from nodeagent.infra.web.server import Limits, Server
from nodeagent.infra.worker import EXIT_FAILED, EXIT_OK, WorkerContext

log = logging.getLogger(__name__)

#: Seconds between two looks at the server, and so between two beats.
LOOK_S = 0.5
#: Seconds without a sign of life of the event loop after which the beat stops.
STUCK_S = 5.0
#: Share of `node.stop_timeout_s` for running requests after TERM.
DRAIN_SHARE = 0.25
#: Least right to a processor, as `nice` counts: recording and analysis come first.
NICENESS = 10
#: Connections that wait to be taken.
BACKLOG = 128
#: Connections at a time.
CONNECTIONS_MAX: Final = 512
#: What it puts up with, but for the time to drain, which is the node's.
LIMITS = Limits(
    connections=CONNECTIONS_MAX, silent_s=10.0, silent_most=CONNECTIONS_MAX // 2, take_s=SEND_PATIENCE_S, drain_s=1
)


def main(ctx: WorkerContext, _arg: str) -> int:
    """Serve until told to stop.

    Raises:
        ConfigError: the certificate cannot be used.
    """
    endpoint = ctx.settings.endpoint
    if endpoint is None:
        return EXIT_OK
    if faults := list(certificate_faults(endpoint)):
        ctx.cell.state(State.LISTEN_FAILED, str(faults[0]))
        raise ConfigError(faults)
    os.nice(NICENESS)
    ctx.cell.ready()
    listening = take_port(ctx, "clip endpoint", endpoint.listen, BACKLOG)
    if listening is None:
        return EXIT_OK
    tally = Tally()
    parts = make_parts(ctx.settings, endpoint, WantedFile(ctx.wanted_path), ctx.clock)
    limits = replace(LIMITS, drain_s=max(1, round(ctx.settings.node.stop_timeout_s * DRAIN_SHARE)))
    server = Server(make_app(parts, endpoint.requests_per_s, tally), limits, ctx.clock, key_pair(endpoint))
    server.start(listening)
    ctx.cell.state(State.RUNNING)
    log.info("serving clips on %s", endpoint.listen, extra={"event": "endpoint_up"})
    return _serve(ctx, server, parts, tally)


def _serve(ctx: WorkerContext, server: Server, parts: Parts, tally: Tally) -> int:
    while server.running:
        if ctx.clock.monotonic_s() - server.alive_s < STUCK_S:
            ctx.cell.beat()
        _count(ctx, parts, tally)
        if ctx.stop.wait(LOOK_S):
            ctx.cell.state(State.DRAINING)
            server.stop()
            # Asked to stop, `wait` does not wait any more.
            server.join(LOOK_S)
    _count(ctx, parts, tally)
    return EXIT_OK if ctx.stop.requested and not server.failed else EXIT_FAILED


def _count(ctx: WorkerContext, parts: Parts, tally: Tally) -> None:
    for name, count in tally.drain().items():
        ctx.cell.add(name, count)
    ctx.cell.set("transfers", parts.transfers.running)
