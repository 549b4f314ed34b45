"""The loop's own thinking, turn by turn, with processes that only the test ends."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import ConfigError, Fault
from nodeagent.contract.report import Kind, Phase
from nodeagent.infra.board import Board
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import PoolSettings, Settings
from nodeagent.infra.wanted import SEED, Grant, Wanted, read_wanted, write_wanted
from nodeagent.supervisor.cameras import TomlCameras
from nodeagent.supervisor.children import Children
from nodeagent.supervisor.inbox import Inbox
from nodeagent.supervisor.kinds import KINDS
from nodeagent.supervisor.loop import HAND_OVER_SHARE, READY_PATIENCE_S, TURN_S, Loop
from nodeagent.supervisor.orders import OrderMaker
from nodeagent.supervisor.reload_note import ReloadNote, read_note, write_note
from nodeagent.supervisor.roster import Want
from tests.support.fake_processes import FakeStarter, TurnedClock


class Notes:
    """What systemd would hear."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def ready(self) -> None:
        self.heard.append("ready")

    def reloading(self, _now_s: float) -> None:
        self.heard.append("reloading")

    def stopping(self) -> None:
        self.heard.append("stopping")

    def status(self, _sentence: str) -> None:
        pass

    def alive(self, _now_s: float) -> None:
        pass


class FedCameras:
    """A source that calls through a pipe, as a registry's link will."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.next: tuple[CameraSpec, ...] | ConfigError = ()
        self.needs_restart: tuple[str, ...] = ()
        self.grants: dict[str, Grant] = {}
        self.takers = False
        self.nobody_takes = False
        self.pools = (PoolSettings(path=Path("/pool")),)

    def fileno(self) -> int:
        return self.read_fd

    def initial(self) -> tuple[CameraSpec, ...]:
        return ()

    def read(self) -> tuple[CameraSpec, ...]:
        os.read(self.read_fd, 1)
        if isinstance(self.next, ConfigError):
            raise self.next
        return self.next

    reload = read

    def leave(self) -> bool:
        return self.takers

    def feed(self, found: tuple[CameraSpec, ...] | ConfigError) -> None:
        self.next = found
        os.write(self.write_fd, b"x")


class Bench:
    """A loop and all that it is made of."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings.model_validate({"node": {"state_dir": folder}})
        self.clock, self.starter, self.notes, self.source = TurnedClock(), FakeStarter(), Notes(), FedCameras()
        self.board = Board.create(folder / "board", "n1", 1, 1, cells=16, clock=self.clock)
        orders, self.inbox = OrderMaker(self.settings, folder, "p"), Inbox()
        starter: Any = self.starter
        notes: Any = self.notes
        self.children = Children(self.board, starter, orders, KINDS, self.clock)
        self.loop = Loop(
            self.settings, self.source, self.children, starter, orders, KINDS, self.inbox, notes, self.clock
        )

    def turn(self) -> None:
        self.loop._act()

    def phases(self) -> dict[str, Phase]:
        return {view.want.name: view.phase for view in self.children.views()}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.inbox.close()
    os.close(made.source.read_fd)
    os.close(made.source.write_fd)


def gate() -> CameraSpec:
    return CameraSpec.model_validate({"camera_id": "gate", "record": {"url": "a.mp4"}})


def test_ready_is_said_once_when_all_workers_are(bench: Bench) -> None:
    bench.turn()
    bench.turn()
    assert bench.notes.heard == []
    for process in bench.starter.alive():
        bench.board.cell(process.order.cell).ready()
    for _ in range(3):
        bench.turn()
    assert bench.notes.heard == ["ready"]


def test_a_worker_that_waits_for_its_broker_keeps_nobody_from_being_ready_for_ever(bench: Bench) -> None:
    bench.turn()
    bench.clock.now_s += READY_PATIENCE_S - 1
    bench.turn()
    assert bench.notes.heard == []
    bench.clock.now_s += 2
    bench.turn()
    assert bench.notes.heard == ["ready"]


def test_a_source_that_calls_is_read_and_its_faults_change_nothing(bench: Bench) -> None:
    # No process can be made here, so the loop waits for the source alone.
    bench.starter.broken = True
    bench.clock.now_s += READY_PATIENCE_S + 1
    bench.turn()
    bench.source.feed((gate(),))
    bench.loop._collect()
    bench.turn()
    assert bench.phases()["capture:gate"] is Phase.BACKOFF
    assert [camera.camera_id for camera in read_wanted(bench.settings.node.state_dir / "wanted.json").cameras] == [
        "gate"
    ]
    bench.source.feed(ConfigError([Fault("cameras", "no")]))
    bench.loop._collect()
    bench.turn()
    assert "capture:gate" in bench.phases()
    assert bench.notes.heard == ["ready", "reloading", "ready", "reloading", "ready"]


