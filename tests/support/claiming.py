"""Nodes of strategy `claim` without captures: the `link` of each is a process, and the cameras in its snapshot are
those that its supervisor would have captured.

A registry lives once, as on any site: it puts the cameras into the pool and tells the nodes how they are configured.
Then it is killed for good.  A node that is stopped gives its cameras back to the pool, as an agent does.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx

from nodeagent.contract.errors import DecodeError
from nodeagent.contract.report import Kind
from nodeagent.infra.board import Board
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.incarnation import BOARD
from nodeagent.infra.ownership.grants import RedisState
from nodeagent.infra.redis import connect_redis
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.stop import Stop
from nodeagent.infra.wanted import Wanted, read_wanted
from nodeagent.infra.worker import WorkerContext
from nodeagent.supervisor.link import worker
from nodeagent.supervisor.link.catalogue import CATALOGUE
from nodeagent.supervisor.link.handoff import GRANTED, Nudges
from tests.support.cluster import RegistryServer
from tests.support.eventually import eventually
from tests.support.services import RedisServer

#: Seconds within which a link must be gone after TERM.
STOP_S = 20.0
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


def _serve(config: Path, memory_dir: Path) -> None:
    """A life of a link, until TERM."""
    stop = Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.request())
    logging.basicConfig(filename=config.with_suffix(".log"), level=logging.INFO, force=True)
    settings = load_settings(config)
    (memory_dir / "rings").mkdir(parents=True)
    board = Board.create(memory_dir / BOARD, settings.node.node_id, os.getpid(), 1, cells=8)
    cell = board.claim("link", Kind.LINK)
    # Held until the end: the supervisor's end of the pipe.
    nudges = Nudges(memory_dir)
    worker.main(WorkerContext("link", settings, cell, stop, SystemClock(), memory_dir), "")
    del nudges


class LinkNode:
    """One node, from `start` until `stop` or `kill9`, then again."""

    def __init__(self, folder: Path, node_id: str, redis_url: str, registry_url: str, token: str) -> None:
        self.node_id, self._folder, self._config = node_id, folder, folder / "agent.toml"
        self._state, self._lives = folder / "state", 0
        self._process: BaseProcess | None = None
        folder.mkdir()
        self._config.write_text(
            f'[node]\nnode_id = "{node_id}"\nstate_dir = {json.dumps(str(self._state))}\n'
            f'[redis]\nurl = "{redis_url}"\n[[models]]\nname = "m"\nfile = "m.toml"\n'
            f'[registry]\nurls = ["{registry_url}"]\ntoken = "{token}"\nstrategy = "claim"\n'
        )

    @property
    def catalogue(self) -> frozenset[str]:
        """The cameras that it knows."""
        return frozenset(self._read(CATALOGUE).grants)

    def start(self) -> None:
        """Start another life, which serves nothing yet and knows what a registry told the first one."""
        self._state.mkdir(exist_ok=True)
        (self._state / GRANTED).unlink(missing_ok=True)
        self._lives += 1
        life = self._folder / f"life-{self._lives}"
        self._process = _CONTEXT.Process(target=_serve, args=(self._config, life))
        self._process.start()

    def stop(self) -> None:
        """TERM; returns at once."""
        if self._process is not None:
            self._process.terminate()

    def gone(self) -> None:
        """Wait until it is."""
        if self._process is not None:
            self._process.join(STOP_S)
            assert self._process.exitcode == 0, f"link of {self.node_id}: {self._process.exitcode}"
            self._process = None

    def kill9(self) -> None:
        """Kill it; what it owned has its name until others take it."""
        assert self._process is not None
        self._process.kill()
        self._process.join(STOP_S)
        self._process = None

    @property
    def life(self) -> str:
        """Names this life of the node; empty: none runs."""
        return f"{self.node_id}/{self._lives}" if self._process is not None else ""

    @property
    def served(self) -> dict[str, int]:
        """The cameras of its snapshot, with their epochs."""
        return {camera_id: grant.epoch for camera_id, grant in self._read(GRANTED).grants.items()}

    def _read(self, name: str) -> Wanted:
        try:
            return read_wanted(self._state / name)
        except DecodeError:
            return Wanted(0, ())


class ClaimSite:
    """Some nodes on a Redis of their own.

    Attributes:
        nodes: all of them; none runs.
        cameras: their names; all of them in the pool.
    """

    def __init__(self, nodes: Sequence[LinkNode], cameras: Sequence[str], redis_url: str) -> None:
        self.nodes, self.cameras = nodes, sorted(cameras)
        self._client = connect_redis(redis_url)
        self._state = RedisState(self._client)

    @property
    def pool(self) -> list[str]:
        """Cameras in the task pool."""
        return sorted(self._state.pool())

    def served(self) -> dict[str, dict[str, int]]:
        """By life, what each node that lives serves, with the epochs."""
        return {node.life: node.served for node in self.nodes if node.life}

    def stop_all(self) -> None:
        """Stop every node; all cameras are in the pool again."""
        for node in self.nodes:
            node.stop()
        for node in self.nodes:
            node.gone()
        eventually(lambda: self.pool == self.cameras)

    def close(self) -> None:
        """Let go of Redis."""
        self._client.close()


@contextmanager
def claim_site(folder: Path, nodes: int, cameras: int) -> Iterator[ClaimSite]:
    """A site whose registry lived once."""
    names = [f"cam{number:02}" for number in range(cameras)]
    with ExitStack() as stack:
        folder.mkdir(parents=True)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        redis = RedisServer()
        stack.callback(redis.remove)
        redis.start()
        registry = RegistryServer(folder, "reg", redis.url, strategy="claim")
        stack.callback(registry.kill9)
        registry.start()
        made = [
            LinkNode(folder / name, name, redis.url, registry.url, registry.token(name, "--node", name))
            for name in (f"n{number}" for number in range(1, nodes + 1))
        ]
        site = ClaimSite(made, names, redis.url)
        stack.callback(site.close)
        bearer = {"Authorization": f"Bearer {registry.token('anna', '--role', 'admin')}"}
        drafts = [{"spec": {"camera_id": name, "record": {"url": "rtsp://camera.example/main"}}} for name in names]
        url = f"{registry.url}/api/v1/import"
        answer = httpx.post(url, json={"cameras": drafts}, headers=bearer, trust_env=False, timeout=20)
        assert answer.is_success, answer.text
        for node in made:
            node.start()
        eventually(lambda: all(node.catalogue == frozenset(names) for node in made), within_s=30)
        registry.kill9()
        site.stop_all()
        yield site
