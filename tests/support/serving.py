"""A clip endpoint that really listens, in a thread of this process, over a pool with a few clips."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from nodeagent.capture.endpoint import worker
from nodeagent.contract.errors import ConfigError
from nodeagent.contract.report import Kind
from nodeagent.contract.states import State
from nodeagent.infra.board import Board, BoardCell
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.stop import Stop
from nodeagent.infra.storage import Storage, init_pool
from nodeagent.infra.worker import WorkerContext
from tests.support.eventually import eventually
from tests.support.services import free_port

__all__ = ["NODE", "OTHER_TOKEN", "TOKEN", "Serving", "T", "free_port", "serving", "settings_in"]

TOKEN, OTHER_TOKEN = "nodes-" + "t" * 32, "console-" + "o" * 32
NODE = "n2"
#: Start of the first clip, UTC ns: 2026-11-24T04:31:09Z.
T = 1_795_494_669_000_000_000


@dataclass
class Serving:
    """One endpoint, and what is behind it."""

    settings: Settings
    cell: BoardCell
    stop: Stop
    codes: list[int]
    errors: list[ConfigError]

    @property
    def storage(self) -> Storage:
        return Storage(self.settings.pools)

    @property
    def origin(self) -> str:
        assert self.settings.endpoint is not None
        return f"http://{self.settings.endpoint.listen}"

    def client(self, token: str | None = TOKEN) -> httpx.Client:
        """A client that shows this token."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=f"{self.origin}/api/v1", headers=headers, trust_env=False)


def settings_in(folder: Path, port: int, **more: Any) -> Settings:
    """A node whose endpoint listens on this port of this machine; `more` goes into `[endpoint]`."""
    tokens = [{"name": "nodes", "token": TOKEN}, {"name": "console", "token": OTHER_TOKEN}]
    return Settings.model_validate(
        {
            "node": {"node_id": NODE, "state_dir": folder / "state", "stop_timeout_s": 8.0},
            "pool": [{"path": folder / "pool", "reserve_gb": 0}],
            "endpoint": {"listen": f"127.0.0.1:{port}", "tokens": tokens, "requests_per_s": 1000.0} | more,
        }
    )


@contextmanager
def serving(folder: Path, settings: Settings, *, up: bool = True) -> Iterator[Serving]:
    """Serve until the block ends; with `up`, only from when it listens."""
    for name in ("state", "memory"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    init_pool(settings.pools[0].path)
    cell = Board.create(folder / "memory" / "board", NODE, 1, 1, cells=2).claim("endpoint", Kind.ENDPOINT)
    stop, codes, errors = Stop(), list[int](), list[ConfigError]()
    ctx = WorkerContext("endpoint", settings, cell, stop, SystemClock(), folder / "memory")
    # This process is not the endpoint's own, and has no time to lose.
    worker.NICENESS, worker.LOOK_S = 0, 0.05

    def work() -> None:
        try:
            codes.append(worker.main(ctx, ""))
        except ConfigError as exc:
            errors.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        if up:
            eventually(lambda: cell.current_state is State.RUNNING)
        yield Serving(settings, cell, stop, codes, errors)
    finally:
        stop.request()
        thread.join(20)
        assert not thread.is_alive()
