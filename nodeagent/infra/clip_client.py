"""Fetches clips that lie on other nodes, from their clip endpoints, into files that live as long as they are used.

A transfer that breaks goes on where it was, and ends with the length that was promised or not at all.  What a killed
process left is swept when the next one of its name starts.
"""

from __future__ import annotations

import logging
import re
import shutil
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Protocol

import httpx

from nodeagent.contract.clip import ClipId, StreamName
from nodeagent.contract.errors import BadMedia, Unavailable
from nodeagent.infra.clock import Clock
from nodeagent.infra.settings.endpoint import PeerSettings

log = logging.getLogger(__name__)

#: Longest clip that is fetched, bytes: a minute of 32 Mbit/s.  Such a file is there once for each worker.
CLIP_MOST_BYTES = 240_000_000
#: Seconds to connect, and to wait for the next bytes.
CONNECT_S, READ_S = 2.0, 5.0
#: Seconds for one clip with all its tries: behind it others wait.
FETCH_S = 20.0
#: Tries of one clip; each goes on where the one before broke.
TRIES = 5
#: Seconds between two tries, and the longest wait that a peer may ask for.
PAUSE_S, PAUSE_MOST_S = 0.2, 2.0
#: For so long a peer that did not answer is not asked again, seconds: a thousand clips of a dead node must not cost a
#: time-out each.
AWAY_S = 5.0

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node's clip endpoint."""

    url: str = field(repr=False)
    token: str = field(repr=False)
    ca_file: Path | None = None


class Peers(Protocol):
    """Who knows where the other nodes' endpoints are."""

    def peer(self, node_id: str) -> Peer | None:
        """The endpoint of this node; None when nobody told."""
        ...


class ConfiguredPeers:
    """The nodes under `[[peers]]`."""

    def __init__(self, peers: Sequence[PeerSettings]) -> None:
        self._peers = {
            peer.node_id: Peer(peer.url.get_secret_value(), peer.token.get_secret_value(), peer.ca_file)
            for peer in peers
        }

    def peer(self, node_id: str) -> Peer | None:
        """The endpoint of this node; None when it is not among them."""
        return self._peers.get(node_id)


class _Broken(Exception):
    """A try that ended early; the next one goes on after `wait_s`."""

    def __init__(self, why: str, wait_s: float = PAUSE_S) -> None:
        super().__init__(why)
        self.wait_s = min(wait_s, PAUSE_MOST_S)


@dataclass(slots=True)
class _Progress:
    """How far a clip is: bytes in the file, bytes in all, and which state of the clip they are of."""

    have: int = 0
    total: int | None = None
    etag: str = ""


