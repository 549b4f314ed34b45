"""A Redis with a replica and a Sentinel that makes the replica the server when the first one dies."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from tests.support.eventually import eventually
from tests.support.server import Server
from tests.support.services import RedisServer

#: Password of both servers; the Sentinel itself asks for none.
PASSWORD = "s3cret"
#: What the Sentinel calls the service.
SERVICE = "site"


class _Sentinel(Server):
    """One Sentinel, whose word alone decides."""

    name = "sentinel"
    program = Path("/usr/bin/redis-server")
    packages = "redis-server"

    def __init__(self, watched_port: int) -> None:
        super().__init__()
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}"]
        lines += [f"sentinel monitor {SERVICE} 127.0.0.1 {watched_port} 1", f"sentinel auth-pass {SERVICE} {PASSWORD}"]
        lines += [f"sentinel down-after-milliseconds {SERVICE} 500", f"sentinel failover-timeout {SERVICE} 3000"]
        # The Sentinel writes into it.
        self._config = self.folder / "sentinel.conf"
        self._config.write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        return [str(self.program), str(self._config), "--sentinel"]


class SentinelSite:
    """The three servers.

    Attributes:
        primary: the server to begin with.
        replica: what takes over.
        url: what clients connect to.
    """

    def __init__(self) -> None:
        secret = ["--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0"]
        self.primary = RedisServer(options=secret)
        self.replica = RedisServer(options=[*secret, "--replicaof", f"127.0.0.1 {self.primary.port}"])
        self._sentinel = _Sentinel(self.primary.port)
        nobody = self._sentinel.port + 1 if self._sentinel.port < 65535 else 1
        hosts = f"127.0.0.1:{nobody},127.0.0.1:{self._sentinel.port}"
        self.url = f"redis+sentinel://:{PASSWORD}@{hosts}/{SERVICE}/0"

    def __enter__(self) -> SentinelSite:
        try:
            for server in (self.primary, self.replica, self._sentinel):
                server.start()
            eventually(self._ready, 30.0)
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.remove()

    def remove(self) -> None:
        """End them all."""
        for server in (self._sentinel, self.replica, self.primary):
            server.remove()

    def part(self) -> None:
        """Let nothing more reach the replica: what is written from now on is lost when the first server dies."""
        client: Any = redis.Redis(port=self.replica.port, password=PASSWORD)
        try:
            client.config_set("masterauth", "wrong")
            client.client_kill_filter(_type="master")
        finally:
            client.close()
        eventually(lambda: self._info(self.replica.port)["master_link_status"] == "down")

    def fail_over(self) -> None:
        """Kill the first server and wait until the replica serves."""
        self.primary.kill9()
        eventually(lambda: self._info(self.replica.port)["role"] == "master", 30.0)

    def replicated(self) -> bool:
        """Whether the replica has everything."""
        first, second = self._info(self.primary.port), self._info(self.replica.port)
        return bool(first["master_repl_offset"] == second["slave_repl_offset"])

    def _ready(self) -> bool:
        linked = self._info(self.replica.port).get("master_link_status") == "up"
        sentinel: Any = redis.Redis(port=self._sentinel.port)
        try:
            return linked and sentinel.sentinel_masters()[SERVICE]["num-slaves"] == 1
        finally:
            sentinel.close()

    def _info(self, port: int) -> dict[str, Any]:
        client: Any = redis.Redis(port=port, password=PASSWORD)
        try:
            return dict(client.info("replication"))
        finally:
            client.close()
