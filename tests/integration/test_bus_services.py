"""The private servers themselves: they answer, are fresh, and vanish with the process that started them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pika
import pymysql
import pytest
import redis

from tests.support.eventually import eventually
from tests.support.services import MissingServer, RedisServer, listens

pytestmark = pytest.mark.services

#: A starter that dies by kill -9 right after its server is up.
_DIES = """
import os, signal
from tests.support.services import RedisServer
server = RedisServer()
server.start()
print(server.port, server.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_redis_is_empty_and_writable(redis_url: str) -> None:
    link = redis.Redis.from_url(redis_url, protocol=2)
    assert link.dbsize() == 0
    assert link.set("left for the next test", 1)
    link.close()


def test_redis_is_empty_again(redis_server: RedisServer) -> None:
    for url in (redis_server.url, redis_server.unix_url):
        link = redis.Redis.from_url(url, protocol=2)
        assert link.dbsize() == 0
        link.close()


def test_mysql_gives_a_fresh_database(mysql_url: str) -> None:
    port, name = mysql_url.rsplit(":", 1)[1].split("/")
    link = pymysql.connect(host="127.0.0.1", port=int(port), user="root", database=name)
    with link.cursor() as cursor:
        assert cursor.execute("SHOW TABLES") == 0
    link.close()


def test_rabbitmq_gives_a_fresh_virtual_host(rabbitmq_url: str) -> None:
    link = pika.BlockingConnection(pika.URLParameters(rabbitmq_url))
    declared = link.channel().queue_declare("q", exclusive=True)
    assert declared.method.message_count == 0
    link.close()


def test_servers_end_when_their_starter_is_killed() -> None:
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", _DIES], cwd=root, capture_output=True, text=True, check=False)
    port, folder = done.stdout.split()
    assert eventually(lambda: not listens(int(port)))
    assert eventually(lambda: not Path(folder).exists())


def test_a_missing_server_names_the_package() -> None:
    with pytest.raises(MissingServer, match="apt-get install redis-server"):
        RedisServer(Path("/nowhere/redis-server"))
