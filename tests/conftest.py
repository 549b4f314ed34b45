"""Private servers on demand, and a look at the end of the session whether anything was left running.

A server that is not installed fails the test in CI and skips it, with the reason, elsewhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# `pytest` alone, unlike `python -m pytest`, does not put the tree's root on the path; `tests.support` needs it.
sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.missing import not_tested
from tests.support.services import GUARD, Lazy, MariaDb, MissingServer, RabbitMq, RedisServer, S

#: Helpers of `multiprocessing`, which live as long as the session.
_HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")

_lazy = Lazy()


def _server(name: str, make: Callable[[], S]) -> S:
    try:
        return _lazy.get(name, make)
    except MissingServer as exc:
        not_tested(str(exc))


@pytest.fixture
def redis_server() -> RedisServer:
    """The session's Redis, running and empty; a test may kill, freeze and start it."""
    server = _server("redis", RedisServer)
    server.flush()
    return server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """URL of an empty Redis."""
    return redis_server.url


@pytest.fixture
def mariadb() -> MariaDb:
    """The session's MariaDB, running."""
    return _server("maria", MariaDb)


@pytest.fixture
def mysql_url(mariadb: MariaDb) -> Iterator[str]:
    """URL of a fresh, empty MariaDB database."""
    url = mariadb.new_database()
    yield url
    mariadb.start()
    mariadb.drop_database(url)


@pytest.fixture
def rabbitmq() -> RabbitMq:
    """The session's RabbitMQ, running; a test may kill, freeze and start it, and call `ctl`."""
    return _server("rabbit", lambda: RabbitMq(management=True))


@pytest.fixture
def rabbitmq_url(rabbitmq: RabbitMq) -> Iterator[str]:
    """URL of a fresh virtual host of the session's RabbitMQ."""
    url = rabbitmq.new_vhost()
    yield url
    rabbitmq.start()
    rabbitmq.drop_vhost(url)


def _children() -> list[str]:
    """Processes whose parent is this session, guard and multiprocessing's helpers not counted."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            command = stat.with_name("cmdline").read_bytes()
        except OSError:
            continue
        known = int(stat.parent.name) == GUARD.pid or any(helper in command for helper in _HELPERS)
        if parent == os.getpid() and not known:
            found.append(
                f"process {stat.parent.name}: {command.replace(bytes(1), b' ').decode(errors='replace')[:120]}"
            )
    return found


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the servers; a session that leaves something behind has failed."""
    left = _lazy.close() + _children()
    GUARD.close()
    if left:
        print("\nLEFT BEHIND by this session:\n  " + "\n  ".join(left), file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