def leaving(bench: Bench) -> None:
    """Cameras `gate` and `yard` run, others may take them, and a stop was asked for."""
    bench.source.takers = True
    bench.source.grants = {"gate": Grant(7, 1), "yard": Grant(7, 1)}
    yard = gate().model_copy(update={"camera_id": "yard"})
    bench.loop._take_cameras((gate(), yard))
    bench.turn()
    for process in bench.starter.alive():
        bench.board.cell(process.order.cell).ready()
    bench.turn()
    bench.turn()
    bench.loop._on_signal(signal.SIGTERM)


def captures(bench: Bench) -> dict[str, Phase]:
    return {name: phase for name, phase in bench.phases().items() if name.startswith("capture")}


def test_cameras_are_captured_until_others_have_them(bench: Bench) -> None:
    leaving(bench)
    bench.turn()
    assert captures(bench) == {"capture:gate": Phase.RUNNING, "capture:yard": Phase.RUNNING}
    # One is taken: the other runs on, and so do the workers.
    bench.source.grants = {"gate": Grant(7, 1)}
    bench.loop._reload(lambda: (gate(),))
    bench.turn()
    assert captures(bench) == {"capture:gate": Phase.RUNNING, "capture:yard": Phase.STOPPING}
    assert bench.phases()["judge:0"] is Phase.RUNNING
    bench.loop._take_cameras(())
    bench.turn()
    assert set(captures(bench).values()) == {Phase.STOPPING}
    assert bench.phases()["redis"] is Phase.RUNNING
    # Systemd was told once, at the beginning, and not that anything is reloaded or ready since.
    assert bench.notes.heard == ["ready", "stopping"]


def test_nobody_waits_longer_than_a_share_of_the_time_for_others_to_take_cameras(bench: Bench) -> None:
    leaving(bench)
    total_s = bench.settings.node.stop_timeout_s
    bench.clock.now_s += HAND_OVER_SHARE * total_s - 0.1
    bench.turn()
    assert set(captures(bench).values()) == {Phase.RUNNING}
    bench.clock.now_s += 0.2
    bench.turn()
    assert set(captures(bench).values()) == {Phase.STOPPING}
    # All is over when it would have been without anybody to take them.
    view = bench.loop._view(bench.clock.now_s)
    assert max(view.stop_by_s.values()) == pytest.approx(100.0 + total_s)


def test_nobody_waits_for_others_once_it_is_known_that_none_will_come(bench: Bench) -> None:
    leaving(bench)
    bench.turn()
    assert set(captures(bench).values()) == {Phase.RUNNING}
    bench.source.nobody_takes = True
    # The clock stands still.
    bench.turn()
    assert set(captures(bench).values()) == {Phase.STOPPING}


def test_a_second_request_ends_a_hand_over_at_once(bench: Bench) -> None:
    leaving(bench)
    bench.loop._on_signal(signal.SIGTERM)
    bench.turn()
    bench.turn()
    assert all(signal.SIGKILL in process.got for process in bench.starter.processes)


def test_what_a_source_says_in_a_drain_does_not_keep_the_loop_awake(bench: Bench) -> None:
    bench.source.feed((gate(),))
    bench.loop._on_signal(signal.SIGTERM)
    began_s = time.monotonic()
    bench.loop._collect()
    assert time.monotonic() - began_s >= 0.9 * TURN_S


def test_what_is_not_in_force_is_noted_until_it_is(bench: Bench) -> None:
    bench.starter.broken = True
    state_dir = bench.settings.node.state_dir
    bench.source.needs_restart = ("bus",)
    bench.source.feed((gate(),))
    bench.loop._collect()
    assert read_note(state_dir) == ReloadNote(at_ns=bench.clock.wall_ns(), needs_restart=("bus",))
    bench.source.feed(ConfigError([Fault("cameras", "no"), Fault("site", "no", "'x'")]))
    bench.loop._collect()
    note = read_note(state_dir)
    assert note is not None
    assert (note.refused, note.needs_restart) == (("cameras: no", "site: no (got 'x')"), ("bus",))
    bench.source.needs_restart = ()
    bench.source.feed((gate(),))
    bench.loop._collect()
    assert read_note(state_dir) is None


@pytest.mark.parametrize("name", ["wanted.json", "seed.json"])
def test_a_file_that_a_reload_cannot_write_is_named(bench: Bench, name: str, caplog: pytest.LogCaptureFixture) -> None:
    path = bench.settings.node.state_dir / name
    path.mkdir()
    (path / "taken").touch()

    def reload() -> tuple[CameraSpec, ...]:
        # As with a registry inside.
        write_wanted(bench.settings.node.state_dir / SEED, Wanted(1, (gate(),)))
        return (gate(),)

    bench.loop._last_version = lambda: 0  # type: ignore[method-assign]
    bench.loop._reload(reload)
    note = read_note(bench.settings.node.state_dir)
    assert note is not None
    assert note.refused == (f"{path}: Is a directory",)
    assert f"not reloaded: {path}: Is a directory" in caplog.text
    assert [each.name for each in bench.settings.node.state_dir.glob(".*.tmp")] == []


