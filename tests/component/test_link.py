"""The link of one node on a real Redis and a registry over HTTP, while either is away, flushed or wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import pytest

from nodeagent.contract.codec import Message
from nodeagent.contract.ownership import Owner, Unfinished
from nodeagent.contract.report import ChildRow, Kind
from nodeagent.contract.states import State
from nodeagent.infra.board import Board
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.topology import CLIPS, DETECTIONS, clips_queue
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.journals import journal_path
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.stop import Stop, wait_readable
from nodeagent.infra.wanted import Grant, Wanted, read_wanted, write_wanted
from nodeagent.infra.worker import WorkerContext
from nodeagent.supervisor.cameras import RegistryCameras
from nodeagent.supervisor.link import worker
from tests.support.eventually import eventually
from tests.support.proxy import Proxy
from tests.support.registries import TOKEN, Registry, camera
from tests.support.services import RedisServer

pytestmark = pytest.mark.services

OTHER_LIFE = "b" * 16
NOTHING = Unfinished(cameras=0, clips=0, detections=0, alarms=0)

CONFIG = """[node]
node_id = "{node}"
state_dir = "state"
[redis]
url = "{redis}"
[registry]
urls = {urls}
token = "{token}"
labels = {{ site = "north" }}
strategy = "{strategy}"
[registry.capacity]
infer_per_s = 100
[[models]]
name = "m"
file = "m.toml"
"""


class Node:
    """A link in a thread, and what its supervisor would read."""

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        urls: list[str],
        strategy: str = "broadcast",
        token: str = TOKEN,
        node_id: str = "n1",
    ) -> None:
        self.folder, self.config = folder, folder / "agent.toml"
        (folder / "state").mkdir(exist_ok=True)
        listed = str(urls).replace("'", '"')
        self.config.write_text(
            CONFIG.format(node=node_id, redis=redis_url, urls=listed, token=token, strategy=strategy)
        )
        self.settings = load_settings(self.config)
        self.state_dir = self.settings.node.state_dir
        self.memory_dir = folder / f"life-{len(list(folder.glob('life-*')))}"
        (self.memory_dir / "rings").mkdir(parents=True)
        board = Board.create(self.memory_dir / "board", node_id, os.getpid(), 1, cells=8)
        self.cell = board.claim("link", Kind.LINK)
        self.board = board
        self.source = RegistryCameras(self.config, self.settings, self.memory_dir, 1)
        self.initial = self.source.initial()

    @property
    def incarnation(self) -> str:
        return worker.incarnation_of(self.memory_dir)

    def start(self) -> None:
        self._stop = Stop()
        ctx = WorkerContext("link", self.settings, self.cell, self._stop, SystemClock(), self.memory_dir)
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(ctx,))
        self._thread.start()

    def _run(self, ctx: WorkerContext) -> None:
        try:
            worker.main(ctx, "")
        except BaseException as exc:
            self._failed.append(exc)

    def stop(self) -> None:
        self._stop.request()
        self._thread.join(20)
        assert not self._thread.is_alive()
        assert not self._failed

    def __enter__(self) -> Node:
        self.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.stop()

    def served(self) -> dict[str, Grant]:
        """What the supervisor was told, and nothing that it was not."""
        if wait_readable(self.source.fileno(), 0):
            self.source.read()
        return dict(self.source.grants)

    @property
    def row(self) -> ChildRow:
        row = self.cell.row(0.0)
        assert row is not None
        return row

    def shows(self, state: State, text: str = "") -> Callable[[], bool]:
        return lambda: self.row.state is state and text in self.row.detail


@pytest.fixture
def registry(redis_url: str) -> Iterator[Registry]:
    with Registry(redis_url) as running:
        for name in ("gate", "yard", "dock"):
            running.configure(camera(name))
        yield running


@pytest.fixture
def node(tmp_path: Path, redis_url: str, registry: Registry) -> Iterator[Node]:
    with Node(tmp_path, redis_url, [registry.url]) as running:
        eventually(lambda: registry.reports)
        yield running


def test_a_camera_comes_changes_and_goes(node: Node, registry: Registry) -> None:
    granted = registry.grant("gate")
    eventually(lambda: node.served() == {"gate": Grant(granted.epoch, 1)}, within_s=8)
    eventually(lambda: [(h.camera_id, h.epoch) for h in registry.last.holds] == [("gate", granted.epoch)], within_s=8)
    registry.configure(camera("gate", "rtsp://user:word@host/b"))
    eventually(lambda: node.served()["gate"].version == 2, within_s=10)
    snapshot = node.state_dir / "granted.json"
    assert read_wanted(snapshot).cameras[0].record.url.get_secret_value() == "rtsp://user:word@host/b"
    assert snapshot.stat().st_mode & 0o777 == 0o600
    assert "word" not in registry.last.model_dump_json()
    # Moved: another node's grant is read.
    registry.state.grant(registry.term, "gate", "n2", OTHER_LIFE)
    eventually(lambda: node.served() == {}, within_s=8)
    assert (node.cell.get("given"), node.cell.get("taken")) == (1, 1)
    eventually(node.shows(State.RUNNING))


def test_a_report_tells_what_the_registry_places_by(node: Node, registry: Registry) -> None:
    report = eventually(lambda: len(registry.reports) >= 3 and registry.last, within_s=10)
    assert [r.seq for r in registry.reports] == list(range(1, len(registry.reports) + 1))
    assert (report.report.node_id, report.incarnation, report.draining) == ("n1", node.incarnation, False)
    assert [row.name for row in report.report.rows] == ["link"]
    assert (report.labels, report.models) == ({"site": "north"}, ("m",))
    assert report.capacity is not None
    assert (report.capacity.infer_per_s, report.capacity.decode_cores) == (100, len(os.sched_getaffinity(0)))
    assert report.capacity.ring_bytes > 0
    gaps_s = [(b.sent_ns - a.sent_ns) / 1e9 for a, b in zip(registry.reports, registry.reports[1:], strict=False)]
    assert all(0.5 < gap_s < 3.0 for gap_s in gaps_s), gaps_s


def test_a_node_without_cameras_tells_what_is_left_to_do(node: Node, registry: Registry) -> None:
    """Over streams, which need no broker beside Redis: its own queues, journals and workers, and nobody else's."""

    def left(**counts: int) -> Unfinished:
        return NOTHING.model_copy(update=counts)

    def told(unfinished: Unfinished | None) -> bool:
        return eventually(lambda: registry.last.unfinished == unfinished, within_s=10)

    # Not known before it has looked twice; then nothing.
    assert registry.reports[0].unfinished == Unfinished()
    assert told(NOTHING)
    journal = journal_path(node.state_dir, "gone")
    journal.parent.mkdir()
    journal.touch()
    assert told(left(cameras=1))
    capture = node.board.claim("capture:going", Kind.CAPTURE)
    assert told(left(cameras=2))
    node.board.release("capture:going")
    journal.unlink()
    assert told(NOTHING)
    assert not capture.is_used
    bus = open_bus(node.settings)
    try:
        bus.declare()
        bus.publish(CLIPS, "gone", Message(b"a clip"))
        bus.publish(DETECTIONS, "gone", Message(b"what was seen in it"))
        assert told(left(clips=1, detections=1))
        alarms, inference = node.board.claim("alarm:0", Kind.ALARM), node.board.claim("inference:0", Kind.INFERENCE)
        alarms.set("waiting", 7)
        alarms.set("waiting_own", 2)
        inference.set("in_hand", 3)
        node.board.claim("judge:0", Kind.JUDGE).set("put_off", 5)
        assert told(left(clips=4, detections=6, alarms=2))
        # Taken by an inference that was killed, and counted once if it lives.
        bus.consume(clips_queue("n1"), 1)
        assert bus.get(5.0) is not None
        inference.set("in_hand", 0)
        assert told(left(clips=1, detections=6, alarms=2))
        inference.set("in_hand", 3)
        assert told(left(clips=3, detections=6, alarms=2))
    finally:
        bus.close()
    # While it serves cameras more comes.
    registry.grant("gate")
    assert told(None)


