"""What the link hands to the supervisor, and what survives when either dies in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import ConfigError
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.stop import wait_readable
from nodeagent.infra.wanted import SEED, Grant, Wanted, read_wanted, write_wanted
from nodeagent.supervisor.cameras import RegistryCameras
from nodeagent.supervisor.link.handoff import GRANTED, is_leaving, nudge, say_nobody_takes
from nodeagent.supervisor.link.reconcile import LetGo, Take
from nodeagent.supervisor.link.snapshot import Snapshot

CONFIG = """[node]
state_dir = "."
[registry]
urls = ["http://127.0.0.1:1"]
token = "{token}"
[[models]]
name = "m"
file = "m.toml"
"""

INSIDE = """[node]
state_dir = "."
[registry]
inside = true
[[models]]
name = "m"
file = "m.toml"
"""
CAMERA = '[[cameras]]\ncamera_id = "{}"\nrecord = {{ url = "/a.mp4" }}\n'
NOW_NS = 1_767_225_600_000_000_000


def spec(camera_id: str) -> CameraSpec:
    return CameraSpec.model_validate({"camera_id": camera_id, "record": {"url": "a.mp4"}})


def take(camera_id: str, epoch: int = 5) -> Take:
    return Take(camera_id, Grant(epoch, 1), spec(camera_id))


class Site:
    """A state folder, a life's folder, and who reads and writes them."""

    def __init__(self, folder: Path) -> None:
        self.state_dir, self.memory_dir = folder, folder / "life"
        self.memory_dir.mkdir()
        self.config = folder / "agent.toml"
        self.config.write_text(CONFIG.format(token="t" * 32))

    def supervisor(self) -> RegistryCameras:
        return RegistryCameras(self.config, load_settings(self.config), self.memory_dir, NOW_NS)

    def next_life(self, *cameras: str) -> RegistryCameras:
        """The supervisor of a tree with a registry inside, and with these cameras in its file."""
        self.write(*cameras)
        (self.memory_dir / "link.pipe").unlink(missing_ok=True)
        return self.supervisor()

    def write(self, *cameras: str) -> None:
        self.config.write_text(INSIDE + "".join(map(CAMERA.format, cameras)))

    def link(self) -> Snapshot:
        return Snapshot(self.state_dir, self.memory_dir)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def names(cameras: tuple[CameraSpec, ...]) -> list[str]:
    return [camera.camera_id for camera in cameras]


def test_what_is_granted_reaches_the_supervisor(site: Site) -> None:
    source, link = site.supervisor(), site.link()
    assert source.initial() == ()
    assert not wait_readable(source.fileno(), 0)
    assert link.change([take("gate"), take("yard")]) == (2, 0)
    link.note()
    assert wait_readable(source.fileno(), 0)
    assert names(source.read()) == ["gate", "yard"]
    assert source.grants == {"gate": Grant(5, 1), "yard": Grant(5, 1)}
    assert not wait_readable(source.fileno(), 0)
    assert link.change([LetGo("gate", "n2 owns it"), Take("yard", Grant(6, 1), None)]) == (0, 1)
    link.note()
    assert names(source.read()) == ["yard"]
    assert source.grants == {"yard": Grant(6, 1)}


def test_a_life_that_begins_without_a_registry_serves_what_the_last_one_did(site: Site) -> None:
    site.supervisor()
    link = site.link()
    link.change([take("gate", 9)])
    link.note()
    (site.memory_dir / "link.pipe").unlink()
    source = site.supervisor()
    assert names(source.initial()) == ["gate"]
    assert source.grants == {"gate": Grant(9, 1)}


def test_a_link_that_was_killed_before_its_word_is_made_up_for_by_the_next(site: Site) -> None:
    source, link = site.supervisor(), site.link()
    link.change([take("gate")])
    # As a kill between the two would leave it: noted, nobody told.
    write_wanted(site.state_dir / GRANTED, Wanted(4, (spec("gate"),), {"gate": Grant(5, 1)}))
    successor = site.link()
    assert successor.grants == {"gate": Grant(5, 1)}
    successor.note()
    assert wait_readable(source.fileno(), 0)
    assert names(source.read()) == ["gate"]


