"""A worker's port, which somebody else may have: taken as soon as it is free, and told of until then."""

from __future__ import annotations

import logging
import os
import socket
from typing import Final

from nodeagent.contract.states import State
from nodeagent.infra.settings.endpoint import address_of
from nodeagent.infra.web.server import listen
from nodeagent.infra.worker import WorkerContext

log = logging.getLogger(__name__)

#: First and longest wait before the next try, seconds: whoever has the port may be about to leave.
FIRST_S, MOST_S = 1.0, 30.0
#: Seconds between two beats meanwhile.
BEAT_S: Final = 0.5


def take_port(ctx: WorkerContext, what: str, address: str, backlog: int) -> socket.socket | None:
    """Listen on `address`, as long as that takes; None when told to stop meanwhile.

    `what` wants it, in words; `backlog` connections may wait to be taken.
    """
    wait_s = FIRST_S
    while not ctx.stop.requested:
        try:
            return listen(*address_of(address), backlog)
        except OSError as exc:
            # What `socket` adds to the kernel's words says nothing more; errors of names have numbers below 0.
            reason = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror
            why = f"{address}: {reason}"
        if ctx.cell.current_state is not State.LISTEN_FAILED:
            log.error("%s cannot listen on %s", what, why, extra={"event": "listen_failed"})
        ctx.cell.state(State.LISTEN_FAILED, why)
        next_s = ctx.clock.monotonic_s() + wait_s
        while ctx.clock.monotonic_s() < next_s and not ctx.stop.wait(BEAT_S):
            ctx.cell.beat()
        wait_s = min(2 * wait_s, MOST_S)
    return None
