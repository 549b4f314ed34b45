"""kill -9 of every part of a running site, one after the other: what is lost, doubled or left behind, and for how long.

RabbitMQ, MariaDB, RTSP cameras.  Counted at the end against the clips on disk, judged anew in one process.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nodeagent.cli.demo_facts import camera_ledger
from nodeagent.contract.report import Kind, Phase
from nodeagent.infra.alarm_records import AlarmState, list_alarms
from nodeagent.infra.database import open_database
from tests.bench.harness import Result, result
from tests.support.eventually import eventually
from tests.support.reference import reference_alarms
from tests.support.site import Site

CAMERAS = 2
#: Seconds of undisturbed work before each kill; `quick` kills on the heels of the recovery.
CALM_S, QUICK_CALM_S = 20.0, 4.0
#: Seconds within which a killed part must work again.
BACK_S = 60.0
ROWS_MAX = 10_000
#: Child that is killed of each kind, and the counter that grows when it works again.
STAGES = {
    Kind.CAPTURE: ("capture:cam1", "samples"),
    Kind.INFERENCE: ("inference:0", "clips"),
    Kind.JUDGE: ("judge:0", "clips"),
    Kind.ALARM: ("alarm:0", "received"),
}


def run(quick: bool) -> Iterator[Result]:
    """Kill each part once while everything runs, let the rest arrive, and count."""
    calm_s = QUICK_CALM_S if quick else CALM_S
    with Site(CAMERAS) as site:
        for name in site.cameras:
            site.agent.running(f"capture:{name}")
        eventually(lambda: _counter(site, "judge:0", "clips") > 0, within_s=BACK_S)
        for kind, (name, counter) in STAGES.items():
            time.sleep(calm_s)
            yield from _timed(f"{kind.value}_back_s", lambda n=name: _kill_child(site, n), _grows(site, name, counter))
        time.sleep(calm_s)
        yield from _timed("rabbitmq_back_s", lambda: _restart_broker(site), _grows(site, "judge:0", "clips"))
        time.sleep(calm_s)
        yield from _supervisor(site)
        time.sleep(calm_s)
        off_ns = site.settle()
        pids = {row.pid for row in site.agent.rows() if row.pid} | {site.agent.pid}
        site.agent.stop()
        yield from _left(site, pids)
        yield from _counted(site, off_ns)


def _counter(site: Site, child: str, counter: str) -> int:
    row = site.agent.row(child)
    return row.counters[counter] if row is not None and row.phase is Phase.RUNNING else 0


def _grows(site: Site, child: str, counter: str) -> Callable[[], Callable[[], bool]]:
    """Makes, right after a kill, the question whether the counter has grown since then."""

    def begin() -> Callable[[], bool]:
        row = site.agent.row(child)
        before = row.counters[counter] if row else 0
        return lambda: _counter(site, child, counter) > before

    return begin


def _timed(name: str, kill: Callable[[], str], grows: Callable[[], Callable[[], bool]]) -> Iterator[Result]:
    started_s = time.monotonic()
    what = kill()
    eventually(grows(), within_s=BACK_S)
    yield result(name, round(time.monotonic() - started_s, 1), "s", "", what)


def _kill_child(site: Site, name: str) -> str:
    row = site.agent.running(name)
    os.kill(row.pid, signal.SIGKILL)
    site.agent.running(name, not_pid=row.pid)
    return f"kill -9 of {name} to its next finished piece of work"


def _restart_broker(site: Site) -> str:
    site.rabbit.kill9()
    started_s = time.monotonic()
    site.rabbit.start()
    return f"kill -9 of RabbitMQ to the next clip judged; {time.monotonic() - started_s:.1f} s of it is its own start"


def _supervisor(site: Site) -> Iterator[Result]:
    pids = {row.pid for row in site.agent.rows() if row.pid}
    started_s = time.monotonic()
    site.agent.kill9()
    eventually(lambda: not any(_alive(pid) for pid in pids), within_s=BACK_S)
    gone_s = time.monotonic() - started_s
    site.agent.start()
    eventually(lambda: _counter(site, "judge:0", "clips") > 0, within_s=BACK_S)
    detail = "kill -9 of the supervisor, started again when its children were gone, to the next clip judged"
    yield result("supervisor_back_s", round(time.monotonic() - started_s, 1), "s", "", detail)
    yield result("orphans_gone_s", round(gone_s, 2), "s", "<= 5", "until no child of the killed supervisor lived")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _left(site: Site, pids: set[int]) -> Iterator[Result]:
    processes = sum(_alive(pid) for pid in pids)
    yield result("processes_left", processes, "processes", "== 0", "of the agent, after TERM")
    files = sum(1 for path in site.shm_dir.rglob("*") if path.is_file()) if site.shm_dir.exists() else 0
    yield result("memory_files_left", files, "files", "== 0", "in the agent's folder on /dev/shm, after TERM")


def _counted(site: Site, off_ns: int) -> Iterator[Result]:
    settings = site.agent.settings
    ledger = [camera_ledger(settings, name, off_ns) for name in site.cameras]
    made = sum(row.clips_made for row in ledger)
    detail = (
        f"{CAMERAS} cameras; clips on disk {made}; came twice and were refused {sum(r.clips_twice for r in ledger)}"
    )
    yield result("clips_lost", made - sum(row.clips_judged for row in ledger), "clips", "== 0", detail)
    judged = sum(row.samples_judged for row in ledger)
    expected = sum(row.samples_expected for row in ledger)
    yield result(
        "samples_not_judged_once", abs(expected - judged), "samples", "== 0", f"{expected} on disk, {judged} judged"
    )
    gaps = "; ".join(f"{row.camera_id} {row.gap_why}" for row in ledger)
    yield result("not_recorded_s", round(sum(row.gap_s for row in ledger), 1), "s", "", gaps)
    rows = list_alarms(open_database(settings.database_url), ROWS_MAX)
    keys, wanted = {row.dedup_key for row in rows}, set(reference_alarms(settings))
    yield result("alarms", len(rows), "alarms", "> 0", "rows in MariaDB")
    yield result("alarms_lost", len(wanted - keys), "alarms", "== 0", "against the clips on disk judged anew")
    yield result("alarms_too_many", len(keys - wanted), "alarms", "== 0", "the same")
    yield result("alarms_doubled", len(rows) - len(keys), "rows", "== 0", "rows with a key that another row has")
    pushed = {row.dedup_key for row in rows if row.state is AlarmState.PUSHED}
    yield result(
        "pushes_missing", len(pushed - set(site.receiver.keys)), "pushes", "== 0", f"{len(pushed)} PUSHED rows"
    )
    resends = len([p for p in site.receiver.pushes if p.genuine]) - len(site.receiver.keys)
    yield result("pushes_repeated", resends, "pushes", "", "requests that repeated a key that was accepted before")
