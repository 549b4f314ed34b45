"""A clip's file, wherever the clip lies: on this node's pool, or fetched from the node that recorded it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nodeagent.contract.clip import ClipTask
from nodeagent.contract.errors import BadMedia
from nodeagent.infra.clip_client import ClipClient
from nodeagent.infra.storage import Storage


class ClipFiles:
    """The clips that this node can get at."""

    def __init__(self, node_id: str, storage: Storage, client: ClipClient) -> None:
        self._node_id = node_id
        self._storage = storage
        self._client = client

    @contextmanager
    def file_of(self, task: ClipTask, alive: Callable[[], None]) -> Iterator[Path]:
        """The file of a task's clip, until the block ends.

        Args:
            task: whose.
            alive: called while it is fetched.

        Raises:
            BadMedia: there is no such clip.
            Unavailable: it lies on a node that cannot be asked.
            OSError: a disk of ours refused.
        """
        # A pool that both nodes can read needs no transfer.
        stored = self._storage.find(task.clip_id, task.stream)
        if stored is not None:
            yield stored.path
        elif task.node_id == self._node_id:
            raise BadMedia("not in the storage pool")
        else:
            with self._client.fetched(task.node_id, task.clip_id, task.stream, alive) as path:
                yield path

    def close(self) -> None:
        """Close connections."""
        self._client.close()
