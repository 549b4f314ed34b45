"""What the capture of a removed camera left is finished, wherever its capture or the finisher itself was killed."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from nodeagent.capture import orphans as module
from nodeagent.capture.journal import Journal
from nodeagent.capture.journal_lock import lock_path, take_lock
from nodeagent.capture.ledger import Ledger
from nodeagent.capture.orphans import Orphans
from nodeagent.capture.recovery import epoch_for
from nodeagent.contract.camera import CameraSpec, StreamSpec
from nodeagent.contract.codec import Message, decode_clip_task
from nodeagent.contract.errors import Refused, Unavailable
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.report import Kind
from nodeagent.infra.board import Board
from nodeagent.infra.bus.topology import CLIPS, CLIPS_SPILL
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.gaps import read_gaps
from nodeagent.infra.journals import untold
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.stop import Stop
from nodeagent.infra.wanted import Wanted, write_wanted
from nodeagent.infra.worker import WorkerContext
from tests.support.capturing import CAMERA, NODE, Bench
from tests.support.eventually import eventually
from tests.support.media import make_video


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class ScriptedBus:
    """The publishing side of a bus that has no route to this camera, is away, or is where the process is killed."""

    def __init__(self) -> None:
        self.unroutable = self.away = False
        self.kill_at: int | None = None
        self.kept: list[tuple[str, int]] = []
        #: Cameras with how much was kept before each was unbound.
        self.unbound: list[tuple[str, int]] = []

    def declare(self) -> None:
        if self.away:
            raise Unavailable("broker: away")

    def unbind_clips(self, camera_id: str) -> None:
        self.declare()
        self.unbound.append((camera_id, len(self.kept)))

    def publish(self, exchange: str, key: str, message: Message) -> None:
        self.declare()
        if self.unroutable and exchange == CLIPS:
            raise Refused("no route")
        self.kept.append((exchange, decode_clip_task(message).clip_seq))
        if self.kill_at == len(self.kept):
            raise Killed

    def close(self) -> None:
        pass


class SetClock(SystemClock):
    """A wall clock that was set; durations are real."""

    def __init__(self, now_ns: int) -> None:
        self._now_ns = now_ns

    def wall_ns(self) -> int:
        return self._now_ns


class Site:
    """A node whose only camera was killed in the middle of a clip, its clips not announced, and is then removed."""

    def __init__(self, tmp_path: Path) -> None:
        self.bench = Bench(tmp_path, sample_width=160)
        self.bench.record(make_video(tmp_path / "a.mp4", seconds=13), close=False)
        self.bench.journal.close()
        # As at a kill: the kernel lets go of the ring.
        self.bench.samples.close()
        self.settings = Settings.model_validate(
            {
                "node": {"node_id": NODE, "state_dir": str(self.bench.state_dir)},
                "pool": [{"path": str(tmp_path / "pool"), "reserve_gb": 0}],
            }
        )
        self.path = self.bench.state_dir / "journal" / f"{CAMERA}.jsonl"
        self.bus = ScriptedBus()
        # The video was read faster than it plays, so its clips end in the future.
        self.now_ns = SystemClock().wall_ns() + 60 * NS_PER_S
        self.want(2)

    def want(self, version: int, *camera_ids: str) -> None:
        cameras = tuple(CameraSpec(camera_id=name, record=StreamSpec(url="rtsp://h/c")) for name in camera_ids)
        write_wanted(self.bench.state_dir / "wanted.json", Wanted(version, cameras))

    def finisher(self) -> Orphans:
        """One that has just started."""
        settings, bus = self.settings, self.bus
        clock = SetClock(self.now_ns)
        return Orphans(settings, self.bench.memory_dir, clock, Stop(), lambda _: bus)  # type: ignore[arg-type, return-value]

    def look(self) -> None:
        """Its first look."""
        self.finisher().look()

    def rings(self) -> list[str]:
        return [path.name for path in (self.bench.memory_dir / "rings").iterdir()]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(module, "HOLD_S", 0.3)
    return Site(tmp_path)


def test_a_removed_camera_is_finished_and_its_account_closes(site: Site) -> None:
    assert len(site.bench.storage.parts(CAMERA)) == 1
    assert site.rings()
    site.look()
    assert site.bench.storage.parts(CAMERA) == []
    clips = site.bench.clips()
    assert site.bus.kept == [(CLIPS, number) for number in range(len(clips))]
    # The last one is on its way before the route to our own inference goes.
    assert site.bus.unbound == [(CAMERA, len(clips))]
    assert not site.path.exists()
    assert not lock_path(site.path).exists()
    assert site.rings() == []
    # It comes back, without a journal: a newer epoch, and no time is both in a clip and in a gap.
    journal, now_ns = Journal(site.path), site.now_ns
    assert epoch_for(site.bench.storage, journal, CAMERA, now_ns) > clips[-1].clip.epoch
    Ledger(site.bench.state_dir, CAMERA, None, now_ns).begin(now_ns + NS_PER_S)
    gaps = [(gap.from_ns, gap.to_ns) for gap in read_gaps(site.bench.state_dir, CAMERA, 0, 2**62)]
    spans = sorted(gaps + [(clip.clip.start_ns, clip.end_ns) for clip in clips])
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert start >= end - 2_000_000


def test_a_camera_that_is_wanted_held_or_not_known_to_be_removed_is_left_alone(site: Site) -> None:
    site.want(3, CAMERA)
    site.look()
    (site.bench.state_dir / "wanted.json").unlink()
    site.look()
    (site.bench.state_dir / "wanted.json").write_text("no snapshot")
    site.look()
    site.want(4)
    lock = take_lock(site.path)
    assert lock is not None
    site.look()
    assert (site.bus.kept, len(site.bench.storage.parts(CAMERA)), site.path.exists()) == ([], 1, True)
    assert site.rings()
    os.close(lock)
    site.look()
    assert not site.path.exists()


def test_while_clips_run_ahead_of_the_clock_the_journal_keeps_their_end(site: Site) -> None:
    site.now_ns -= 120 * NS_PER_S
    site.look()
    assert len(site.bus.kept) == len(site.bench.clips())
    assert site.path.exists()
    assert untold(site.bench.state_dir) == frozenset()


def test_clips_without_a_route_spill_and_an_absent_broker_is_waited_for(site: Site) -> None:
    site.bus.away = True
    site.look()
    assert (site.bus.kept, site.path.exists()) == ([], True)
    assert site.bench.storage.parts(CAMERA) == []
    site.bus.away, site.bus.unroutable = False, True
    site.look()
    assert site.bus.kept == [(CLIPS_SPILL, number) for number in range(len(site.bench.clips()))]
    assert not site.path.exists()


def test_while_the_broker_is_away_a_look_costs_little_and_the_first_one_that_reaches_it_announces_all(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    repairs: list[str] = []
    whole = module.recover
    monkeypatch.setattr(module, "recover", lambda *of: (repairs.append(of[3]), whole(*of))[1])
    site.bus.away = True
    orphans = site.finisher()
    for _ in range(3):
        orphans.look()
    assert (site.bus.kept, repairs) == ([], [CAMERA])
    site.bus.away = False
    orphans.look()
    assert len(site.bus.kept) == len(site.bench.clips())
    assert not site.path.exists()


def test_a_disk_that_is_away_may_hold_a_clip_so_the_journal_stays(site: Site, tmp_path: Path) -> None:
    pools = [*site.settings.pools, site.settings.pools[0].model_copy(update={"path": tmp_path / "away"})]
    site.settings = site.settings.model_copy(update={"pool": tuple(pools)})
    site.bus.away = True
    site.look()
    assert untold(site.bench.state_dir) == {CAMERA}
    site.bus.away = False
    # A drain of the node, whose disk may be why, must not wait for the disk; nor does a second look change its mind.
    for _ in range(2):
        site.look()
        assert len(site.bus.kept) == len(site.bench.clips())
        assert site.path.exists()
        assert untold(site.bench.state_dir) == frozenset()
    # Its next capture may record more.
    Journal(site.path).close()
    assert untold(site.bench.state_dir) == {CAMERA}


@pytest.mark.parametrize("kill_at", [1, 2])
def test_killed_while_it_announces_it_begins_anew_and_tells_every_clip(site: Site, kill_at: int) -> None:
    site.bus.kill_at = kill_at
    with pytest.raises(Killed):
        site.look()
    site.look()
    told = [number for _, number in site.bus.kept]
    assert sorted(set(told)) == list(range(len(site.bench.clips())))
    assert len(told) == len(set(told)) + 1
    assert not site.path.exists()


def test_a_worker_looks_after_them_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    settings = Settings.model_validate({"node": {"node_id": NODE, "state_dir": str(tmp_path)}})
    path = tmp_path / "journal" / f"{CAMERA}.jsonl"
    Journal(path).close()
    write_wanted(tmp_path / "wanted.json", Wanted(1, ()))
    stop, cell = Stop(), Board.create(tmp_path / "board", NODE, os.getpid(), 0).claim("storage", Kind.STORAGE)
    module.start(WorkerContext("storage", settings, cell, stop, SystemClock(), tmp_path / "memory"))
    eventually(lambda: not path.exists())
    stop.request()


def test_a_lock_whose_name_was_removed_is_no_lock(tmp_path: Path) -> None:
    journal = tmp_path / "a.b.jsonl"
    first = take_lock(journal)
    assert first is not None
    assert take_lock(journal) is None
    lock_path(journal).unlink()
    second = take_lock(journal)
    assert second is not None
    assert take_lock(journal) is None
    os.close(first)
    assert take_lock(journal) is None
    os.close(second)
