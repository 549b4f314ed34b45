"""What cameras cost, from counters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nodeagent.contract.ownership import Resources
from nodeagent.contract.report import COUNTERS, ChildRow, Kind, NodeReport, Phase
from nodeagent.contract.states import State
from nodeagent.infra.settings.registry import CapacitySettings
from nodeagent.infra.wanted import Grant
from nodeagent.supervisor.link import machine
from nodeagent.supervisor.link.costs import TAU_S, Costs, EngineSpeed, Reading
from nodeagent.supervisor.link.report import holdings

FIRST = Reading(at_s=0.0, pid=1, cpu_s=5.0, samples=100, written=1000, ring_bytes=64, delivers=True)


def later(reading: Reading, seconds: float, cores: float = 0.25) -> Reading:
    """Some seconds more of a camera with 5 samples and 1000 bytes a second."""
    return replace(
        reading,
        at_s=reading.at_s + seconds,
        cpu_s=reading.cpu_s + cores * seconds,
        samples=reading.samples + round(5 * seconds),
        written=reading.written + round(1000 * seconds),
    )


STEADY = Resources(decode_cores=0.25, infer_per_s=5, ring_bytes=64, write_bytes_s=1000)


def test_a_camera_costs_what_it_took() -> None:
    costs = Costs()
    reading = FIRST
    for _ in range(3):
        costs.add("gate", reading)
        reading = later(reading, 2.0)
    assert costs.of(["gate"]) == {"gate": STEADY}


def test_a_busy_second_is_averaged_out_and_a_new_load_is_known_within_minutes() -> None:
    costs = Costs()
    costs.add("gate", FIRST)
    costs.add("gate", reading := later(FIRST, 1.0))
    costs.add("gate", reading := later(reading, 1.0, cores=4.0))
    assert costs.of(["gate"])["gate"].decode_cores < 0.35
    for _ in range(int(3 * TAU_S)):
        costs.add("gate", reading := later(reading, 1.0, cores=2.0))
    assert costs.of(["gate"])["gate"].decode_cores == pytest.approx(2.0, rel=0.06)


@pytest.mark.parametrize(
    "interruption",
    [
        pytest.param({"delivers": False}, id="its source is away"),
        # A new process begins its CPU time at nothing; the board's counters go on.
        pytest.param({"pid": 2, "cpu_s": 0.0}, id="its process was started anew"),
    ],
)
def test_what_interrupts_a_camera_leaves_its_figures(interruption: dict[str, object]) -> None:
    costs = Costs()
    costs.add("gate", FIRST)
    costs.add("gate", reading := later(FIRST, 2.0))
    other = replace(reading, at_s=60.0, **interruption)  # type: ignore[arg-type]
    costs.add("gate", other)
    assert costs.of(["gate"]) == {"gate": STEADY}
    costs.add("gate", later(replace(other, delivers=True), 2.0))
    assert costs.of(["gate"])["gate"].infer_per_s == pytest.approx(5.0)


def test_a_camera_that_went_is_forgotten() -> None:
    costs = Costs()
    costs.add("gate", FIRST)
    costs.add("gate", later(FIRST, 2.0))
    assert costs.of([]) == {}
    costs.add("gate", later(FIRST, 4.0))
    assert costs.of(["gate"]) == {}


def test_the_speed_of_an_engine_is_told_once_it_was_measured() -> None:
    speed = EngineSpeed()
    speed.add(0.0, 0, 0)
    speed.add(1.0, 0, 0)
    assert speed.per_s is None
    speed.add(2.0, 10, 200)
    assert speed.per_s == 50.0
    # A worker was started anew on a new board: its counters say nothing about the time in between.
    speed.add(3.0, 0, 0)
    assert speed.per_s == 50.0


def test_capacity_is_what_is_given_or_what_the_machine_has(tmp_path: Path) -> None:
    given = CapacitySettings(decode_cores=3, infer_per_s=50, ring_gb=2, write_mbytes_s=10)
    assert machine.capacity(given, tmp_path, 2, None, 0) == Resources(
        decode_cores=3, infer_per_s=50, ring_bytes=2 * 1024**3, write_bytes_s=10_000_000
    )
    assert machine.capacity(CapacitySettings(), tmp_path, 2, None, 0) is None
    found = machine.capacity(CapacitySettings(), tmp_path, 2, 70.0, 10**15)
    assert found is not None
    assert (found.infer_per_s, found.write_bytes_s) == (70.0, 2 * machine.DISK_BYTES_S)
    assert found.ring_bytes > 10**15
    # Not known is not nothing: with 0 bytes for rings no camera would be placed here.
    assert machine.capacity(CapacitySettings(), tmp_path / "gone", 2, 70.0, 0) is None
    assert machine.capacity(CapacitySettings(ring_gb=2), tmp_path / "gone", 2, 70.0, 0) is not None


def test_rings_are_counted_for_their_cameras(tmp_path: Path) -> None:
    assert machine.ring_bytes(tmp_path) == {}
    (tmp_path / "rings").mkdir()
    for name, size in (("gate.g1", 10), ("gate.g2", 20), ("a.g7.g1", 5), (".gate.g3.12.tmp", 99)):
        (tmp_path / "rings" / name).write_bytes(b"x" * size)
    assert machine.ring_bytes(tmp_path) == {"gate": 30, "a.g7": 5}


def test_a_process_that_is_gone_took_no_time() -> None:
    assert machine.cpu_s(2**22 + 1) is None
    assert machine.cpu_s(1) is not None


def test_the_highest_epoch_in_use_is_reported() -> None:
    row = ChildRow(
        name="capture:gate", kind=Kind.CAPTURE, pid=1, phase=Phase.RUNNING, state=State.CAPTURING, state_since_ns=0,
        detail="", beat_age_s=0.0, restarts=0, started_ns=0,
        counters=dict.fromkeys(COUNTERS[Kind.CAPTURE], 0) | {"epoch": 9},
    )  # fmt: skip
    report = NodeReport(node_id="n1", host="h", version="1", agent_pid=1, started_ns=0, rows=(row,))
    held = holdings(report, {"gate": Grant(7, 2), "yard": Grant(8, 1)})
    assert [(h.camera_id, h.epoch, h.version) for h in held] == [("gate", 9, 2), ("yard", 8, 1)]
