"""What every adapter of the bus promises (`infra.bus.port`), on real brokers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nodeagent.contract.codec import Message
from nodeagent.contract.errors import Refused, Unavailable
from nodeagent.infra.bus.port import Bus, Delivery
from nodeagent.infra.bus.topology import ALARMS, CLIPS, DETECTIONS, clips_queue, detections_queue
from tests.support.buses import Backend, end, line, take, trying
from tests.support.eventually import eventually

pytestmark = pytest.mark.services

KINDS = (CLIPS, DETECTIONS, ALARMS)


@pytest.fixture
def bus(backend: Backend) -> Bus:
    return backend.bus()


def queue_of(kind: str) -> str:
    return {CLIPS: clips_queue("n1"), DETECTIONS: detections_queue("n1", 0), ALARMS: ALARMS}[kind]


def message(text: str = "x", **headers: str) -> Message:
    return Message(text.encode(), {"type": "test", **headers})


def prepared(bus: Bus, kind: str) -> str:
    """Bind the camera, publish one message of this kind and consume its queue."""
    bus.bind_camera("cam")
    bus.publish(kind, "cam", message("one", meta="m"))
    bus.consume(queue_of(kind), 10)
    return queue_of(kind)


def drained(bus: Bus, count: int, within_s: float = 30.0) -> list[Delivery]:
    """Take and acknowledge until `count` different bodies were seen."""
    seen: dict[bytes, Delivery] = {}
    deadline = time.monotonic() + within_s
    while len(seen) < count and time.monotonic() < deadline:
        delivery = bus.get(0.5)
        if delivery is not None:
            seen[delivery.message.body] = delivery
            bus.ack(delivery)
    assert len(seen) == count
    return list(seen.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_message_arrives_once_and_is_gone_when_acknowledged(bus: Bus, kind: str) -> None:
    queue = prepared(bus, kind)
    got = take(bus)
    assert (got.queue, got.key, got.attempt, got.reason) == (queue, "cam", 1, "")
    assert got.message == message("one", meta="m")
    bus.ack(got)
    assert bus.get(0.3) is None
    assert eventually(lambda: bus.depth(queue) == 0)


def test_headers_and_alien_bytes_pass_through(bus: Bus) -> None:
    body = bytes(range(256)) * 3
    headers = {"type": "é漢字", "meta": '{"a": 1}', "empty": ""}
    bus.consume(ALARMS, 1)
    bus.publish(ALARMS, "cam", Message(body, headers))
    assert take(bus).message == Message(body, headers)


def test_a_large_body_passes(bus: Bus) -> None:
    body = bytes(5_000_000)
    bus.consume(ALARMS, 1)
    bus.publish(ALARMS, "cam", Message(body))
    got = take(bus)
    assert got.message.body == body
    bus.ack(got)


def test_no_message_is_none_after_the_wait(bus: Bus) -> None:
    bus.consume(ALARMS, 1)
    started = time.monotonic()
    assert bus.get(0.2) is None
    assert 0.15 <= time.monotonic() - started < 2


def test_nack_gives_it_back_with_one_attempt_more(bus: Bus) -> None:
    prepared(bus, CLIPS)
    for attempt in (1, 2, 3):
        got = take(bus)
        assert got.attempt == attempt
        assert (got.key, got.message) == ("cam", message("one", meta="m"))
        bus.nack(got)
    bus.ack(take(bus))
    assert bus.get(0.3) is None


def test_a_killed_consumer_s_message_comes_again(backend: Backend, bus: Bus) -> None:
    queue = prepared_without_consumer(bus)
    child = backend.child("hold", queue, "2")
    assert [line(child), line(child)] == ["1", "1"]
    bus.consume(queue, 10)
    assert bus.get(1.0) is None, "taken over although its consumer lives"
    killed = time.monotonic()
    end(child)
    got = [take(bus), take(bus)]
    assert time.monotonic() - killed < 8, "taken over too late"
    assert {one.message.body for one in got} == {b"0", b"1"}
    assert [one.attempt for one in got] == [2, 2]
    for one in got:
        bus.ack(one)
    assert bus.get(0.3) is None


def test_what_a_killed_consumer_had_is_counted_before_anybody_takes_it_over(backend: Backend, bus: Bus) -> None:
    queue = prepared_without_consumer(bus)
    child = backend.child("hold", queue, "2")
    assert [line(child), line(child)] == ["1", "1"]
    assert bus.depth(queue) == 0
    end(child)
    assert eventually(lambda: bus.depth(queue) + bus.taken(queue) == 2)
    bus.consume(queue, 10)
    for _ in range(2):
        bus.ack(take(bus))
    assert eventually(lambda: bus.depth(queue) + bus.taken(queue) == 0)
    assert bus.taken("alarms.never_declared") == 0


def prepared_without_consumer(bus: Bus) -> str:
    for number in range(2):
        bus.publish(ALARMS, "cam", message(str(number)))
    return ALARMS


def test_a_slow_living_consumer_keeps_its_message(backend: Backend, bus: Bus) -> None:
    prepared(bus, ALARMS)
    held = take(bus)
    other = backend.bus()
    other.consume(ALARMS, 1)
    assert other.get(5.0) is None
    bus.ack(held)
    assert other.get(1.0) is None


@pytest.mark.parametrize("kind", KINDS)
def test_later_waits_and_grows_the_attempt(bus: Bus, kind: str) -> None:
    queue = prepared(bus, kind)
    got = take(bus)
    put_off = time.monotonic()
    bus.later(got, 0.9)
    assert bus.get(0.3) is None
    again = take(bus)
    assert 0.8 <= time.monotonic() - put_off < 6
    assert (again.queue, again.key, again.attempt) == (queue, "cam", 2)
    assert again.message == message("one", meta="m")
    bus.later(again, 0.5)
    assert take(bus).attempt == 3


def test_nothing_is_lost_when_killed_between_copy_and_settling(backend: Backend, bus: Bus) -> None:
    bus.publish(ALARMS, "cam", message("one"))
    child = backend.child("later_killed", ALARMS)
    child.wait(30)
    bus.consume(ALARMS, 5)
    got = take(bus)
    assert got.message.body == b"one"
    assert got.attempt == 2
    bus.ack(got)
    while (extra := bus.get(3.0)) is not None:
        assert extra.message.body == b"one"
        bus.ack(extra)


@pytest.mark.parametrize("kind", KINDS)
def test_dead_keeps_message_key_attempt_and_reason(bus: Bus, kind: str) -> None:
    queue = prepared(bus, kind)
    bus.nack(take(bus))
    bus.dead(take(bus), "cannot be decoded: ü")
    assert bus.get(0.3) is None
    assert eventually(lambda: bus.depth(f"{kind}.dead") == 1)
    assert bus.depth(queue) == 0
    bus.consume(f"{kind}.dead", 1)
    got = take(bus)
    assert (got.queue, got.key, got.reason) == (f"{kind}.dead", "cam", "cannot be decoded: ü")
    assert got.attempt == 2
    assert got.message == message("one", meta="m")
    bus.ack(got)


def test_depth_counts_what_waits(bus: Bus) -> None:
    for number in range(5):
        bus.publish(ALARMS, "cam", message(str(number)))
    assert eventually(lambda: bus.depth(ALARMS) == 5)
    bus.consume(ALARMS, 2)
    held = [take(bus), take(bus)]
    assert eventually(lambda: bus.depth(ALARMS) == 3)
    assert bus.get(0.3) is None, "more than the prefetch"
    bus.ack(held[0])
    assert take(bus).message.body == b"2"
    assert bus.depth("alarms.never_declared") == 0


def test_what_is_in_hand_is_told_at_once(backend: Backend) -> None:
    told: list[tuple[str, int]] = []
    bus = backend.bus(tell=lambda queue, count: told.append((queue, count)))
    for number in range(3):
        bus.publish(ALARMS, "cam", message(str(number)))
    bus.consume(ALARMS, 2)
    first = take(bus)
    # With the second, before anybody has asked for it.
    assert eventually(lambda: told[-1:] == [(ALARMS, 2)])
    bus.nack(first)
    bus.close()
    assert told[-1] == (ALARMS, 0)
    assert {queue for queue, _ in told} == {ALARMS}


def test_prefetch_is_per_queue(bus: Bus) -> None:
    bus.bind_camera("cam")
    for number in range(4):
        bus.publish(ALARMS, "cam", message(f"a{number}"))
        bus.publish(CLIPS, "cam", message(f"c{number}"))
    bus.consume(ALARMS, 1)
    bus.consume(clips_queue("n1"), 3)
    got = [take(bus) for _ in range(4)]
    assert sorted(one.message.body[:1] for one in got) == [b"a", b"c", b"c", b"c"]
    assert bus.get(0.3) is None


def test_binding_twice_and_unbinding_twice_is_harmless(bus: Bus) -> None:
    for _ in range(2):
        bus.bind_camera("cam")
    bus.publish(CLIPS, "cam", message("once"))
    bus.consume(clips_queue("n1"), 10)
    bus.ack(take(bus))
    assert bus.get(0.3) is None
    for _ in range(2):
        bus.unbind_camera("cam")
    bus.unbind_camera("never bound")


def test_an_unknown_exchange_is_refused(bus: Bus) -> None:
    with pytest.raises(Refused):
        bus.publish("nobody made this", "cam", message())
    bus.publish(ALARMS, "cam", message())


def test_declaring_again_is_harmless(backend: Backend, bus: Bus) -> None:
    bus.publish(ALARMS, "cam", message())
    bus.declare()
    other = backend.bus("n2")
    assert eventually(lambda: other.depth(ALARMS) == 1)


def test_several_threads_publish_and_settle_at_once(bus: Bus) -> None:
    per_thread, threads = 50, 6
    seen: set[bytes] = set()
    bus.consume(ALARMS, 20)

    def send(number: int) -> None:
        for index in range(per_thread):
            bus.publish(ALARMS, "cam", message(f"{number}/{index}"))

    def settle(_: int) -> None:
        deadline = time.monotonic() + 30
        while len(seen) < per_thread * threads and time.monotonic() < deadline:
            got = bus.get(0.2)
            if got is not None:
                bus.ack(got)
                seen.add(got.message.body)

    with ThreadPoolExecutor(2 * threads) as pool:
        jobs = [pool.submit(job, number) for job in (send, settle) for number in range(threads)]
    for job in jobs:
        job.result()
    assert len(seen) == per_thread * threads
    assert eventually(lambda: bus.depth(ALARMS) == 0)


def test_confirmed_messages_survive_the_broker_s_death(backend: Backend, bus: Bus) -> None:
    for number in range(20):
        bus.publish(ALARMS, "cam", message(str(number)))
    backend.server.kill9()
    assert eventually(lambda: not bus.connected)
    with pytest.raises(Unavailable):
        bus.publish(ALARMS, "cam", message("not kept"))
    with pytest.raises(Unavailable):
        bus.bind_camera("cam")
    with pytest.raises(Unavailable):
        bus.depth(ALARMS)
    assert bus.get(0.1) is None
    backend.server.start()
    trying(lambda: bus.publish(ALARMS, "cam", message("20")))
    bus.consume(ALARMS, 30)
    assert {one.message.body for one in drained(bus, 21)} >= {str(number).encode() for number in range(20)}


def test_a_consumer_goes_on_after_the_broker_s_death(backend: Backend, bus: Bus) -> None:
    prepared(bus, ALARMS)
    stale = take(bus)
    backend.server.kill9()
    assert eventually(lambda: not bus.connected)
    bus.ack(stale)
    bus.nack(stale)
    backend.server.start()
    trying(lambda: bus.publish(ALARMS, "cam", message("two")))
    bodies = {one.message.body for one in drained(bus, 2)}
    assert bodies == {b"one", b"two"}
    assert bus.connected


def test_settling_twice_does_nothing(backend: Backend, bus: Bus) -> None:
    prepared(bus, ALARMS)
    got = take(bus)
    bus.ack(got)
    bus.ack(got)
    bus.nack(got)
    bus.later(got, 1)
    bus.dead(got, "no")
    assert bus.get(1.5) is None
    assert bus.depth("alarms.dead") == 0
    bus.publish(ALARMS, "cam", message("link is fine"))
    assert take(bus).message.body == b"link is fine"


def test_closing_gives_back_what_was_taken(backend: Backend, bus: Bus) -> None:
    first = backend.bus()
    bus.publish(ALARMS, "cam", message("handed out"))
    bus.publish(ALARMS, "cam", message("still in the inbox"))
    first.consume(ALARMS, 5)
    take(first)
    assert eventually(lambda: bus.depth(ALARMS) == 0)
    closed = time.monotonic()
    first.close()
    first.close()
    bus.consume(ALARMS, 5)
    got = drained(bus, 2)
    assert time.monotonic() - closed < 5
    assert {one.attempt for one in got} == {2}
    with pytest.raises(Unavailable):
        first.publish(ALARMS, "cam", message())


def test_a_broker_that_was_never_there_is_unavailable(backend: Backend, tmp_path: Path) -> None:
    backend.server.kill9()
    with pytest.raises(Unavailable):
        backend.bus()
    bus = backend.buses[-1]
    assert not bus.connected
    assert bus.get(0.1) is None
    backend.server.start()
    trying(bus.declare)
    bus.consume(ALARMS, 1)
    bus.publish(ALARMS, "cam", message("at last"))
    assert take(bus).message.body == b"at last"
