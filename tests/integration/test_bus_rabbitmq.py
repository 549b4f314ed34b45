"""What only RabbitMQ does: spilling, expiry, refusals, and what a broker must have."""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable, Iterator
from functools import reduce

import pika
import pytest

from nodeagent.contract.codec import Message
from nodeagent.contract.errors import ConfigError, Refused, Unavailable
from nodeagent.infra.bus import rabbitmq_layout
from nodeagent.infra.bus.rabbitmq import RabbitBus
from nodeagent.infra.bus.topology import (
    ALARMS,
    CLIPS,
    CLIPS_SPILL,
    DETECTIONS,
    DETECTIONS_LATE,
    Node,
    clips_queue,
    detections_queue,
    shard_of,
)
from tests.support.buses import Backend, make_bus, take, trying
from tests.support.eventually import eventually
from tests.support.services import RabbitMq

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

NODE = Node("n1")
TASK = Message(b"task", {"type": "clip_task"})


@pytest.fixture
def backend(rabbitmq: RabbitMq, rabbitmq_url: str) -> Iterator[Backend]:
    made = Backend("rabbitmq", rabbitmq, rabbitmq_url)
    yield made
    made.close()


class WithoutStreams(RabbitMq):
    """A broker as one upgraded from 3.8 may be: new program, old feature flags."""

    def environment(self) -> dict[str, str]:
        return super().environment() | {"RABBITMQ_FEATURE_FLAGS": "quorum_queue,implicit_default_bindings"}


def test_a_clip_that_nobody_takes_for_eight_seconds_spills(backend: Backend) -> None:
    bus, other = backend.bus(), backend.bus("n2")
    bus.bind_camera("cam")
    bus.publish(CLIPS, "cam", TASK)
    published = time.monotonic()
    other.consume(CLIPS_SPILL, 1)
    got = take(other)
    assert 7 < time.monotonic() - published < 14
    assert (got.queue, got.key, got.attempt, got.message) == (CLIPS_SPILL, "cam", 1, TASK)
    other.ack(got)
    assert eventually(lambda: bus.depth(clips_queue("n1")) == 0)


def test_a_clip_of_an_unbound_camera_spills_at_once(backend: Backend) -> None:
    bus = backend.bus()
    bus.consume(CLIPS_SPILL, 1)
    bus.publish(CLIPS, "cam", TASK)
    assert take(bus, 4.0).key == "cam"


