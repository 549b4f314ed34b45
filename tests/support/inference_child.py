"""An inference worker in a process of its own, which a white picture kills as a fault in a library would."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from nodeagent.inference.engine import Numbers, Pixels
from nodeagent.inference.model import load_models
from nodeagent.inference.onnx_engine import OnnxEngine
from nodeagent.inference.pipeline import Pipeline
from tests.support.eventually import eventually
from tests.support.inference import EPOCH_NS, in_ring, make_bench
from tests.support.models import marker_model

#: Brightness that kills.
WHITE = 200


def life(folder: Path, numbers: list[int], poison: int, say: Connection) -> None:
    """Serve the clips `numbers`, given in this order, and say the outcome of each at the end."""
    state_dir = folder / "state"
    state_dir.mkdir(exist_ok=True)
    own = folder / str(os.getpid())
    own.mkdir()
    bench = make_bench(own, [marker_model(own)])
    node = bench.ctx.settings.node.model_copy(update={"state_dir": state_dir})
    ctx = replace(bench.ctx, settings=bench.ctx.settings.model_copy(update={"node": node}))
    infer = OnnxEngine.infer

    def deadly(self: OnnxEngine, batch: Pixels) -> list[Numbers]:
        if batch.min() > WHITE:
            os.kill(os.getpid(), signal.SIGKILL)
        return infer(self, batch)

    models = load_models(ctx.settings)
    OnnxEngine.infer = deadly  # type: ignore[method-assign]
    for number in numbers:
        shade = 255 if number == poison else 90
        task = in_ring(bench, marked=(), start_ns=EPOCH_NS + number * 10**10, shade=shade)
        # Long after the first three workers died: what is delivered often is not what did it.
        bench.offer(task, attempt=9)
    thread = threading.Thread(target=Pipeline(ctx, bench.bus, models).run)
    thread.start()
    eventually(lambda: len(bench.bus.published) == len(numbers), within_s=30)
    headers = [one.header for one in bench.bus.published]
    say.send({(header.start_ns - EPOCH_NS) // 10**10: header.outcome for header in headers})
    ctx.stop.request()
    thread.join()
    bench.close()


def live(folder: Path, numbers: list[int], poison: int) -> tuple[int, dict[int, str]]:
    """One life: how it ended (negative: killed) and, if it was not killed, the outcome of each clip."""
    spawn = multiprocessing.get_context("spawn")
    hear, say = spawn.Pipe(duplex=False)
    child = spawn.Process(target=life, args=(folder, numbers, poison, say))
    child.start()
    say.close()
    child.join(60)
    assert child.exitcode is not None
    said: dict[int, str] = hear.recv() if child.exitcode == 0 else {}
    hear.close()
    return child.exitcode, said
