"""Reports of 20 rows: what one registry process on one core sustains, how late its answers are, what memory it takes.

Each node reports once a second on a connection of its own, evenly spread over the second; there are more of them from
step to step until the registry cannot follow.  It is a real `registry serve` with its live state in Redis, pinned to
one core; the nodes are in processes of their own on the other cores.  No camera is placed meanwhile.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nodeagent.contract.ownership import AgentReport, Holding, Resources
from nodeagent.contract.report import COUNTERS, ChildRow, Kind, NodeReport, Phase
from nodeagent.contract.states import State
from nodeagent.infra.database import migrate, open_database
from registry.store.tokens import Tokens
from tests.bench.harness import Result, result
from tests.support.eventually import eventually
from tests.support.server import listens
from tests.support.services import RedisServer, free_port

ROWS = 20
STEPS, STEPS_QUICK = (250, 500, 750, 1000, 1250, 1500, 2000, 2500, 3000), (100, 250, 500)
#: Seconds of one step, and those at its beginning that do not count: connections are made, tokens looked up.
STEP_S, WARM_S = 12.0, 4.0
#: An answer that comes later is none: the agent gives up after two seconds.
LATE_S = 1.0
#: Processes that nodes are in.
PROCESSES = 3
#: Seconds that a late answer is waited for at the end of a step.
END_S = 3.0
_SEQ, _SENT = 7_777_777_777, 8_888_888_888_888_888_888


@dataclass(frozen=True, slots=True)
class Step:
    """So many nodes.

    Attributes:
        late_s: time of each answer from when its report was due, seconds; infinity for one that never came.
        cores: CPU seconds per second of the registry.
        memory_mb: its resident memory at the end.
    """

    nodes: int
    late_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    cores: float
    memory_mb: float

    @property
    def p99_s(self) -> float:
        """The 99th percentile."""
        return float(np.quantile(self.late_s, 0.99, method="higher"))

    @property
    def holds(self) -> bool:
        """Whether the registry follows."""
        return self.p99_s <= LATE_S


def body_of(node_id: str) -> bytes:
    """A report with placeholders for its number and time."""
    cameras = [f"{node_id}-cam-{number:02d}" for number in range(ROWS)]
    counters = {name: 123_456 + at for at, name in enumerate(COUNTERS[Kind.CAPTURE])}
    rows = tuple(
        ChildRow(
            name=f"capture:{camera}",
            kind=Kind.CAPTURE,
            pid=4000 + at,
            phase=Phase.RUNNING,
            state=State.CAPTURING,
            state_since_ns=time.time_ns(),
            detail="",
            beat_age_s=0.25,
            restarts=0,
            started_ns=time.time_ns(),
            counters=counters,
        )
        for at, camera in enumerate(cameras)
    )
    cost = Resources(decode_cores=0.1234, infer_per_s=4.987, ring_bytes=64e6, write_bytes_s=512e3)
    report = AgentReport(
        report=NodeReport(
            node_id=node_id, host="rack1", version="1", agent_pid=7, started_ns=time.time_ns(), rows=rows
        ),
        incarnation=secrets.token_hex(8),
        seq=_SEQ,
        sent_ns=_SENT,
        capacity=Resources(decode_cores=8, infer_per_s=400, ring_bytes=16e9, write_bytes_s=200e6),
        costs=dict.fromkeys(cameras, cost),
        holds=tuple(Holding(camera_id=camera, epoch=1_767_225_600_000, version=1) for camera in cameras),
    )
    return report.model_dump_json().encode()


async def _node(port: int, node_id: str, token: str, first_s: float, until_s: float, from_s: float) -> list[float]:
    """Report once a second; how late each answer was that was due after `from_s`."""
    body, late, seq, due_s = body_of(node_id), [], 0, first_s
    await asyncio.sleep(max(0.0, due_s - time.monotonic()))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while due_s < until_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            seq += 1
            sent = body.replace(str(_SEQ).encode(), str(seq).encode()).replace(
                str(_SENT).encode(), str(time.time_ns()).encode()
            )
            head = (
                f"POST /api/v1/nodes/{node_id}/report HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
            )
            writer.write(head.encode() + sent)
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + END_S):
                    answer = await reader.readuntil(b"\r\n\r\n")
                    found = re.search(rb"content-length: (\d+)", answer, re.IGNORECASE)
                    await reader.readexactly(int(found[1]) if found else 0)
                good = answer.startswith(b"HTTP/1.1 200")
            except TimeoutError:
                return [*late, float("inf")]
            if due_s >= from_s:
                late.append(time.monotonic() - due_s if good else float("inf"))
            due_s += 1.0
    finally:
        writer.close()
    return late


def _crowd(
    port: int, nodes: Sequence[tuple[str, str, float]], until_s: float, from_s: float, core: set[int]
) -> list[float]:
    """All nodes of one process; runs in it."""
    os.sched_setaffinity(0, core)

    async def all_of_them() -> list[float]:
        found = await asyncio.gather(*(_node(port, name, token, at, until_s, from_s) for name, token, at in nodes))
        return [late for one in found for late in one]

    return asyncio.run(all_of_them())


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def step(pid: int, port: int, tokens: dict[str, str], count: int, others: set[int]) -> Step:
    """Let so many nodes report for a while."""
    began_s = time.monotonic() + 1.5
    nodes = [(name, token, began_s + at / count) for at, (name, token) in enumerate(list(tokens.items())[:count])]
    until_s, from_s = began_s + STEP_S, began_s + WARM_S
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        crowds = [pool.submit(_crowd, port, nodes[at::PROCESSES], until_s, from_s, others) for at in range(PROCESSES)]
        time.sleep(max(0.0, from_s - time.monotonic()))
        before_s, at_s = _cpu_s(pid), time.monotonic()
        time.sleep(max(0.0, until_s - time.monotonic()))
        cores = (_cpu_s(pid) - before_s) / (time.monotonic() - at_s)
        late = [one for crowd in crowds for one in crowd.result()]
    return Step(count, np.array(late), cores, _memory_mb(pid))


def _tokens(folder: Path, count: int) -> dict[str, str]:
    engine = open_database(f"sqlite:///{folder}/site.db")
    migrate(engine)
    kept = Tokens(engine)
    names = [f"node-{number:04d}" for number in range(count)]
    found = {name: kept.make_for_node(name, name, "bench", time.time_ns())[1].get_secret_value() for name in names}
    engine.dispose()
    return found


def _config(folder: Path, redis_url: str) -> tuple[Path, int]:
    path, port = folder / "registry.toml", free_port()
    path.write_text(
        f'[registry]\nregistry_id = "r1"\nport = {port}\nstate_dir = "{folder}/state"\n'
        f'[database]\nurl = "sqlite:///{folder}/site.db"\n[secrets]\nkey_file = "{folder}/keys"\n'
        f'[redis]\nurl = "{redis_url}"\n'
    )
    return path, port


def _steps(folder: Path, redis_url: str, sizes: Sequence[int]) -> Iterator[Step]:
    path, port = _config(folder, redis_url)
    tokens = _tokens(folder, max(sizes))
    cores = sorted(os.sched_getaffinity(0))
    mine, others = {cores[0]}, set(cores[1:]) or {cores[0]}
    line = [sys.executable, "-c", "from registry.cli import main; main()", "serve", "-c", str(path)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(line, stderr=log, preexec_fn=lambda: os.sched_setaffinity(0, mine))
        try:
            eventually(lambda: listens(port), within_s=60)
            for size in sizes:
                found = step(process.pid, port, tokens, size, others)
                yield found
                if not found.holds:
                    return
        finally:
            process.terminate()
            process.wait(60)


def _figures(steps: Sequence[Step]) -> Iterator[Result]:
    held = [one for one in steps if one.holds]
    most = held[-1] if held else steps[0]
    sustained = most.nodes if held else 0
    tried = "; ".join(f"{one.nodes} nodes: p99 {one.p99_s:.3f} s, {one.cores:.2f} cores" for one in steps)
    how = f"at {most.nodes} nodes, {len(most.late_s)} reports in {STEP_S - WARM_S:.0f} s; from when each was due"
    yield result("reports_per_s", sustained, "reports/s", "", f"{ROWS} rows each, p99 <= {LATE_S:g} s; {tried}")
    yield result("nodes_at_one_a_second", sustained, "nodes", "", "the same, as nodes; state in Redis, one core")
    yield result("answer_p50_ms", round(float(np.median(most.late_s)) * 1e3, 1), "ms", "", how)
    yield result("answer_p99_ms", round(most.p99_s * 1e3, 1), "ms", "", how)
    yield result("registry_cores", round(most.cores, 3), "cores", "", "of the registry's process in that step")
    yield result("registry_memory_mb", round(most.memory_mb, 1), "MB", "", "resident, at the end of that step")


def run(quick: bool) -> Iterable[Result]:
    """Measure."""
    sizes = STEPS_QUICK if quick else STEPS
    with tempfile.TemporaryDirectory() as folder, RedisServer() as redis:
        steps = list(_steps(Path(folder), redis.url, sizes))
    yield from _figures(steps)