def test_an_expired_clip_may_be_put_off_and_spills_again(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way back to a queue that a message has expired in would be a cycle, if it went as the same message."""
    monkeypatch.setattr(rabbitmq_layout, "CLIPS_TTL_S", 0.3)
    bus = backend.bus()
    bus.bind_camera("cam")
    bus.consume(CLIPS_SPILL, 1)
    bus.publish(CLIPS, "cam", TASK)
    for attempt in (1, 2, 3):
        got = take(bus)
        assert (got.queue, got.key, got.attempt, got.message) == (CLIPS_SPILL, "cam", attempt, TASK)
        bus.later(got, 1)
    got = take(bus)
    bus.publish(CLIPS, "cam", got.message)
    bus.ack(got)
    assert take(bus).attempt == 1


def test_expired_detections_are_republished_as_often_as_needed(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_layout, "DETECTIONS_TTL_S", 0.3)
    bus = backend.bus()
    bus.bind_camera("cam")
    bus.consume(DETECTIONS_LATE, 1)
    bus.publish(DETECTIONS, "cam", TASK)
    for _ in range(3):
        got = take(bus)
        assert (got.queue, got.key, got.message) == (DETECTIONS_LATE, "cam", TASK)
        bus.publish(DETECTIONS, got.key, got.message)
        bus.ack(got)
    assert take(bus).key == "cam"


def test_a_put_off_clip_of_a_node_that_is_gone_is_found_by_another(backend: Backend) -> None:
    bus, other = backend.bus(), backend.bus("n2")
    bus.bind_camera("cam")
    bus.publish(CLIPS, "cam", TASK)
    bus.consume(clips_queue("n1"), 1)
    bus.later(take(bus), 1)
    bus.close()
    delete_queue(backend.url, clips_queue("n1"))
    other.consume(CLIPS_SPILL, 1)
    got = take(other)
    assert (got.key, got.attempt, got.message) == ("cam", 2, TASK)


def delete_queue(url: str, name: str) -> None:
    link = pika.BlockingConnection(pika.URLParameters(url))
    link.channel().queue_delete(name)
    link.close()


def test_detections_without_a_binding_are_refused(backend: Backend) -> None:
    bus = backend.bus()
    with pytest.raises(Refused, match="NO_ROUTE"):
        bus.publish(DETECTIONS, "cam", TASK)
    bus.bind_camera("cam")
    bus.publish(DETECTIONS, "cam", TASK)
    bus.unbind_camera("cam")
    with pytest.raises(Refused):
        bus.publish(DETECTIONS, "cam", TASK)
    assert eventually(lambda: bus.depth(detections_queue("n1", 0)) == 1)


def test_each_camera_goes_to_its_shard(backend: Backend) -> None:
    bus = backend.bus(shards=3)
    for camera in ("a", "b", "c", "d", "e"):
        bus.bind_camera(camera)
        bus.publish(DETECTIONS, camera, Message(camera.encode()))
    for shard in range(3):
        bus.consume(detections_queue("n1", shard), 10)
    for _ in range(5):
        got = take(bus)
        assert got.queue == detections_queue("n1", shard_of(got.key, 3))
        bus.ack(got)


def test_a_camera_leaves_the_queue_of_the_shard_that_it_was_in_before(backend: Backend) -> None:
    """Else each clip lies in a queue without a judge too, comes back from there, and goes to both again."""
    camera = next(name for name in ("a", "b", "c", "d") if shard_of(name, 3) == 2)
    backend.bus(shards=3).bind_camera(camera)
    fewer = backend.bus(shards=1)
    fewer.bind_camera(camera)
    fewer.publish(DETECTIONS, camera, TASK)
    assert eventually(lambda: fewer.depth(detections_queue("n1", 0)) == 1)
    assert fewer.depth(detections_queue("n1", 2)) == 0
    more = backend.bus(shards=3)
    more.bind_camera(camera)
    more.publish(DETECTIONS, camera, TASK)
    assert eventually(lambda: more.depth(detections_queue("n1", 2)) == 1)
    assert more.depth(detections_queue("n1", 0)) == 1


def test_unbinding_leaves_no_queue_of_any_shard(backend: Backend) -> None:
    camera = next(name for name in ("a", "b", "c", "d") if shard_of(name, 3) == 2)
    backend.bus(shards=3).bind_camera(camera)
    bus = backend.bus(shards=1)
    bus.unbind_camera(camera)
    with pytest.raises(Refused, match="NO_ROUTE"):
        bus.publish(DETECTIONS, camera, TASK)


def test_clips_may_be_unbound_alone(backend: Backend) -> None:
    """A node that lost a camera looks at no clip of its new owner; what it has of its own still finds a judge."""
    bus = backend.bus()
    bus.bind_camera("cam")
    bus.publish(CLIPS, "cam", TASK)
    for _ in range(2):
        bus.unbind_clips("cam")
    bus.publish(CLIPS, "cam", TASK)
    bus.publish(DETECTIONS, "cam", TASK)
    queues = (clips_queue("n1"), CLIPS_SPILL, detections_queue("n1", 0))
    assert eventually(lambda: [bus.depth(queue) for queue in queues] == [1, 1, 1])


def test_a_full_queue_refuses_and_takes_again(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq_layout, "MAX_WAITING", 5)
    bus = backend.bus()
    bus.bind_camera("cam")
    bus.consume(clips_queue("n1"), 1)
    bus.publish(CLIPS, "cam", TASK)
    held = take(bus)

    def refused() -> bool:
        try:
            bus.publish(ALARMS, "cam", TASK)
        except Refused:
            return True
        return False

    assert eventually(refused)
    # Longer than NACKS_S: the channel is replaced meanwhile, which leaves the delivery in hand alone.
    started = time.monotonic()
    while time.monotonic() - started < 3.0:
        assert refused_or_unavailable(lambda: bus.publish(ALARMS, "cam", TASK))
        time.sleep(0.1)
    bus.ack(held)
    assert bus.get(0.5) is None
    assert bus.depth(clips_queue("n1")) == 0
    bus.consume(ALARMS, 1)
    bus.ack(take(bus))
    bus.ack(take(bus))
    trying(lambda: bus.publish(ALARMS, "cam", TASK))


def refused_or_unavailable(what: Callable[[], None]) -> bool:
    try:
        what()
    except (Refused, Unavailable):
        return True
    return False


def test_a_broker_short_of_memory_is_unavailable_until_it_is_not(backend: Backend, rabbitmq: RabbitMq) -> None:
    bus = backend.bus()
    rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1")
    try:
        assert eventually(lambda: refused_or_unavailable(lambda: bus.publish(ALARMS, "cam", TASK)), 20)
        started = time.monotonic()
        with pytest.raises(Unavailable, match="takes no messages"):
            bus.publish(ALARMS, "cam", TASK)
        assert time.monotonic() - started < 1, "a blocked broker is known at once"
        assert bus.connected
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    trying(lambda: bus.publish(ALARMS, "cam", TASK))


#: Headers of one name and a value that the library cannot read: a date in milliseconds, tables without end.
DATE = b"\1xT" + struct.pack(">Q", 1_764_000_000_000)
ENDLESS = reduce(lambda inner, _: b"\1xF" + struct.pack(">I", len(inner)) + inner, range(5000), b"")


@pytest.mark.parametrize("headers", [DATE, ENDLESS], ids=["date", "endless"])
def test_headers_that_the_library_cannot_read_hold_up_nobody(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, headers: bytes
) -> None:
    bus = backend.bus()
    bus.consume(ALARMS, 10)
    with monkeypatch.context() as raw:

        def encode(pieces: list[bytes], _table: object) -> int:
            pieces.append(struct.pack(">I", len(headers)) + headers)
            return 4 + len(headers)

        link = pika.BlockingConnection(pika.URLParameters(backend.url))
        channel = link.channel()
        raw.setattr(pika.data, "encode_table", encode)
        channel.basic_publish(ALARMS, "cam", b"alien", pika.BasicProperties(headers={"x": 1}))
    link.close()
    alien = take(bus)
    assert alien.message.body == b"alien"
    bus.publish(ALARMS, "cam", TASK)
    bus.dead(alien, "no alarm")
    assert take(bus).message == TASK
    assert eventually(lambda: bus.depth("alarms.dead") == 1)


def test_a_missing_exchange_harms_no_other_message(backend: Backend) -> None:
    bus = backend.bus()
    outcomes: list[str] = []

    def publish(exchange: str) -> None:
        for _ in range(20):
            try:
                bus.publish(exchange, "cam", TASK)
                outcomes.append(exchange)
            except Refused:
                outcomes.append("refused")
            except Unavailable:
                outcomes.append("unavailable")

    threads = [threading.Thread(target=publish, args=(name,)) for name in (ALARMS, "nobody made this")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "nobody made this" not in outcomes
    assert "refused" in outcomes
    kept = outcomes.count(ALARMS)
    assert eventually(lambda: bus.depth(ALARMS) >= kept)
    bus.publish(ALARMS, "cam", TASK)


def test_confirms_of_several_threads_are_pipelined(backend: Backend) -> None:
    bus = backend.bus()

    def rate(threads: int, each: int) -> float:
        def send() -> None:
            for _ in range(each):
                bus.publish(ALARMS, "cam", TASK)

        started = time.monotonic()
        senders = [threading.Thread(target=send) for _ in range(threads)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        return threads * each / (time.monotonic() - started)

    alone, together = rate(1, 60), rate(24, 30)
    print(f"one thread {alone:.0f}/s, 24 threads {together:.0f}/s")
    assert together > alone * 1.5


def test_many_processes_may_declare_at_once(backend: Backend) -> None:
    children = [backend.child("hold", ALARMS, "1") for _ in range(4)]
    bus = backend.bus()
    for _ in children:
        bus.publish(ALARMS, "cam", TASK)
    assert eventually(lambda: bus.depth(ALARMS) == 0, 30)
    assert all(child.poll() is None for child in children)


@pytest.mark.parametrize(("argument", "value"), [("x-queue-type", "classic"), ("x-message-ttl", 77)])
def test_a_queue_with_other_arguments_is_named(backend: Backend, argument: str, value: object) -> None:
    queue = clips_queue("n1")
    ours = next(item for item in rabbitmq_layout.layout(NODE).queues if item.name == queue)
    theirs = {**ours.arguments, argument: value} if argument == "x-message-ttl" else {argument: value}
    link = pika.BlockingConnection(pika.URLParameters(backend.url))
    link.channel().queue_declare(queue, durable=True, arguments=theirs)
    link.close()
    with pytest.raises(ConfigError) as caught:
        backend.bus()
    assert queue in str(caught.value)
    assert argument in str(caught.value)


def test_a_broker_without_the_stream_flag_is_refused_by_name() -> None:
    with WithoutStreams() as server:
        bus = make_bus(server.url)
        with pytest.raises(ConfigError, match="stream_queue"):
            bus.declare()
        bus.close()


def test_no_credential_is_shown(rabbitmq: RabbitMq, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bus = make_bus(f"amqp://guest:hunter2secret@127.0.0.1:{rabbitmq.port}/%2F")
    with pytest.raises(Unavailable) as caught:
        bus.declare()
    bus.close()
    assert "hunter2secret" not in caplog.text + str(caught.value) + repr(caught.value.__context__)
    assert "rabbitmq is away" in caplog.text
    with pytest.raises(ConfigError) as faulty:
        # Past the settings, which refuse such a URL themselves.
        RabbitBus("amqp://guest:hunter2secret@127.0.0.1:port/%2F", NODE, 2, 1.0)
    assert "hunter2secret" not in str(faulty.value)
