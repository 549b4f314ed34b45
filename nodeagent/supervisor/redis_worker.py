"""The child `redis`: runs the embedded Redis and beats only while it answers."""

from __future__ import annotations

import logging

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.states import State
from nodeagent.infra.embedded_redis import EmbeddedRedis, RedisUnfit
from nodeagent.infra.incarnation import hold_life
from nodeagent.infra.worker import EXIT_FAILED, EXIT_FATAL, EXIT_OK, WorkerContext

log = logging.getLogger(__name__)

#: Between two questions to the server, seconds; until it answers for the first time, shorter: all others wait for it.
ASK_S = 0.5
FIRST_ASK_S = 0.05
#: Between two readings of the counters, seconds.
COUNT_S = 5.0
#: Reading an append-only file of some gigabytes at the start may take so long, seconds.
LOAD_S = 120.0


def main(ctx: WorkerContext, _arg: str) -> int:
    """Run the server until told to stop or until it ends."""
    ctx.cell.state(State.STARTING, "starting redis-server")
    server = EmbeddedRedis(ctx.settings.node.state_dir / "redis")
    try:
        server.start(hold_life(ctx.memory_dir))
    except Unavailable as exc:
        ctx.cell.state(State.REDIS_DOWN, str(exc))
        log.error("%s", exc, extra={"event": "redis_cannot_start"})  # noqa: TRY400  (one clear line)
        return EXIT_FATAL if isinstance(exc, RedisUnfit) else EXIT_FAILED
    try:
        return _watch(ctx, server)
    finally:
        server.stop()


def _watch(ctx: WorkerContext, server: EmbeddedRedis) -> int:
    ctx.cell.beat(allow_s=LOAD_S)
    serving, count_at_s = False, 0.0
    while not ctx.stop.wait(ASK_S if serving else FIRST_ASK_S):
        code = server.exit_code()
        if code is not None:
            log.error("redis-server ended with %d; its log lies beside its data", code, extra={"event": "redis_ended"})
            ctx.cell.state(State.REDIS_DOWN, f"redis-server ended with {code}")
            return EXIT_FAILED
        try:
            if not server.answers():
                continue
            ctx.cell.beat()
            if not serving:
                serving = True
                ctx.cell.state(State.RUNNING)
                ctx.cell.ready()
            now_s = ctx.clock.monotonic_s()
            if now_s >= count_at_s:
                count_at_s = now_s + COUNT_S
                memory_bytes, keys = server.usage()
                ctx.cell.set("memory_bytes", memory_bytes)
                ctx.cell.set("keys", keys)
        except Unavailable as exc:
            # No beat: if it stays so, the supervisor starts both anew.
            ctx.cell.state(State.REDIS_DOWN, str(exc))
            serving = False
    ctx.cell.state(State.DRAINING)
    return EXIT_OK