def test_what_is_left_is_not_known_while_the_broker_is_away(
    tmp_path: Path, redis_server: RedisServer, registry: Registry
) -> None:
    with Node(tmp_path, redis_server.url, [registry.url]):
        eventually(lambda: registry.reports and registry.last.unfinished == NOTHING, within_s=10)
        redis_server.kill9()
        away = NOTHING.model_copy(update={"clips": None, "detections": None})
        eventually(lambda: registry.last.unfinished == away, within_s=20)
        redis_server.start()
        eventually(lambda: registry.last.unfinished == NOTHING, within_s=20)


def test_keys_are_renewed_and_one_that_ran_out_is_taken_again(node: Node, registry: Registry, redis_url: str) -> None:
    registry.grant("gate")
    eventually(lambda: "gate" in node.served(), within_s=8)
    client = registry.state._client
    key = "task_lock:gate"
    client.pexpire(key, 1)
    eventually(lambda: client.pttl(key) > 8000, within_s=8)


def test_a_lost_broadcast_costs_two_seconds(node: Node, registry: Registry) -> None:
    eventually(lambda: node.cell.get("reports") >= 1)
    # Nobody hears what is published to a channel of another name: as if every broadcast was lost.
    registry.state._client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    registry.grant("gate")
    eventually(lambda: "gate" in node.served(), within_s=8)