class ClipClient:
    """Fetches clips, one at a time."""

    def __init__(self, peers: Peers, folder: Path, clock: Clock) -> None:
        """`folder` is this process's own: what is in it is removed."""
        self._peers = peers
        self._folder = folder
        self._clock = clock
        self._clients: dict[Peer, httpx.Client] = {}
        self._away_until_s: dict[str, float] = {}
        shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def fetched(
        self, node_id: str, clip: ClipId, stream: StreamName, alive: Callable[[], None] = lambda: None
    ) -> Iterator[Path]:
        """The clip as a file, until the block ends.

        Args:
            node_id: where it lies.
            clip, stream: which it is.
            alive: called between pieces; may raise to give up.

        Raises:
            Unavailable: the node is not known, away, busy, or does not let us in.
            BadMedia: the node has no such clip, or one that is too long.
            OSError: our own disk refused.
        """
        peer = self._peers.peer(node_id)
        if peer is None:
            raise Unavailable(f"node {node_id}, where it lies, is not known here")
        if self._clock.monotonic_s() < self._away_until_s.get(node_id, 0.0):
            raise Unavailable(f"node {node_id} does not answer")
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{clip.camera_id}_{clip.epoch}_{clip.start_ns}_{stream}.mp4"
        try:
            with path.open("wb") as file:
                self._fetch(node_id, self._client(peer), _path_of(clip, stream), file, alive)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _fetch(self, node_id: str, client: httpx.Client, path: str, file: BinaryIO, alive: Callable[[], None]) -> None:
        end_s = self._clock.monotonic_s() + FETCH_S
        progress, why = _Progress(), ""

        def on() -> None:
            alive()
            if self._clock.monotonic_s() >= end_s:
                raise Unavailable(f"node {node_id}: not done within {FETCH_S:.0f} s")

        for _ in range(TRIES):
            try:
                self._once(node_id, client, path, file, progress, on)
                return
            except _Broken as exc:
                why = str(exc)
                self._pause(exc.wait_s, on)
            except httpx.TransportError as exc:
                # Its text may hold the address.
                why = type(exc).__name__
                if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
                    self._away_until_s[node_id] = self._clock.monotonic_s() + AWAY_S
                    raise Unavailable(f"node {node_id} does not answer ({why})") from None
                self._pause(PAUSE_S, on)
        raise Unavailable(f"node {node_id}: {why}, {TRIES} times")

    def _once(
        self,
        node_id: str,
        client: httpx.Client,
        path: str,
        file: BinaryIO,
        progress: _Progress,
        on: Callable[[], None],
    ) -> None:
        """One request.

        Raises:
            _Broken: it ended early; `progress` says how far it came.
        """
        # What cannot be told from another state of the clip is begun anew.
        headers = {}
        if progress.have and progress.etag:
            headers = {"Range": f"bytes={progress.have}-", "If-Range": progress.etag}
        with client.stream("GET", path, headers=headers) as answer:
            _check(node_id, answer)
            _begin(node_id, answer, file, progress)
            # Pieces as they come: of a fixed size, the last one would be lost with a connection that breaks.
            for piece in answer.iter_raw():
                file.write(piece)
                progress.have += len(piece)
                if progress.have > CLIP_MOST_BYTES:
                    raise BadMedia(f"node {node_id}: longer than {CLIP_MOST_BYTES} bytes")
                on()
        file.flush()
        if progress.have != progress.total:
            raise _Broken(f"{progress.have} of {progress.total} bytes")

    def _pause(self, wait_s: float, on: Callable[[], None]) -> None:
        until_s = self._clock.monotonic_s() + wait_s
        while (left_s := until_s - self._clock.monotonic_s()) > 0:
            on()
            time.sleep(min(left_s, PAUSE_S))

    def _client(self, peer: Peer) -> httpx.Client:
        if peer not in self._clients:
            verify: ssl.SSLContext | bool = True
            if peer.ca_file is not None:
                try:
                    verify = ssl.create_default_context(cafile=peer.ca_file)
                except OSError as exc:
                    raise Unavailable(f"{peer.ca_file}: no certificates to trust: {exc.strerror}") from None
            headers = {"Authorization": f"Bearer {peer.token}", "Accept-Encoding": "identity"}
            timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
            # No proxy of the environment: the nodes of a site are its own network.
            self._clients[peer] = httpx.Client(
                base_url=peer.url, headers=headers, timeout=timeout, verify=verify, trust_env=False
            )
        return self._clients[peer]


def _path_of(clip: ClipId, stream: StreamName) -> str:
    return f"/api/v1/cameras/{clip.camera_id}/clips/{clip.epoch}/{clip.start_ns}.mp4?stream={stream}"


def _check(node_id: str, answer: httpx.Response) -> None:
    """Look at the status.

    Raises:
        BadMedia: it has no such clip.
        Unavailable: it does not let us in.
        _Broken: it is busy or in trouble.
    """
    status = answer.status_code
    if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return
    if status == HTTPStatus.NOT_FOUND:
        raise BadMedia(f"not on node {node_id} either")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise Unavailable(f"node {node_id} refuses the token under [[peers]]")
    asked = answer.headers.get("Retry-After", "")
    raise _Broken(f"status {status}", float(asked) if asked.isascii() and asked.isdigit() else PAUSE_S)


def _begin(node_id: str, answer: httpx.Response, file: BinaryIO, progress: _Progress) -> None:
    """Take over what the answer says of the clip, and go to where its bytes belong.

    Raises:
        BadMedia: it is too long.
        _Broken: it is not what was asked for.
    """
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    etag = answer.headers.get("ETag", "")
    if answer.status_code == HTTPStatus.PARTIAL_CONTENT:
        asked = (str(progress.have), str(progress.total), progress.etag)
        if match is None or (*match.groups(), etag) != asked:
            progress.have = 0
            raise _Broken("another part than the one asked for")
        return
    # The whole, also when only the rest was asked for: the clip is another one now.
    file.seek(0)
    file.truncate()
    length = answer.headers.get("Content-Length", "")
    progress.have, progress.etag = 0, etag
    if not (length.isascii() and length.isdigit()):
        raise _Broken("the answer does not say its length")
    progress.total = int(length)
    if progress.total > CLIP_MOST_BYTES:
        raise BadMedia(f"node {node_id}: {progress.total} bytes, expected at most {CLIP_MOST_BYTES}")
