"""The judge process on a real Redis and the Streams bus."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from pydantic import TypeAdapter

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.codec import Message, decode_alarm, encode_detections
from nodeagent.contract.report import Kind
from nodeagent.contract.rule import Rule
from nodeagent.contract.states import State
from nodeagent.infra.applied import applied_path, read_applied, version_of
from nodeagent.infra.board import Board, BoardCell
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.topology import (
    ALARMS,
    DETECTIONS,
    DETECTIONS_LATE,
    MAX_WAITING_IN_MEMORY,
    detections_queue,
    shard_of,
)
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.wanted import Wanted, write_wanted
from nodeagent.infra.worker import EXIT_FATAL
from nodeagent.judge import late
from nodeagent.judge.evidence import Author
from nodeagent.judge.snapshot import unpack
from nodeagent.judge.store import JudgeStore, Saved, read_account, redis_key, state_path
from tests.support.buses import make_bus, take, trying
from tests.support.eventually import eventually
from tests.support.scenarios import Scene, changed, intrusion, loitering, stands, unknown

pytestmark = pytest.mark.services
ROOT = Path(__file__).parent.parent.parent
RULES = (intrusion(cooldown_s=2.0), loitering(dwell_s=4.0))
PEOPLE = (stands(0.8, 0.7, 2, 13), stands(0.7, 0.5, 22, 24))
CLIPS = Scene(PEOPLE, 40.0).clips()
#: What comes out of CLIPS, by rule and stage.
TRUTH = [
    ("no-entry", "ended"), ("no-entry", "ended"), ("no-entry", "started"), ("no-entry", "started"),
    ("no-waiting", "ended"), ("no-waiting", "started"),
]  # fmt: skip


@dataclass
class Bench:
    """A judge's surroundings: configuration, wanted cameras, board, bus."""

    folder: Path
    url: str
    #: Longer than a redelivery of this bus takes.
    wait_s: float = 15.0
    shards: int = 1
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    version: int = 0

    def __post_init__(self) -> None:
        (self.folder / "state").mkdir()
        config = f"""
[node]
node_id = "n1"
state_dir = "{self.folder / "state"}"
[redis]
url = "{self.url}"
[judge]
reorder_wait_s = {self.wait_s}
shards = {self.shards}
"""
        (self.folder / "node.toml").write_text(config)
        board = Board.create(self.folder / "board", "n1", 1, 1)
        self.cell: BoardCell = board.claim("judge:0", Kind.JUDGE)
        self.want("cam")
        self.bus: Bus = make_bus(self.url, shards=self.shards)
        trying(self.bus.declare)
        self.bus.consume(ALARMS, 1000)

    def want(self, *cameras: str, rules=RULES) -> None:
        self.version += 1
        specs = tuple(
            CameraSpec.model_validate({"camera_id": name, "record": {"url": "a.mp4"}, "rules": rules})
            for name in cameras
        )
        write_wanted(self.folder / "state" / "wanted.json", Wanted(self.version, specs))

    def judge(self, step: str = "never", count: int = 1) -> subprocess.Popen[bytes]:
        config, board = str(self.folder / "node.toml"), str(self.folder / "board")
        command = [sys.executable, "-m", "tests.support.judge_child", config, board, step, str(count)]
        with (self.folder / "log").open("ab") as log:
            child = subprocess.Popen(command, cwd=ROOT, stderr=log)
        self.children.append(child)
        return child

    def send(self, clips) -> None:
        for clip in clips:
            self.bus.publish(DETECTIONS, clip.header.camera_id, encode_detections(clip))

    def field(self, name: str, camera: str = "cam") -> int:
        client = redis.Redis.from_url(self.url)
        value = client.hget(redis_key(camera), name)
        client.close()
        return int(value or 0)

    def alarms(self):
        found = []
        while (delivery := self.bus.get(0.3)) is not None:
            found.append(decode_alarm(delivery.message))
            self.bus.ack(delivery)
        return found

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
        self.bus.close()


@pytest.fixture
def bench(tmp_path, redis_url, request):
    made = Bench(tmp_path, redis_url, **getattr(request, "param", {}))
    yield made
    made.close()


