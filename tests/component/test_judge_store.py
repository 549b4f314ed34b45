"""A judge's snapshots where Redis does what it is asked and the answer is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from nodeagent.infra.clock import SystemClock
from nodeagent.infra.redis import connect_redis
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.evidence import Author
from nodeagent.judge.snapshot import unpack
from nodeagent.judge.store import REDIS_PAUSE_S, JudgeStore, Saved
from tests.support.scenarios import Scene, intrusion, stands

pytestmark = pytest.mark.services
CLIPS = Scene((stands(0.8, 0.7, 2, 13),), 40.0).clips()
AUTHOR = Author("n1", "cam", 15.0, 15.0)


class LaterClock(SystemClock):
    """Past every pause, as often as it is told."""

    later_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.later_s


class Site:
    """The store of one judge, and what it judges; `lose` is how many answers are lost yet."""

    def __init__(self, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.url, self.clock = folder, url, LaterClock()
        self.client: Any = connect_redis(url)
        self.store = JudgeStore(self.client, folder / "n1", self.clock)
        self.judge = CameraJudge(AUTHOR, (intrusion(),), 5.0)
        self.clips = iter(CLIPS)
        self.lose = 0
        read = redis.connection.AbstractConnection.read_response

        def lossy(connection: Any, *args: Any, **more: Any) -> Any:
            answer = read(connection, *args, **more)
            if answer in (0, 1) and self.lose:
                self.lose -= 1
                connection.disconnect()
                raise redis.ConnectionError("reset by peer")
            return answer

        monkeypatch.setattr(redis.connection.AbstractConnection, "read_response", lossy)

    def save(self) -> Saved:
        """Judge one clip more, and save."""
        clip = next(self.clips)
        self.judge.ledger.arrive(clip.header)
        self.judge.judge(clip)
        return self.store.save(self.judge)

    def another(self) -> tuple[JudgeStore, CameraJudge]:
        """A judge elsewhere that goes on from what Redis has."""
        store = JudgeStore(connect_redis(self.url), self.folder / "n2", self.clock)
        body = store.load("cam")
        assert body is not None
        return store, unpack(body, AUTHOR, 5.0)


@pytest.fixture
def site(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Site:
    found = Site(tmp_path, redis_url, monkeypatch)
    assert found.store.load("cam") is None
    assert found.save() is Saved.BOTH
    return found


def test_a_save_that_is_asked_for_again_by_the_client_is_no_other_judge_s(site: Site) -> None:
    site.lose = 1
    assert site.save() is Saved.BOTH
    assert site.lose == 0
    assert site.save() is Saved.BOTH


def test_a_judge_is_not_overtaken_by_its_own_save_whose_answer_was_lost(site: Site) -> None:
    site.lose = 2
    assert site.save() is Saved.DISK
    assert site.lose == 0
    # Redis is away for longer: what is unsure stays so.
    assert site.save() is Saved.DISK
    site.clock.later_s += REDIS_PAUSE_S
    assert not site.store.is_overtaken("cam")
    assert site.save() is Saved.BOTH


def test_a_save_whose_answer_was_lost_takes_nothing_from_a_judge_that_went_on_from_it(site: Site) -> None:
    site.lose = 2
    assert site.save() is Saved.DISK
    store, judge = site.another()
    for clip in CLIPS[2:4]:
        judge.ledger.arrive(clip.header)
        judge.judge(clip)
    assert store.save(judge) is Saved.BOTH
    site.clock.later_s += REDIS_PAUSE_S
    assert site.store.is_overtaken("cam")
    assert site.save() is Saved.STALE


def test_of_two_judges_that_make_the_same_of_a_clip_one_is_further_on(site: Site) -> None:
    store, judge = site.another()
    judge.ledger.arrive(CLIPS[1].header)
    judge.judge(CLIPS[1])
    assert site.save() is Saved.BOTH
    assert store.is_overtaken("cam")
    assert store.save(judge) is Saved.STALE