def test_redis_that_is_frozen_killed_or_flushed_moves_nothing(
    node: Node, registry: Registry, redis_server: RedisServer
) -> None:
    held = {name: Grant(registry.grant(name).epoch, 1) for name in ("gate", "yard")}
    eventually(lambda: node.served() == held, within_s=8)
    version = read_wanted(node.state_dir / "granted.json").version
    redis_server.kill9()
    eventually(node.shows(State.REDIS_DOWN), within_s=15)
    assert node.served() == held
    redis_server.start()
    redis_server.flush()
    eventually(node.shows(State.RUNNING), within_s=15)
    # The list lacks them now, Redis knows nothing, and the registry names nobody else.
    asked = registry.asked.count("/api/v1/nodes/n1/cameras")
    eventually(lambda: registry.asked.count("/api/v1/nodes/n1/cameras") >= asked + 3, within_s=10)
    assert node.served() == held
    assert read_wanted(node.state_dir / "granted.json").version == version
    assert {h.camera_id for h in registry.last.holds} == set(held)


def test_a_registry_that_is_away_stops_nothing_and_its_fellow_takes_over(
    tmp_path: Path, redis_url: str, registry: Registry
) -> None:
    with Registry(redis_url) as fellow, Proxy(int(registry.url.rpartition(":")[2])) as way:
        fellow.cameras = registry.cameras
        with Node(tmp_path, redis_url, [f"http://127.0.0.1:{way.port}", fellow.url]) as node:
            eventually(lambda: registry.reports)
            registry.grant("gate")
            eventually(lambda: "gate" in node.served(), within_s=8)
            assert fellow.reports == []
            way.stall()
            eventually(lambda: fellow.reports, within_s=8)
            fellow.grant("yard")
            eventually(lambda: sorted(node.served()) == ["gate", "yard"], within_s=8)
            # It stays with the one that answered.  What the other one has under way still goes with its connection.
            way.cut()
            way.heal()
            seen, count = len(fellow.reports), len(registry.reports)
            eventually(lambda: len(fellow.reports) >= seen + 3, within_s=8)
            assert len(registry.reports) == count
            fellow.close()
            eventually(lambda: len(registry.reports) > count, within_s=8)
            assert sorted(node.served()) == ["gate", "yard"]