def stages(alarms) -> list[tuple[str, str]]:
    return sorted({(alarm.dedup_key, alarm.rule_id, alarm.stage) for alarm in alarms})


def told(alarms) -> list[tuple[str, str]]:
    return sorted((rule, stage) for _, rule, stage in stages(alarms))


def until_judged(bench: Bench, clips: int) -> None:
    eventually(lambda: bench.field("clips_judged") == clips, 20)
    eventually(lambda: bench.bus.depth(detections_queue("n1", 0)) == 0, 20)


def test_clips_become_alarms_snapshots_and_counters(bench):
    child = bench.judge()
    bench.send([*CLIPS, CLIPS[2]])
    until_judged(bench, len(CLIPS))
    eventually(lambda: bench.field("duplicates") == 1)
    alarms = bench.alarms()
    assert told(alarms) == TRUTH
    assert len(alarms) == len(TRUTH)
    assert all(alarm.timings["judged"] > 0 and alarm.node_id == "n1" for alarm in alarms)
    assert bench.field("samples_judged") == 200
    account = eventually(lambda: read_account(bench.folder / "state", "cam"))
    assert (account.clips, account.samples, account.duplicates, account.gaps) == (len(CLIPS), 200, 1, 0)
    eventually(lambda: bench.cell.get("clips") == len(CLIPS) and bench.cell.get("duplicates") == 1)
    assert bench.cell.get("alarms") == len(TRUTH)
    assert bench.cell.current_state is State.RUNNING
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0


@pytest.mark.parametrize(("step", "count"), [("publish", 1), ("publish", 2), ("save", 1), ("save", 3), ("ack", 2)])
def test_kill_between_the_steps_loses_no_alarm_and_judges_no_clip_twice(bench, step, count):
    first = bench.judge(step, count)
    for clip in CLIPS[:3]:
        bench.send([clip])
        eventually(lambda seq=clip.header.clip_seq: bench.field("clips_judged") > seq or first.poll() is not None, 20)
    bench.send(CLIPS[3:])
    assert first.wait(20) == -signal.SIGKILL
    bench.judge()
    until_judged(bench, len(CLIPS))
    assert bench.field("samples_judged") == 200
    assert bench.field("gaps") == 0
    alarms = bench.alarms()
    assert told(alarms) == TRUTH
    keys = {alarm.dedup_key for alarm in alarms}
    assert len(keys) == 3


def fill(client: redis.Redis, stream: str) -> None:
    with client.pipeline(transaction=False) as filling:
        for _ in range(MAX_WAITING_IN_MEMORY):
            filling.xadd(stream, {"k": "full"})
        filling.execute()


def test_a_full_dead_letter_queue_holds_up_no_camera(bench):
    client = redis.Redis.from_url(bench.url)
    fill(client, "bus:detections.dead")
    bench.judge()
    bench.bus.publish(DETECTIONS, "cam", Message(b"hello", {"type": "detections"}))
    bench.send(CLIPS)
    until_judged(bench, len(CLIPS))
    assert client.zcard("bus.waiting") == 1
    client.close()


def test_a_stop_while_the_bus_takes_no_alarm_loses_none(bench):
    client = redis.Redis.from_url(bench.url)
    fill(client, "bus:alarms")
    child = bench.judge()
    bench.send(CLIPS)
    eventually(lambda: "alarm refused" in bench.cell.row(0.0).detail, 20)
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    bench.bus.close()
    client.delete("bus:alarms")
    client.close()
    bench.bus = make_bus(bench.url)
    trying(bench.bus.declare)
    bench.bus.consume(ALARMS, 1000)
    bench.judge()
    until_judged(bench, len(CLIPS))
    assert told(bench.alarms()) == TRUTH


@pytest.mark.parametrize("bench", [{"wait_s": 1.0}], indirect=True)
def test_a_hole_is_waited_for_and_then_a_gap_and_who_comes_after_that_is_late(bench):
    bench.judge()
    bench.send([CLIPS[0], CLIPS[2]])
    eventually(lambda: bench.field("gaps") == 1, 20)
    bench.send([CLIPS[1], CLIPS[3]])
    eventually(lambda: bench.field("clips_judged") == 3 and bench.field("late") == 1, 20)
    eventually(lambda: bench.cell.get("gaps") == 1 and bench.cell.get("refused") == 1)


