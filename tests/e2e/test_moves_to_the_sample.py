"""Two agents that both believe to own a camera: what the judge accepts of either, to the sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from nodeagent.contract.clip import ClipTask
from nodeagent.contract.codec import decode_clip_task, decode_detections
from nodeagent.infra.bus.port import Bus
from nodeagent.infra.bus.topology import clips_queue, detections_queue
from nodeagent.infra.redis import connect_redis
from nodeagent.judge.evidence import Author
from nodeagent.judge.ledger import Ledger
from nodeagent.judge.snapshot import unpack
from nodeagent.judge.store import redis_key
from tests.support.buses import make_bus
from tests.support.cluster import FOREVER_NS, Cluster
from tests.support.eventually import eventually
from tests.support.process_tree import freeze, thaw

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.timeout(300)]

CAMERA = "cam00"
#: Seconds for anything that the agents have to do, on a busy machine.
SOON_S = 60.0


@dataclass
class Tap:
    """Hears every clip that is announced and every clip's detections, as a node would that serves the camera too."""

    bus: Bus
    tasks: dict[str, ClipTask] = field(default_factory=dict)
    #: Epochs whose detections reached the judges.
    inferred: set[int] = field(default_factory=set)

    def listen(self) -> None:
        while (got := self.bus.get(0.05)) is not None:
            if got.queue == clips_queue("tap"):
                task = decode_clip_task(got.message)
                self.tasks[str(task.clip_id)] = task
            else:
                self.inferred.add(decode_detections(got.message).header.epoch)
            self.bus.ack(got)

    def of(self, epoch: int) -> list[ClipTask]:
        return sorted((t for t in self.tasks.values() if t.epoch == epoch), key=lambda task: task.start_ns)

    @property
    def epochs(self) -> set[int]:
        return {task.epoch for task in self.tasks.values()}

    def truth(self, until_ns: int) -> list[tuple[int, int]]:
        """Epoch and capture time of each sample up to a moment that is no later owner's."""
        began = {epoch: min(task.epoch_started_ns for task in self.of(epoch)) for epoch in self.epochs}
        found = []
        for task in self.tasks.values():
            fence_ns = min((ns for epoch, ns in began.items() if epoch > task.epoch), default=FOREVER_NS)
            found += [(task.epoch, when) for when in task.sample_ns if when < fence_ns and when <= until_ns]
        return found


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=2, registries=1, cameras=1, proxied=True, sections="[capture]\nclip_s = 2\n") as made:
        yield made


@pytest.fixture
def tap(cluster: Cluster) -> Iterator[Tap]:
    bus = make_bus(cluster.bus_url, "tap")
    bus.declare()
    bus.bind_camera(CAMERA)
    for queue in (clips_queue("tap"), detections_queue("tap", 0)):
        bus.consume(queue, 100)
    yield Tap(bus)
    bus.close()


def ledger(cluster: Cluster) -> Ledger:
    """The judges' books, as they stand in Redis."""
    client = connect_redis(cluster.redis.url)
    body = client.hget(redis_key(CAMERA), "state")
    client.close()
    return unpack(body, Author("", CAMERA, 15.0, 15.0), 5.0).ledger if body else Ledger()  # type: ignore[arg-type]


def test_of_a_stale_owner_nothing_is_accepted_that_the_new_one_has_and_all_that_it_took_before(
    cluster: Cluster, tap: Tap
) -> None:
    cluster.bring_in()
    (stale,) = {node for node, _ in cluster.captured()[CAMERA]}
    new = next(node for node in cluster.agents if node != stale)

    def listening(what: object) -> object:
        tap.listen()
        return what

    eventually(lambda: listening(ledger(cluster).counters.clips_judged >= 2), SOON_S)
    old_epoch = max(tap.epochs)
    # A clip that is closed and that nobody hears of, then a stop for longer than the lease.
    cluster.proxies[stale].stall()
    eventually(lambda: listening(None) or _unannounced(cluster, stale) > 0, SOON_S)
    frozen = freeze(cluster.agents[stale].pid)
    try:
        eventually(lambda: listening(None) or max(tap.inferred) > old_epoch, SOON_S)
    finally:
        cluster.proxies[stale].heal()
        thaw(frozen)
    told_before = len(tap.of(old_epoch))
    eventually(lambda: listening(None) or CAMERA not in cluster.on(stale), SOON_S)
    assert cluster.on(new) == [CAMERA]
    # What the stale owner recorded is announced to the last clip, and the new owner is judged on.
    eventually(lambda: listening(None) or _all_announced(cluster, stale, tap), SOON_S)
    assert len(tap.of(old_epoch)) > told_before
    until_ns = max(tap.of(max(tap.epochs)), key=lambda task: task.start_ns).end_ns
    eventually(lambda: listening(ledger(cluster).last_sample_ns > until_ns), SOON_S)

    books = eventually(lambda: listening(None) or _settled(cluster, tap), SOON_S)
    assert books is not None
    accepted = tap.truth(books.last_sample_ns)
    times = [when for _, when in accepted]
    assert len(set(times)) == len(times)
    fence_ns = min(task.epoch_started_ns for task in tap.of(min(e for e in tap.epochs if e > old_epoch)))
    beyond = [when for task in tap.of(old_epoch) for when in task.sample_ns if when >= fence_ns]
    print(f"{len(beyond)} samples of the stale owner were refused, {len(accepted)} were accepted in all")
    counters = books.counters
    assert (counters.samples_judged, counters.late, counters.gaps, counters.unknown) == (len(accepted), 0, 0, 0)
    judged = {clip for clip, task in tap.tasks.items() if task.start_ns <= books.start_ns}
    before = {clip for clip in judged if tap.tasks[clip].epoch > old_epoch or tap.tasks[clip].start_ns < fence_ns}
    assert counters.clips_judged == len(before)


def _unannounced(cluster: Cluster, node: str) -> int:
    row = cluster.agents[node].row(f"capture:{CAMERA}")
    return row.counters["clips_unconfirmed"] if row is not None else 0


def _all_announced(cluster: Cluster, node: str, tap: Tap) -> bool:
    """Whether everything that a node has recorded was heard of, and it records no more."""
    storage = cluster.storage(node)
    clips = [stored.clip for stored in storage.clips(CAMERA, 0, FOREVER_NS)]
    return bool(clips) and not storage.parts(CAMERA) and all(str(clip) in tap.tasks for clip in clips)


def _settled(cluster: Cluster, tap: Tap) -> Ledger | None:
    """The books at a moment at which everything that they tell of was heard here too."""
    books = ledger(cluster)
    tap.listen()
    return books if any(books.last_sample_ns in task.sample_ns for task in tap.tasks.values()) else None