def test_a_list_that_takes_long_keeps_no_report_back(
    node: Node, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, answer = threading.Event(), registry.answer

    def slow(method: str, path: str, query: dict[str, list[str]], body: bytes) -> object:
        if path.endswith("/n1/cameras"):
            go_on.wait(9)
        return answer(method, path, query, body)

    registry.grant("gate")
    eventually(lambda: "gate" in node.served(), within_s=8)
    monkeypatch.setattr(registry, "answer", slow)
    asked = registry.asked.count("/api/v1/nodes/n1/cameras")
    registry.configure(camera("gate"))
    eventually(lambda: registry.asked.count("/api/v1/nodes/n1/cameras") > asked, within_s=8)
    seen = len(registry.reports)
    eventually(lambda: len(registry.reports) >= seen + 3, within_s=5)
    go_on.set()
    eventually(lambda: node.served()["gate"].version == 2, within_s=8)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (409, b'{"detail": "another agent reports as n1"}', "status 409: another agent reports as n1"),
        (
            422,
            b'{"detail": [{"loc": ["body", "holds", 0, "epoch"], "msg": "too large"}]}',
            "status 422: holds.0.epoch: too large",
        ),
        (401, b"no JSON", "status 401"),
    ],
)
def test_a_refusal_is_a_state_that_says_why(
    node: Node, registry: Registry, status: int, body: bytes, said: str
) -> None:
    registry.grant("gate")
    eventually(lambda: "gate" in node.served(), within_s=8)
    registry.refusal = (status, body)
    eventually(node.shows(State.REGISTRY_REFUSES, said), within_s=10)
    assert "gate" in node.served()
    registry.refusal = None
    eventually(node.shows(State.RUNNING), within_s=10)


def test_nobody_answers(tmp_path: Path, redis_url: str) -> None:
    with Node(tmp_path, redis_url, ["http://127.0.0.1:1", "http://127.0.0.1:2"]) as node:
        eventually(node.shows(State.REGISTRY_DOWN, "nor do 1 others"), within_s=10)
        assert node.row.counters["failed"] >= 1
        assert node.board.cell(0).is_ready


def test_a_camera_that_cannot_run_here_is_named_and_one_that_can_runs_on(node: Node, registry: Registry) -> None:
    registry.grant("gate")
    eventually(lambda: "gate" in node.served(), within_s=8)
    registry.configure(camera("gate", model="huge"))
    registry.configure(camera("yard", retention="years"))
    registry.grant("yard")
    eventually(node.shows(State.CAMERA_UNFIT, "gate: model 'huge' is not loaded"), within_s=10)
    eventually(node.shows(State.CAMERA_UNFIT, "yard: class of retention 'years'"), within_s=10)
    assert node.served()["gate"].version == 1
    assert "yard" not in node.served()


def test_a_removed_camera_goes_also_when_nobody_heard_of_it(node: Node, registry: Registry) -> None:
    registry.grant("gate")
    eventually(lambda: "gate" in node.served(), within_s=8)
    registry.state._client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    registry.remove("gate")
    eventually(lambda: node.served() == {}, within_s=10)


def test_a_camera_that_was_removed_behind_the_list_goes_too(node: Node, registry: Registry) -> None:
    registry.grant("gate")
    registry.grant("yard")
    eventually(lambda: sorted(node.served()) == ["gate", "yard"], within_s=8)
    # The last list had it, and no version tells that there is another one.
    registry.state.forget(registry.term, "gate")
    del registry.cameras["gate"]
    eventually(lambda: sorted(node.served()) == ["yard"], within_s=10)


