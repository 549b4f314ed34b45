"""A registry of a few lines that answers agents by the contract, on a real Redis, and does as a test says."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from nodeagent.contract.camera import REVEAL, CameraSpec
from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ownership import AgentReport, Owner, ReportAnswer
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.ownership.grants import RedisState
from nodeagent.infra.ownership.leader import RedisLeader
from nodeagent.infra.redis import connect_redis

TOKEN = "n1." + "t" * 40


def camera(camera_id: str, url: str = "a.mp4", **more: Any) -> CameraSpec:
    """A camera of this name."""
    return CameraSpec.model_validate({"camera_id": camera_id, "record": {"url": url}, **more})


class Registry:
    """The registry.  It leads until somebody else does.

    Attributes:
        reports: all that it was told, oldest first.
        asked: paths that it was asked for, oldest first.
        cameras: configurations, and their versions.
        unseen: cameras that whoever owns them does not capture yet.
        in_memory: owners that it knows itself, when it keeps nothing in Redis.
        refusal: status and body that it answers with instead; none: it answers.
        clock_off_ns: how far its clock is ahead.
    """

    def __init__(self, redis_url: str) -> None:
        client = connect_redis(redis_url)
        self.state = RedisState(client)
        self._leader = RedisLeader(client)
        self._begin_term()
        self.reports: list[AgentReport] = []
        self.asked: list[str] = []
        self.cameras: dict[str, tuple[CameraSpec, int]] = {}
        self.unseen: frozenset[str] = frozenset()
        self.in_memory: dict[str, Owner] | None = None
        self.refusal: tuple[int, bytes] | None = None
        self.clock_off_ns = 0
        self._version = 1
        self._closed = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def _begin_term(self) -> None:
        term = self._leader.acquire("r1", ttl_ms=600_000)
        assert term is not None
        self.term = term

    def __enter__(self) -> Registry:
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Answer nobody any more."""
        # Also those that are connected already.
        self._closed = True
        self._server.shutdown()
        self._server.server_close()

    def configure(self, spec: CameraSpec) -> None:
        """Add or change a camera."""
        before = self.cameras.get(spec.camera_id)
        self.cameras[spec.camera_id] = (spec, before[1] + 1 if before else 1)
        self._version += 1

    def grant(self, camera_id: str, node_id: str = "n1", incarnation: str = "") -> Owner:
        """Make a node the owner, as the leader does; without an incarnation the one that reported last."""
        life = incarnation or next(r.incarnation for r in reversed(self.reports) if r.report.node_id == node_id)
        return self.state.grant(self.term, camera_id, node_id, life)

    def remove(self, camera_id: str) -> None:
        """Delete a camera."""
        del self.cameras[camera_id]
        self._version += 1
        self.state.forget(self.term, camera_id)

    @property
    def last(self) -> AgentReport:
        """The newest report."""
        assert self.reports, "no report yet"
        return self.reports[-1]

    def respond(self, method: str, target: str, authorization: str, body: bytes) -> tuple[int, bytes] | None:
        """Status and body of an answer; none: the connection ends without one."""
        if self._closed:
            return None
        url = urlsplit(target)
        self.asked.append(url.path)
        if self.refusal is not None:
            return self.refusal
        if authorization != f"Bearer {TOKEN}":
            return 401, b'{"detail": "this token is not known"}'
        found = self.answer(method, url.path, parse_qs(url.query), body)
        return (404, b'{"detail": "Not Found"}') if found is None else (200, json.dumps(found).encode())

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> Any:
        """The document that answers a request; none: there is no such thing."""
        parts = path.removeprefix("/api/v1/").split("/")
        match method, parts:
            case "POST", ["nodes", node_id, "report"]:
                report = AgentReport.model_validate_json(body)
                assert report.report.node_id == node_id
                self.reports.append(report)
                now_ns = SystemClock().wall_ns() + self.clock_off_ns
                answer = ReportAnswer(
                    registry_id="r1", now_ns=now_ns, cameras_version=self._version, captured=self._captured(report)
                )
                return answer.model_dump(mode="json")
            case "GET", ["nodes", node_id, "cameras"]:
                life = query["incarnation"][0]
                known = (self.in_memory or {}).items()
                owned = {c: o for c, o in known if (o.node_id, o.incarnation) == (node_id, life)}
                owned |= self.state.owned_by(node_id, life)
                epochs = {name: owner.epoch for name, owner in owned.items()}
                if query["strategy"] == ["claim"]:
                    epochs = dict.fromkeys(self.cameras, 0) | epochs
                return [self._row(name, epoch) for name, epoch in epochs.items() if name in self.cameras]
            case "GET", ["cameras", camera_id, "owner"]:
                owner = self._owners().get(camera_id)
                return {"known": camera_id in self.cameras, "owner": owner and owner.model_dump(mode="json")}
        return None

    def _owners(self) -> dict[str, Owner]:
        statuses = self.state.statuses().items()
        live = {name: status.owner for name, status in statuses if status.owner and status.phase == "owned"}
        return {**(self.in_memory or {}), **live}

    def _captured(self, report: AgentReport) -> dict[str, Owner]:
        try:
            owners, life = self._owners(), (report.report.node_id, report.incarnation)
        except Unavailable:
            return {}
        held = (hold.camera_id for hold in report.holds)
        others = {c: owners[c] for c in held if c in owners and (owners[c].node_id, owners[c].incarnation) != life}
        return {c: owner for c, owner in others.items() if c not in self.unseen}

    def _row(self, camera_id: str, epoch: int) -> dict[str, Any]:
        spec, version = self.cameras[camera_id]
        return {"camera": spec.model_dump(mode="json", context=REVEAL), "version": version, "epoch": epoch}


def _handler_of(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def _serve(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = registry.respond(method, self.path, self.headers["Authorization"], body)
            if found is None:
                self.close_connection = True
                return
            self.send_response(found[0])
            self.send_header("Content-Length", str(len(found[1])))
            self.end_headers()
            self.wfile.write(found[1])

        def log_message(self, *_: object) -> None:
            pass

    return Handler
