"""The clip endpoint over real sockets: clients that behave, clients that do not, and FFmpeg as a player."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from nodeagent.capture.endpoint.moments import iso
from nodeagent.capture.endpoint.recordings import Recordings
from nodeagent.contract.clip import ClipId, part_file_name
from nodeagent.infra.clip_folders import StoredClip
from nodeagent.infra.gaps import Gap, GapReason, append_gap
from tests.support.clip_files import cut_clips
from tests.support.eventually import eventually
from tests.support.media import make_video, read_counter
from tests.support.serving import OTHER_TOKEN, TOKEN, Serving, T, free_port, serving, settings_in

S = 1_000_000_000
#: The third clip comes after a gap of 30 s.
STARTS = (T, T + 3 * S, T + 36 * S)
RANGE = {"from": str(T), "to": str(T + 60 * S)}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("video") / "source.mp4", seconds=9)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, video: Path) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("node")
    with serving(folder, settings_in(folder, free_port())) as running:
        cut_clips(running.storage, video, STARTS)
        gap = Gap(from_ns=T + 6 * S, to_ns=T + 36 * S, reason=GapReason.STALLED, detail="no packet")
        append_gap(running.settings.node.state_dir, "gate", gap)
        yield running


@pytest.fixture
def http(served: Serving) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


@pytest.fixture
def clip(served: Serving) -> StoredClip:
    found = served.storage.find(ClipId(camera_id="gate", epoch=7, start_ns=T))
    assert found is not None
    return found


def address(clip: StoredClip, ending: str = "mp4") -> str:
    return f"/cameras/gate/clips/{clip.clip.epoch}/{clip.clip.start_ns}.{ending}"


def test_health_needs_no_token_and_all_else_does(served: Serving, http: httpx.Client) -> None:
    with served.client(token=None) as stranger, served.client(token="x" * 40) as guesser:
        assert stranger.get("/health").json() == {"status": "ok"}
        for path in ("/cameras", "/cameras/gate/clips", "/cameras/gate/gaps", f"/cameras/gate/clips/7/{T}.mp4"):
            refused = stranger.get(path, params=RANGE)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert guesser.get("/health").status_code == 401
    with served.client(OTHER_TOKEN) as other:
        answer = other.get("/cameras").json()
        assert answer["node_id"] == "n2"
        assert {"camera_id": "gate", "wanted": False} in answer["cameras"]
    assert http.get("/cameras").headers["cache-control"] == "private, no-store"
    assert http.get("/docs").status_code == http.get("/openapi.json").status_code == 404


def test_clips_are_listed_in_pages(http: httpx.Client) -> None:
    page = http.get("/cameras/gate/clips", params=RANGE | {"limit": "2"}).json()
    assert [row["start_ns"] for row in page["clips"]] == [T, T + 3 * S]
    rest = http.get(page["next"].removeprefix("/api/v1")).json()
    assert [row["start_ns"] for row in rest["clips"]] == [T + 36 * S]
    assert rest["next"] is None
    row = page["clips"][0]
    body = http.get(row["url"].removeprefix("/api/v1")).content
    assert (len(body), row["duration_ns"], row["epoch"]) == (row["bytes"], 3 * S, 7)
    local = {"from": "2026-11-24T12:31:12+08:00", "to": "2026-11-24T12:31:14+08:00"}
    assert [r["start_ns"] for r in http.get("/cameras/gate/clips", params=local).json()["clips"]] == [T + 3 * S]
    assert http.get("/cameras/gate/clips", params=RANGE | {"stream": "analyse"}).json()["clips"] == []


def test_timeline_and_gaps_say_the_same(http: httpx.Client) -> None:
    gap = {"from_ns": T + 6 * S, "to_ns": T + 36 * S, "reason": "stalled", "detail": "no packet"}
    assert http.get("/cameras/gate/gaps", params=RANGE).json() == {"gaps": [gap]}
    assert http.get("/cameras/gate/timeline", params=RANGE).json() == {
        "recorded": [{"from_ns": T, "to_ns": T + 6 * S}, {"from_ns": T + 36 * S, "to_ns": T + 39 * S}],
        "gaps": [gap],
    }


def test_a_clip_comes_byte_for_byte_in_whole_and_in_parts(http: httpx.Client, clip: StoredClip) -> None:
    whole = clip.path.read_bytes()
    full = http.get(address(clip))
    assert (full.status_code, full.content, full.headers["accept-ranges"]) == (200, whole, "bytes")
    head = http.head(address(clip))
    assert (head.content, int(head.headers["content-length"])) == (b"", len(whole))
    tag, modified = full.headers["etag"], full.headers["last-modified"]
    part = http.get(address(clip), headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole)}"
    for condition, status in ((tag, 206), (modified, 206), ('"other"', 200)):
        assert http.get(address(clip), headers={"Range": "bytes=0-9", "If-Range": condition}).status_code == status
    beyond = http.get(address(clip), headers={"Range": f"bytes={len(whole)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(whole)}")
    for headers in ({"If-None-Match": tag}, {"If-Modified-Since": modified}):
        kept = http.get(address(clip), headers=headers)
        assert (kept.status_code, kept.content) == (304, b"")


def test_a_clip_is_only_found_by_an_identity_that_is_one(served: Serving, http: httpx.Client) -> None:
    growing = ClipId(camera_id="gate", epoch=7, start_ns=T + 50 * S)
    part = served.storage.folder_for("gate", growing.start_ns) / part_file_name(growing)
    part.write_bytes(b"grows")
    secret = served.settings.node.state_dir / "wanted.json"
    secret.write_text("{}")
    for path, status in (
        (f"/cameras/gate/clips/7/{growing.start_ns}.mp4", 404),
        (f"/cameras/gate/clips/8/{T}.mp4", 404),
        (f"/cameras/nobody/clips?from={T}&to={T + S}", 404),
        (f"/cameras/gate/clips/7/{part.stem}.mp4", 400),
        (f"/cameras/gate/clips/0/{T}.mp4", 400),
        (f"/cameras/.hidden/clips/7/{T}.mp4", 400),
        ("/cameras/..%2F..%2Fstate/clips/7/wanted.json.mp4", 404),
        ("/cameras/gate/clips/7/%2E%2E%2Fwanted.json.mp4", 404),
        (f"/cameras/{'x' * 64}/clips/7/{T}.mp4", 400),
        ("/%2E%2E/%2E%2E/etc/passwd", 404),
        ("/cameras/", 404),
    ):
        answer = http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), path
    part.unlink()


def test_a_bad_request_names_every_field_and_what_was_expected(http: httpx.Client) -> None:
    answer = http.get("/cameras/gate/clips", params={"from": "yesterday", "limit": "many", "stream": "third"}).json()
    faults = {fault["field"]: fault["message"] for fault in answer["faults"]}
    assert "ISO 8601" in faults["from"] and "whole number" in faults["limit"] and "'record'" in faults["stream"]
    for params, field in (
        ({"from": RANGE["from"]}, "to"),
        ({"to": RANGE["to"]}, "from"),
        ({"from": RANGE["to"], "to": RANGE["from"]}, "to"),
        ({"from": "2020-01-01T00:00:00Z", "to": RANGE["to"]}, "to"),
    ):
        refused = http.get("/cameras/gate/timeline", params=params)
        assert (refused.status_code, refused.json()["faults"][0]["field"]) == (400, field)
    day = {"from": RANGE["from"], "to": str(T + 25 * 3600 * S)}
    assert http.get("/cameras/gate/playlist.m3u8", params=day).json()["faults"][0]["field"] == "to"
    assert http.post("/cameras/gate/links", params=RANGE | {"valid_s": "1"}).status_code == 400


def frames_over_http(url: str) -> list[tuple[float, int]]:
    """Time and counter of each frame that FFmpeg plays from a playlist."""
    with av.open(url) as source:
        stream = source.streams.video[0]
        assert stream.time_base is not None
        return [
            (float((frame.pts or 0) * stream.time_base), read_counter(frame.to_ndarray(format="gray")))
            for frame in source.decode(stream)
        ]


def test_ffmpeg_plays_every_frame_of_a_link_at_its_capture_time(served: Serving, http: httpx.Client) -> None:
    link = http.post("/cameras/gate/links", params=RANGE | {"valid_s": "60"}).json()
    played = frames_over_http(served.origin + link["playlist"])
    assert [number for _, number in played] == list(range(90))
    wanted = [start / S + i / 10 for start in STARTS for i in range(30)]
    assert max(abs(at - want) for (at, _), want in zip(played, wanted, strict=True)) < 0.001


def test_a_link_shows_its_own_range_and_nothing_else(
    served: Serving, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    few = {"from": iso(T), "to": iso(T + 3 * S)}
    link = http.post("/cameras/gate/links", params=few).json()
    with served.client(token=None) as player:
        text = player.get(link["playlist"].removeprefix("/api/v1")).text
        (segment,) = [line for line in text.splitlines() if line.startswith("clips/")]
        assert player.get(f"/cameras/gate/{segment}").status_code == 200
        query = segment.partition("?")[2]
        assert player.get(f"/cameras/gate/clips/7/{T}.mp4?{query}").status_code == 200
        for path, status in (
            (f"/cameras/gate/clips/7/{T + 3 * S}.m4s?{query}", 403),
            (f"/cameras/door/clips/7/{T}.mp4?{query}", 403),
            (f"/cameras/gate/clips/7/{T}.mp4?{query.replace('expires=1', 'expires=2')}", 403),
            (f"/cameras/gate/clips/7/{T}.mp4?{query.replace('record', 'analyse')}", 403),
            (f"/cameras/gate/clips/7/{T}.mp4?{query[:-1]}", 403),
            (f"/cameras/gate/clips/7/{T}.mp4?{query[:-1]}%C3%A4", 403),
            (f"/cameras/gate/clips?{query}", 401),
        ):
            assert player.get(path).status_code == status, path
    secrets = (TOKEN, query.rpartition("=")[2])
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("nodeagent")]
    assert any("by link of nodes: 200" in line for line in lines)
    assert not [line for line in lines if any(secret in line for secret in secrets)]


def test_a_playlist_without_an_end_grows(served: Serving, http: httpx.Client, video: Path) -> None:
    now_ns = time.time_ns()
    cut_clips(served.storage, video, [now_ns - 20 * S], camera_id="live")
    link = http.post("/cameras/live/links", params={"from": str(now_ns - 60 * S)}).json()
    with served.client(token=None) as player:
        path = link["playlist"].removeprefix("/api/v1")
        before = player.get(path).text
        cut_clips(served.storage, video, [now_ns - 17 * S], camera_id="live")
        after = player.get(path).text
    assert "EVENT" in before and "ENDLIST" not in before
    assert after.startswith(before) and after.count(".m4s") == 2


def test_playlists_are_bounded_and_take_no_place_of_a_clip(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, waiting, found = threading.Event(), threading.Event(), Recordings.clips

    def slow(self: Recordings, *asked: Any) -> Iterator[StoredClip]:
        waiting.set()
        goes_on.wait()
        return found(self, *asked)

    monkeypatch.setattr(Recordings, "clips", slow)
    with serving(tmp_path, settings_in(tmp_path, free_port(), transfers=1)) as node, node.client() as client:
        (stored,) = cut_clips(node.storage, video, [T])
        texts: list[str] = []

        def ask() -> None:
            with node.client() as other:
                texts.append(other.get("/cameras/gate/playlist.m3u8", params=RANGE, timeout=60).text)

        first = threading.Thread(target=ask)
        first.start()
        assert waiting.wait(20)
        assert client.get("/cameras/gate/playlist.m3u8", params=RANGE).status_code == 429
        assert client.get(address(stored)).status_code == 200
        goes_on.set()
        first.join(20)
        assert texts[0].count(".m4s") == 1
        # A place is free a moment after the answer is there.
        for camera, status in (("nobody", 404), ("gate", 200), ("nobody", 404)):
            path = f"/cameras/{camera}/playlist.m3u8"
            eventually(lambda path=path, status=status: client.get(path, params=RANGE).status_code == status)


def test_a_clip_that_retention_takes_is_sent_to_its_end(served: Serving, http: httpx.Client, video: Path) -> None:
    (stored,) = cut_clips(served.storage, video, [T + 7200 * S])
    whole = stored.path.read_bytes()
    with http.stream("GET", address(stored)) as answer:
        stored.path.unlink()
        assert answer.read() == whole
    assert http.get(address(stored)).status_code == 404


def test_a_disk_that_fails_while_a_clip_is_sent_ends_the_transfer_and_is_told_in_its_line(
    served: Serving,
    http: httpx.Client,
    clip: StoredClip,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_fd: int, _size: int, _at: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    caplog.set_level(logging.INFO)
    monkeypatch.setattr("nodeagent.capture.endpoint.transfer.os.pread", broken)
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(address(clip))
    eventually(lambda: "(the disk does not answer: Input/output error)" in caplog.text)
    assert "Traceback" not in caplog.text
    assert http.get("/health").status_code == 200


def test_a_file_that_is_no_clip_is_told_and_ends_nothing(served: Serving, http: httpx.Client, video: Path) -> None:
    (stored,) = cut_clips(served.storage, video, [T + 10800 * S])
    stored.path.write_bytes(b"\0\0\0\x10moov" + b"x" * 50)
    broken = http.get(address(stored, "m4s"))
    assert (broken.status_code, "clip gate/7/" in broken.json()["detail"]) == (500, True)
    assert http.get("/health").status_code == 200
    stored.path.unlink()


def test_health_is_told_while_everybody_waits_for_a_disk(
    served: Serving, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, waiting = threading.Event(), list[int]()

    def hangs(_self: Recordings) -> dict[str, bool]:
        waiting.append(1)
        answers.wait()
        return {}

    monkeypatch.setattr(Recordings, "cameras", hangs)
    assert served.settings.endpoint is not None
    get = f"GET /api/v1/cameras HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    with ExitStack() as stack:
        stack.callback(answers.set)
        for _ in range(60):
            slow = stack.enter_context(socket.create_connection(served.settings.endpoint.address))
            slow.sendall(get.encode())
        eventually(lambda: len(waiting) >= 40)
        assert http.get("/health", timeout=10).status_code == 200