def test_a_new_life_serves_what_the_last_one_did_until_it_is_granted_or_moved(
    tmp_path: Path, redis_url: str, registry: Registry
) -> None:
    # As a kill -9 leaves it: a snapshot, and in Redis the grants to a life that is over.
    names = ("dock", "gate", "yard")
    held = {name: Grant(registry.state.grant(registry.term, name, "n1", OTHER_LIFE).epoch, 1) for name in names}
    (tmp_path / "state").mkdir()
    write_wanted(tmp_path / "state" / "granted.json", Wanted(1, tuple(map(camera, names)), held))
    node = Node(tmp_path, redis_url, [registry.url])
    assert [spec.camera_id for spec in node.initial] == ["dock", "gate", "yard"]
    with node:
        eventually(lambda: registry.last.incarnation == node.incarnation, within_s=8)
        eventually(lambda: {h.camera_id for h in registry.last.holds} == set(held), within_s=8)
        # Granted anew, moved, and left as it is.
        anew = registry.grant("gate")
        registry.state.grant(registry.term, "yard", "n2", OTHER_LIFE)
        eventually(lambda: sorted(node.served()) == ["dock", "gate"], within_s=8)
        eventually(lambda: node.served()["gate"].epoch == anew.epoch, within_s=8)


def test_another_agent_with_our_name_takes_what_it_is_granted(node: Node, registry: Registry) -> None:
    registry.grant("gate")
    eventually(lambda: "gate" in node.served(), within_s=8)
    registry.state.grant(registry.term, "gate", "n1", OTHER_LIFE)
    eventually(lambda: node.served() == {}, within_s=8)


def test_a_camera_that_moves_is_let_go_once_it_is_captured_there(node: Node, registry: Registry) -> None:
    granted = registry.grant("gate")
    eventually(lambda: "gate" in node.served(), within_s=8)
    registry.unseen = frozenset({"gate"})
    registry.state.grant(registry.term, "gate", "n2", OTHER_LIFE)
    said = len(registry.reports)
    eventually(lambda: len(registry.reports) >= said + 4, within_s=10)
    assert node.served() == {"gate": Grant(granted.epoch, 1)}
    registry.unseen = frozenset()
    eventually(lambda: node.served() == {}, within_s=4)


def test_a_registry_that_keeps_owners_to_itself_is_believed(node: Node, registry: Registry) -> None:
    def owner(epoch: int, node_id: str = "n1", life: str = "") -> Owner:
        return Owner(node_id=node_id, incarnation=life or node.incarnation, epoch=epoch)

    registry.in_memory = {"gate": owner(5), "yard": owner(6)}
    eventually(lambda: node.served() == {"gate": Grant(5, 1), "yard": Grant(6, 1)}, within_s=10)
    # Moved, granted anew, and removed; nobody broadcasts a word.
    registry.in_memory = {"gate": owner(7, "n2", OTHER_LIFE), "yard": owner(8)}
    eventually(lambda: node.served() == {"yard": Grant(8, 1)}, within_s=10)
    registry.in_memory = {}
    del registry.cameras["yard"]
    eventually(lambda: node.served() == {}, within_s=10)


def test_a_node_that_leaves_hands_over_camera_by_camera(node: Node, registry: Registry) -> None:
    for name in ("gate", "yard"):
        registry.grant(name)
    eventually(lambda: sorted(node.served()) == ["gate", "yard"], within_s=8)
    assert node.source.leave()
    eventually(lambda: registry.last.draining, within_s=8)
    registry.unseen = frozenset({"gate", "yard"})
    for name in ("gate", "yard"):
        registry.state.grant(registry.term, name, "n2", OTHER_LIFE)
    said = len(registry.reports)
    eventually(lambda: len(registry.reports) >= said + 3, within_s=10)
    assert sorted(node.served()) == ["gate", "yard"], "nobody captures them yet"
    registry.unseen = frozenset({"yard"})
    eventually(lambda: sorted(node.served()) == ["yard"], within_s=8)
    # A registry that says nothing more cannot hold it up for ever.
    registry.refusal = (503, b"")
    eventually(lambda: node.served() == {}, within_s=12)


def test_a_clock_that_is_off_is_told(node: Node, registry: Registry) -> None:
    registry.clock_off_ns = 90 * 10**9
    eventually(node.shows(State.RUNNING, "this host's clock is 90 s behind the registry's"), within_s=10)