def test_reordered_and_unknown_clips(bench):
    bench.judge()
    bench.send([CLIPS[0], CLIPS[3], CLIPS[2], CLIPS[1], unknown(CLIPS[4]), *CLIPS[5:]])
    until_judged(bench, len(CLIPS))
    assert bench.field("gaps") == 0
    assert bench.field("unknown") == 1
    assert bench.field("samples_judged") == 175


def test_an_alien_message_is_put_aside_and_a_removed_cameras_is_counted(bench):
    bench.judge()
    bench.bus.publish(DETECTIONS, "cam", Message(b"hello", {"type": "detections"}))
    backwards = changed(CLIPS[0], sample_ns=CLIPS[0].header.sample_ns[::-1])
    bench.bus.publish(DETECTIONS, "cam", encode_detections(backwards))
    bench.send([changed(CLIPS[0], camera_id="stranger")])
    bench.send(CLIPS[:2])
    eventually(lambda: bench.field("clips_judged") == 2, 20)
    eventually(lambda: bench.cell.get("refused") == 3)
    assert bench.bus.depth("detections.dead") == 2


def test_a_bus_that_cannot_serve_is_said_in_one_line_and_not_tried_again_at_once(bench):
    client = redis.Redis.from_url(bench.url)
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert bench.judge().wait(20) == EXIT_FATAL
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.close()
    assert bench.cell.current_state is State.BUS_DOWN
    told = (bench.folder / "log").read_text()
    assert "maxmemory-policy" in told
    assert "Traceback" not in told


def test_late_detections_of_our_own_camera_are_judged_without_going_through_the_broker_again(bench):
    bench.judge()
    for clip in CLIPS:
        bench.bus.publish(DETECTIONS_LATE, "cam", encode_detections(clip))
    until_judged(bench, len(CLIPS))
    assert told(bench.alarms()) == TRUTH
    client = redis.Redis.from_url(bench.url)
    assert client.xinfo_stream("bus:detections.n1.0")["entries-added"] == 0
    client.close()
    assert eventually(lambda: bench.bus.depth(DETECTIONS_LATE) == 0)


#: A camera of the other one of two judges.
OTHERS = next(name for name in ("cam1", "cam2", "cam3", "cam4") if shard_of(name, 2) == 1)
two_judges = pytest.mark.parametrize("bench", [{"shards": 2}], indirect=True)


def of_others(hops: str = "") -> Message:
    message = encode_detections(changed(CLIPS[0], camera_id=OTHERS))
    return Message(message.body, message.headers | ({late.HOPS_HEADER: hops} if hops else {}))


@two_judges
@pytest.mark.parametrize("was", ["", "2"])
def test_late_detections_of_another_judge_are_sent_there_and_count_it(bench, was):
    bench.want("cam", OTHERS)
    bench.judge()
    bench.bus.consume(detections_queue("n1", 1), 10)
    bench.bus.publish(DETECTIONS_LATE, OTHERS, of_others(was))
    got = take(bench.bus)
    assert (got.queue, got.key) == (detections_queue("n1", 1), OTHERS)
    assert got.message == of_others(str(int(was or "0") + 1))
    assert eventually(lambda: bench.bus.depth(DETECTIONS_LATE) == 0)


@two_judges
def test_detections_left_in_the_queue_of_another_shard_are_sent_to_their_judge(bench):
    bench.want("cam", OTHERS)
    bench.judge()
    bench.bus.consume(detections_queue("n1", 1), 10)
    # As if there had been one judge only when it was published.
    before = make_bus(bench.url, shards=1)
    trying(lambda: before.publish(DETECTIONS, OTHERS, of_others()))
    before.close()
    assert take(bench.bus).message == of_others("1")
    assert bench.cell.get("refused") == 0