def test_a_start_takes_the_whole_file_so_an_old_note_goes(bench: Bench) -> None:
    state_dir = bench.settings.node.state_dir
    write_note(state_dir, ReloadNote(at_ns=1, refused=("cameras: no",)))
    bench.starter.broken = True
    signal.raise_signal(signal.SIGTERM)
    assert bench.loop.run() == 0
    assert read_note(state_dir) is None


def test_a_note_that_cannot_be_written_is_no_end(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.starter.broken = True
    (bench.settings.node.state_dir / "reload.json").mkdir()
    bench.source.feed(ConfigError([Fault("cameras", "no")]))
    with caplog.at_level(logging.WARNING):
        bench.loop._collect()
    assert "reload.json cannot be written: Is a directory" in caplog.text


def test_other_disks_are_taken_over_by_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "nodeagent.toml"
    path.write_text('[[pool]]\npath = "/a"\n')
    source = TomlCameras(path, load_settings(path))
    assert [str(pool.path) for pool in source.pools] == ["/a"]
    path.write_text('[[pool]]\npath = "/a"\n[[pool]]\npath = "/b"\nquota_gb = 7\n')
    source.read()
    assert [(str(pool.path), pool.quota_gb) for pool in source.pools] == [("/a", 100.0), ("/b", 7.0)]
    assert source.needs_restart == ()
    path.write_text('[[pool]]\npath = "/a"\nquota_gb = -1\n')
    with pytest.raises(ConfigError):
        source.read()
    assert len(source.pools) == 2


@pytest.mark.parametrize("model", ["another", ""])
def test_a_camera_whose_model_does_not_run_is_a_fault(tmp_path: Path, model: str) -> None:
    path = tmp_path / "nodeagent.toml"
    camera = '[[cameras]]\ncamera_id = "{}"\nrecord = {{ url = "a.mp4" }}\nmodel = "{}"\n'
    models = '[[models]]\nname = "{}"\nfile = "m.toml"\n'
    path.write_text(models.format("m") + camera.format("one", "m"))
    source = TomlCameras(path, load_settings(path))
    path.write_text(
        models.format("another") + models.format("m") + camera.format("one", "m") + camera.format("two", model)
    )
    with pytest.raises(ConfigError) as caught:
        source.read()
    expected = "cameras[1].model: expected one of ['m']: another is loaded at a restart only (got 'another')"
    assert [str(fault) for fault in caught.value.faults] == [expected]
    path.write_text(
        models.format("another") + models.format("m") + camera.format("one", "m") + camera.format("two", "m")
    )
    assert [camera.camera_id for camera in source.read()] == ["one", "two"]
    assert source.needs_restart == ("models",)


def test_a_camera_whose_class_of_retention_does_not_run_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "nodeagent.toml"
    text = '[[models]]\nname = "m"\nfile = "m.toml"\n[[retention]]\nname = "gate"\n'
    path.write_text(text)
    source = TomlCameras(path, load_settings(path))
    camera = '[[cameras]]\ncamera_id = "{0}"\nrecord = {{ url = "a.mp4" }}\nretention = "{0}"\n'
    path.write_text(text + '[[retention]]\nname = "yard"\n' + "".join(map(camera.format, ("gate", "yard", "default"))))
    with pytest.raises(ConfigError) as caught:
        source.read()
    known = "['default', 'gate']"
    expected = f"cameras[1].retention: expected one of {known}: another is loaded at a restart only (got 'yard')"
    assert [str(fault) for fault in caught.value.faults] == [expected]
    path.write_text(text + camera.format("gate"))
    (gate,) = source.read()
    # The storage worker follows a camera's class: its capture goes on.
    assert gate.retention == "gate"
    assert gate.capture_part == gate.model_copy(update={"retention": ""}).capture_part


def test_signals_reach_the_loop_in_order(bench: Bench) -> None:
    bench.starter.broken = True
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGTERM)
    assert bench.inbox.drain() == [signal.SIGHUP, signal.SIGTERM]
    assert bench.inbox.drain() == []
    signal.raise_signal(signal.SIGINT)
    bench.loop._collect()
    bench.clock.now_s += 1000.0
    bench.turn()
    bench.turn()
    assert bench.phases() == {}


def test_a_snapshot_that_nobody_can_read_is_replaced(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    path = bench.settings.node.state_dir / "wanted.json"
    path.write_text("{")
    with caplog.at_level(logging.WARNING):
        bench.loop._take_cameras((gate(),))
    assert "wanted.json: not a snapshot of cameras" in caplog.text
    assert read_wanted(path).version == 1


def test_a_full_board_is_said_once_per_child(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(16):
        bench.board.claim(f"capture:{number}", Kind.CAPTURE)
    bench.turn()
    bench.turn()
    assert caplog.text.count("none left for redis") == 1
    assert Want(Kind.REDIS, "").name not in bench.phases()
