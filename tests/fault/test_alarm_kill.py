"""kill -9 of the alarm worker right after every single side effect: the end is always the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.alarm.steps import STEPS
from nodeagent.contract.codec import encode_alarm
from nodeagent.infra.alarm_records import AlarmRow, AlarmState, list_alarms
from nodeagent.infra.database import open_database
from nodeagent.infra.storage import Storage
from tests.support.alarms import add_clips, message, worker_context
from tests.support.media import count_frames
from tests.support.receiver import PushReceiver

SECRET = "k3y"
KILLED = -9


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.support.alarm_nursery"]
    root = Path(__file__).parents[2]
    child = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child:
        yield child
        assert child.stdin
        child.stdin.close()
        assert child.wait(30) == 0


@pytest.fixture
def receiver() -> Iterator[PushReceiver]:
    with PushReceiver(SECRET) as running:
        yield running


class Case:
    """One folder with a message, clips and a worker that can be run."""

    def __init__(self, folder: Path, nursery: subprocess.Popen[str], receiver: PushReceiver) -> None:
        self.folder, self.nursery, self.receiver = folder, nursery, receiver
        self.settings = worker_context(folder).settings
        self.storage = Storage(self.settings.pools)
        add_clips(self.storage, folder)
        (folder / "message.json").write_bytes(encode_alarm(message()).body)

    def run(self, crash_at: str = "") -> int:
        assert self.nursery.stdin and self.nursery.stdout
        order = {"folder": str(self.folder), "push": self.receiver.url, "secret": SECRET, "crash_at": crash_at}
        print(json.dumps(order), file=self.nursery.stdin, flush=True)
        return int(json.loads(self.nursery.stdout.readline())["exit"])

    @property
    def settled(self) -> list[str]:
        path = self.folder / "settled"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def row(self) -> AlarmRow:
        engine = open_database(self.settings.database_url)
        try:
            (row,) = list_alarms(engine)
            return row
        finally:
            engine.dispose()


def test_the_steps_are_those_that_a_worker_passes(
    tmp_path: Path, nursery: subprocess.Popen[str], receiver: PushReceiver
) -> None:
    # Each name of the table kills exactly once (below); a step that is in no table would not be enumerated, so the
    # table's order is checked against the source here.
    source = "".join(path.read_text() for path in (Path(__file__).parents[2] / "nodeagent/alarm").glob("*.py"))
    assert {part.split('"')[0] for part in source.split('checkpoint("')[1:]} == set(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_any_step_the_end_is_the_same(
    tmp_path: Path, nursery: subprocess.Popen[str], receiver: PushReceiver, step: str
) -> None:
    case = Case(tmp_path, nursery, receiver)
    assert case.run(crash_at=step) == KILLED
    assert case.settled == (["ack"] if step == "acked" else [])
    assert case.run() == 0
    assert case.settled == ["ack"]
    row = case.row
    assert (row.state, row.partial, row.starts) == (AlarmState.PUSHED, False, 0)
    assert row.replay_path is not None and row.snapshot_path is not None
    assert count_frames(Path(row.replay_path)) == list(range(50, 250))
    evidence = sorted(p.name for p in case.settings.evidence_dir.rglob("*") if p.is_file())
    assert evidence == [f"{row.dedup_key}.jpg", f"{row.dedup_key}.mp4"]
    assert case.storage.pinned(row.dedup_key) == []
    assert receiver.keys == [row.dedup_key]
    # Only between the request and its record nobody can know: there the target gets the same bytes twice.
    assert len(receiver.pushes) == (2 if step == "push_sent" else 1)
    assert len({push.body for push in receiver.pushes}) == 1


def test_killed_five_times_in_the_same_step_it_is_given_up_and_put_aside(
    tmp_path: Path, nursery: subprocess.Popen[str], receiver: PushReceiver
) -> None:
    case = Case(tmp_path, nursery, receiver)
    for _ in range(5):
        assert case.run(crash_at="replay_written") == KILLED
    assert case.run() == 0
    assert case.row.state is AlarmState.QUARANTINED
    assert [line.split()[0] for line in case.settled] == ["dead"]
    assert receiver.pushes == []
