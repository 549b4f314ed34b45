"""How many consumers a queue has, as a real RabbitMQ tells it."""

from __future__ import annotations

import pika
import pytest
from sqlalchemy import make_url

from nodeagent.contract.errors import ConfigError, Unavailable
from nodeagent.infra.bus.rabbitmq_consumers import Consumers
from nodeagent.infra.bus.topology import clips_queue
from tests.support.eventually import eventually
from tests.support.proxy import Proxy

pytestmark = pytest.mark.services


def test_consumers_are_counted_and_a_queue_that_there_is_not_has_none(rabbitmq_url: str) -> None:
    consumers = Consumers(rabbitmq_url)
    agent = pika.BlockingConnection(pika.URLParameters(rabbitmq_url))
    channel, queue = agent.channel(), clips_queue("rack1")
    # A refusal closes the channel on which was asked; the next question has another.
    assert [consumers.count(queue), consumers.count(queue)] == [0, 0]
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    assert consumers.count(queue) == 0
    channel.basic_consume(queue, lambda *_: None)
    assert eventually(lambda: consumers.count(queue)) == 1
    agent.close()
    assert eventually(lambda: consumers.count(queue) == 0)
    consumers.close()


def test_a_broker_that_is_away_cannot_be_asked_and_is_asked_again(rabbitmq_url: str) -> None:
    with pytest.raises(ConfigError, match=r"bus\.url"):
        Consumers("amqp://host:none/")
    port = make_url(rabbitmq_url).port
    assert port is not None
    with Proxy(port) as proxy:
        consumers = Consumers(rabbitmq_url.replace(f":{port}/", f":{proxy.port}/"))
        assert consumers.count("clips.rack1") == 0
        proxy.cut()
        with pytest.raises(Unavailable):
            eventually(lambda: consumers.count("clips.rack1") > 0)
        proxy.heal()

        def asked() -> bool:
            try:
                return consumers.count("clips.rack1") == 0
            except Unavailable:
                return False

        assert eventually(asked, within_s=30)
        consumers.close()