def test_what_nobody_took_is_given_back_at_the_end(tmp_path: Path, redis_url: str, registry: Registry) -> None:
    with Node(tmp_path, redis_url, [registry.url]) as node:
        eventually(lambda: registry.reports)
        registry.grant("gate")
        eventually(lambda: "gate" in node.served(), within_s=8)
    assert registry.state.pool() == ["gate"]


def test_a_node_that_knows_cameras_claims_them_while_no_registry_answers(
    tmp_path: Path, redis_url: str, registry: Registry
) -> None:
    with Node(tmp_path, redis_url, [registry.url], strategy="claim") as node:
        catalogue = node.state_dir / "catalogue.json"
        eventually(lambda: catalogue.exists(), within_s=8)
    assert catalogue.stat().st_mode & 0o777 == 0o600
    registry.refusal = (503, b"")
    registry.state.offer(registry.term, ["gate", "yard"])
    with Node(tmp_path, redis_url, [registry.url], strategy="claim") as node:
        eventually(lambda: sorted(node.served()) == ["gate", "yard"], within_s=10)
        eventually(node.shows(State.REGISTRY_DOWN))
        assert {g.version for g in node.served().values()} == {1}


def test_a_node_that_knows_no_camera_leaves_the_pool_to_others(
    tmp_path: Path, redis_url: str, registry: Registry
) -> None:
    registry.refusal = (503, b"")
    registry.state.offer(registry.term, ["gate"])
    with Node(tmp_path, redis_url, [registry.url], strategy="claim") as node:
        eventually(lambda: node.cell.get("failed") >= 4)
        assert registry.state.pool() == ["gate"]
        assert registry.state._client.zcard("node_alive") == 0, "others would wait for it"
        registry.refusal = None
        eventually(lambda: "gate" in node.served(), within_s=15)


def test_nodes_that_claim_tell_a_flushed_redis_what_is_theirs_when_no_registry_does(
    tmp_path: Path, redis_server: RedisServer, registry: Registry
) -> None:
    registry.state.offer(registry.term, ["gate", "yard"])
    with Node(tmp_path, redis_server.url, [registry.url], strategy="claim") as node:
        eventually(lambda: sorted(node.served()) == ["gate", "yard"], within_s=10)
        held = node.served()
        registry.refusal = (503, b"")
        eventually(node.shows(State.REGISTRY_DOWN))
        redis_server.flush()

        def restored() -> dict[str, int]:
            return {name: o.epoch for name, o in registry.state.owned_by("n1", node.incarnation).items()}

        eventually(lambda: restored() == {name: grant.epoch for name, grant in held.items()}, within_s=10)
        assert node.served() == held


def test_nodes_that_claim_and_start_together_share(tmp_path: Path, redis_url: str, registry: Registry) -> None:
    registry.configure(camera("door"))
    nodes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        nodes.append(Node(tmp_path / name, redis_url, [registry.url], "claim", node_id=name))
    with nodes[0]:
        # The cameras are there, and known to it, before the other one is.
        registry.state.offer(registry.term, ["door", "gate", "yard", "dock"])
        eventually(lambda: registry.state._client.zcard("node_alive") == 1, within_s=8)
        with nodes[1]:
            eventually(lambda: [len(node.served()) for node in nodes] == [2, 2], within_s=20)
            assert registry.state.pool() == []


def test_a_node_that_claims_takes_from_the_pool(tmp_path: Path, redis_url: str, registry: Registry) -> None:
    registry.state.offer(registry.term, ["gate", "yard"])
    with Node(tmp_path, redis_url, [registry.url], strategy="claim") as node:
        eventually(lambda: sorted(node.served()) == ["gate", "yard"], within_s=10)
        assert registry.state.pool() == []
        node.source.leave()
        eventually(lambda: sorted(registry.state.pool()) == ["gate", "yard"], within_s=8)
        assert sorted(node.served()) == ["gate", "yard"], "served until somebody else has them"
