"""A process that uses a bus until it is killed: `python -m tests.support.bus_child URL ACTION ...`.

Prints one line per step, so that a test knows when to kill it.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from nodeagent.contract.codec import Message
from nodeagent.contract.errors import Refused, Unavailable
from nodeagent.infra.bus.port import Bus
from tests.support.buses import make_bus, take, trying


def say(text: object) -> None:
    print(text, flush=True)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hold(bus: Bus, queue: str, count: str) -> None:
    """Take `count` messages, print their attempts and keep them."""
    bus.consume(queue, int(count))
    for _ in range(int(count)):
        say(take(bus).attempt)
    time.sleep(3600)


def later_killed(bus: Bus, queue: str) -> None:
    """Put a message off, and die when its copy is confirmed but the original is not settled yet.

    An adapter that does both in one step dies right after it.
    """
    bus.consume(queue, 1)
    delivery = take(bus)
    bus.ack = lambda _delivery: die()  # type: ignore[method-assign]
    bus.later(delivery, 1)
    die()


def publish(bus: Bus, exchange: str, key: str) -> None:
    """Publish 0, 1, 2, ...; print each number once it is confirmed; try again what was not."""
    number = 0
    while True:
        try:
            bus.publish(exchange, key, Message(str(number).encode(), {"type": "number"}))
        except (Unavailable, Refused):
            time.sleep(0.05)
            continue
        say(number)
        number += 1


def main() -> None:
    url, action, *arguments = sys.argv[1:]
    bus = make_bus(url)
    trying(bus.declare)
    {"hold": hold, "later_killed": later_killed, "publish": publish}[action](bus, *arguments)


if __name__ == "__main__":
    main()