@pytest.mark.parametrize("how", ["gone", "broken"])
def test_a_lost_snapshot_takes_no_camera_away(site: Site, how: str) -> None:
    source, link = site.supervisor(), site.link()
    link.change([take("gate")])
    link.note()
    source.read()
    # As the supervisor writes it for its workers; a camera of the configuration file is no granted one.
    served = Wanted(7, (spec("gate"), spec("old")), source.grants)
    write_wanted(site.state_dir / "wanted.json", served)
    if how == "gone":
        (site.state_dir / GRANTED).unlink()
    else:
        (site.state_dir / GRANTED).write_text("{")
    nudge(site.memory_dir)
    with pytest.raises(ConfigError):
        source.read()
    assert source.grants == {"gate": Grant(5, 1)}
    # The next link, and the next life, take what was served.
    successor = site.link()
    assert successor.grants == {"gate": Grant(5, 1)}
    (site.memory_dir / "link.pipe").unlink()
    assert names(site.supervisor().initial()) == ["gate"]


def test_a_state_folder_that_refuses_costs_a_turn(site: Site) -> None:
    source, link = site.supervisor(), site.link()
    link.change([take("gate")])
    link.note()
    source.read()
    blocked = site.state_dir / GRANTED
    blocked.unlink()
    (blocked / "x").mkdir(parents=True)
    link.change([take("yard")])
    link.note()
    assert "Is a directory" in link.trouble
    (blocked / "x").rmdir()
    blocked.rmdir()
    link.note()
    assert link.trouble == ""
    assert names(source.read()) == ["gate", "yard"]


def test_many_nudges_are_one(site: Site) -> None:
    source = site.supervisor()
    for _ in range(70_000):
        nudge(site.memory_dir)
    write_wanted(site.state_dir / GRANTED, Wanted(1, (spec("gate"),), {"gate": Grant(5, 1)}))
    assert names(source.read()) == ["gate"]
    assert not wait_readable(source.fileno(), 0)


def test_only_a_person_has_the_file_read_and_it_names_no_cameras(site: Site) -> None:
    source, link = site.supervisor(), site.link()
    link.change([take("gate")])
    link.note()
    site.config.write_text(site.config.read_text() + '[[pool]]\npath = "/b"\n')
    assert names(source.read()) == ["gate"]
    assert "/b" not in map(str, (pool.path for pool in source.pools))
    assert names(source.reload()) == ["gate"]
    assert [str(pool.path) for pool in source.pools] == ["/b"]
    site.config.write_text("nonsense = 1")
    with pytest.raises(ConfigError):
        source.reload()
    # A faulty file keeps no camera from moving.
    link.change([take("yard")])
    link.note()
    assert names(source.read()) == ["gate", "yard"]


def test_who_leaves_says_so_to_every_link(site: Site) -> None:
    source = site.supervisor()
    assert not is_leaving(site.memory_dir)
    assert source.leave()
    assert is_leaving(site.memory_dir)
    assert not source.nobody_takes
    say_nobody_takes(site.memory_dir)
    assert source.nobody_takes


def test_a_link_notes_nothing_when_nothing_changed(site: Site) -> None:
    site.supervisor()
    link = site.link()
    link.change([take("gate")])
    link.note()
    before = read_wanted(site.state_dir / GRANTED).version
    link.change([])
    link.note()
    assert read_wanted(site.state_dir / GRANTED).version == before


def seeds(site: Site) -> list[str]:
    return names(read_wanted(site.state_dir / SEED).cameras)


def test_the_first_life_with_a_registry_inside_captures_what_its_file_names(site: Site) -> None:
    source = site.next_life("gate", "yard")
    assert names(source.initial()) == ["gate", "yard"]
    assert source.grants == dict.fromkeys(("gate", "yard"), Grant(NOW_NS // 1_000_000, 1))
    # As the link finds it, which tells the registry what is served.
    assert site.link().grants == source.grants
    assert seeds(site) == ["gate", "yard"]
    assert (site.state_dir / SEED).stat().st_mode & 0o777 == 0o600


def test_later_lives_capture_what_was_granted_and_leave_the_file_to_the_registry(site: Site) -> None:
    site.next_life("gate").initial()
    link = site.link()
    link.change([LetGo("gate", "it was removed")])
    link.note()
    source = site.next_life("gate", "yard")
    assert source.initial() == ()
    assert seeds(site) == ["gate", "yard"]


def test_a_reload_leaves_the_file_s_cameras_to_the_registry_inside(site: Site) -> None:
    source = site.next_life("gate")
    source.initial()
    site.write("gate", "yard")
    assert names(source.reload()) == ["gate"]
    assert seeds(site) == ["gate", "yard"]
    site.write("gate", "gate")
    with pytest.raises(ConfigError):
        source.reload()
    assert seeds(site) == ["gate", "yard"]


def test_nobody_takes_the_cameras_of_a_node_whose_registry_goes_with_it(site: Site) -> None:
    assert not site.next_life("gate").leave()
    assert is_leaving(site.memory_dir)