@two_judges
def test_detections_that_no_judge_takes_are_put_aside_in_the_end(bench):
    bench.want("cam", OTHERS)
    bench.judge()
    bench.bus.publish(DETECTIONS_LATE, OTHERS, of_others(str(late.HOPS_MAX)))
    bench.bus.consume("detections.dead", 1)
    got = take(bench.bus)
    assert got.reason == late.SENT_TOO_OFTEN
    assert bench.bus.depth(detections_queue("n1", 1)) == 0


def test_a_rule_removed_while_it_runs_ends_its_episode_and_another_keeps_its_dwell(bench):
    bench.judge()
    bench.send(CLIPS[:1])
    until_judged(bench, 1)
    bench.want("cam", rules=(RULES[1],))
    alarms = []

    def ended() -> bool:
        alarms.extend(bench.alarms())
        return told(alarms) == [("no-entry", "ended"), ("no-entry", "started")]

    eventually(ended, 20)
    left = version_of(TypeAdapter(Rule).validate_python(RULES[1]))
    applied = applied_path(bench.folder / "state", 0)
    eventually(lambda: read_applied(applied).cameras == {"cam": {"no-waiting": left}}, 5)
    bench.send(CLIPS[1:])
    until_judged(bench, len(CLIPS))
    alarms = bench.alarms()
    assert told(alarms) == [("no-waiting", "ended"), ("no-waiting", "started")]
    # In at 2 s: the dwell went on through the change.
    assert min(a.confirmed_ns for a in alarms) - CLIPS[0].header.start_ns == 6_000_000_000


def test_a_rule_removed_while_nobody_ran_ends_its_episode_at_the_next_clip(bench):
    child = bench.judge()
    bench.send(CLIPS[:1])
    until_judged(bench, 1)
    child.kill()
    child.wait()
    bench.want("cam", rules=())
    bench.judge()
    bench.send(CLIPS[1:2])
    until_judged(bench, 2)
    assert told(bench.alarms()) == [("no-entry", "ended"), ("no-entry", "started")]


def test_a_flushed_redis_is_restored_from_the_disk_copy(bench):
    child = bench.judge()
    bench.send(CLIPS[:2])
    until_judged(bench, 2)
    child.kill()
    child.wait()
    redis.Redis.from_url(bench.url).delete(redis_key("cam"))
    bench.judge()
    bench.send(CLIPS)
    until_judged(bench, len(CLIPS))
    assert bench.field("duplicates") == 2
    assert told(bench.alarms()) == TRUTH


def test_a_lost_disk_copy_is_restored_from_redis_and_a_damaged_one_ignored(bench):
    child = bench.judge()
    bench.send(CLIPS[:2])
    until_judged(bench, 2)
    child.kill()
    child.wait()
    state_path(bench.folder / "state", "cam").write_bytes(b"njs1 torn")
    bench.judge()
    bench.send(CLIPS)
    until_judged(bench, len(CLIPS))
    assert bench.field("duplicates") == 2
    assert told(bench.alarms()) == TRUTH


def test_a_newer_judge_elsewhere_wins_and_nothing_is_judged_or_told_twice(bench):
    bench.judge()
    bench.send(CLIPS[:2])
    until_judged(bench, 2)
    client = redis.Redis.from_url(bench.url)
    elsewhere = JudgeStore(client, bench.folder / "n2", SystemClock())
    other = unpack(elsewhere.load("cam"), Author("n2", "cam", 15.0, 15.0), 5.0)
    alarms = []
    for clip in CLIPS[2:5]:
        other.ledger.arrive(clip.header)
        alarms += other.judge(clip)
    assert elsewhere.save(other) is Saved.BOTH
    bench.send(CLIPS[2:])
    until_judged(bench, len(CLIPS))
    assert "further on" in (bench.folder / "log").read_text()
    assert (bench.field("samples_judged"), bench.field("duplicates"), bench.field("gaps")) == (200, 3, 0)
    alarms += bench.alarms()
    assert told(alarms) == TRUTH
    assert len(alarms) == len(TRUTH)
    # The other one comes back, and knows nothing of what was judged meanwhile.
    assert elsewhere.is_overtaken("cam")
    assert elsewhere.save(other) is Saved.STALE
    client.close()
