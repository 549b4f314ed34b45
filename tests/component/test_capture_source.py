"""The thread that reads a source: it ends when it is told to, and says why when it ends by itself."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from nodeagent.capture import feed as feed_module
from nodeagent.capture.feed import Feed
from nodeagent.capture.opening import NO_ANSWER
from nodeagent.capture.source import Arrived, Ended, Event, Opened, Session
from nodeagent.contract.camera import StreamSpec
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.settings.sections import CaptureSettings
from tests.support.capturing import Bench
from tests.support.eventually import eventually
from tests.support.media import make_video
from tests.support.proxy import Proxy
from tests.support.rtsp import RtspServer, need_rtsp

#: Frames that a client of the server gets before its video stops.
FRAMES = 20


def events(session: Session, silence_s: float) -> list[Event]:
    """All that a session tells until it is over, or silent for so long."""
    session.start()
    seen: list[Event] = []
    while (event := session.get(silence_s)) is not None:
        seen.append(event)
        if isinstance(event, Ended):
            break
    return seen


def reading() -> int:
    """Threads that read a source."""
    return sum(thread.name == "source" for thread in threading.enumerate())


@pytest.mark.rtsp
def test_a_session_whose_sound_goes_on_without_video_ends_when_it_is_closed(tmp_path: Path) -> None:
    need_rtsp()
    with RtspServer({"cam": make_video(tmp_path / "a.mp4", seconds=4)}, 10, frames=FRAMES) as server:
        for _ in range(2):
            session = Session(StreamSpec(url=server.url("cam")), 1.0, SystemClock())
            seen = events(session, silence_s=1.5)
            session.close()
            # The session was silent, not over: sound went on.
            assert not any(isinstance(event, Ended) for event in seen), seen[-1]
            assert sum(isinstance(event, Arrived) for event in seen) >= FRAMES // 2
        eventually(lambda: reading() == 0, within_s=5)


@pytest.mark.parametrize("answer", [b"", b"220 mail.example ESMTP\r\n"], ids=["closes", "speaks-smtp"])
def test_a_server_that_does_not_answer_as_a_camera_is_a_source_that_is_down(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    client.recv(1)
                    client.sendall(answer)
                    client.close()

        threading.Thread(target=serve, daemon=True).start()
        url = f"rtsp://user:secret@127.0.0.1:{server.getsockname()[1]}/main"
        session = Session(StreamSpec(url=url), 2.0, SystemClock())
        (end,) = events(session, silence_s=15.0)
        session.close()
        server.shutdown(socket.SHUT_RDWR)
    assert end == Ended(State.SOURCE_DOWN, NO_ANSWER)


def test_a_codec_that_ffmpeg_does_not_know_is_a_bad_stream(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=1)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))
    session = Session(StreamSpec(url=str(path)), 2.0, SystemClock())
    seen = events(session, silence_s=10.0)
    session.close()
    assert seen == [Ended(State.BAD_STREAM, "FFmpeg knows no decoder for this video")]


class BrokenClock(SystemClock):
    """A fault that nobody thought of, in the reading thread."""

    def wall_ns(self) -> int:
        raise RuntimeError("broken")


def test_a_fault_of_the_reading_thread_is_told_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=1)
    session = Session(StreamSpec(url=str(path)), 2.0, BrokenClock())
    seen = events(session, silence_s=10.0)
    session.close()
    assert seen[-1] == Ended(State.BAD_STREAM, "internal error, see the log")
    assert "RuntimeError: broken" in caplog.text


@pytest.mark.rtsp
def test_the_first_frame_of_an_rtsp_session_stands_a_frame_before_the_second(tmp_path: Path) -> None:
    need_rtsp()
    with RtspServer({"cam": make_video(tmp_path / "a.mp4", seconds=4)}, 10, frames=FRAMES) as server:
        session = Session(StreamSpec(url=server.url("cam")), 2.0, SystemClock())
        seen = [event for event in events(session, silence_s=1.0) if isinstance(event, Arrived)]
        session.close()
    assert seen[0].packet.pts is None
    assert seen[1].arrival_ns - seen[0].arrival_ns == NS_PER_S // 10


class FastClock(SystemClock):
    """Five minutes pass in a second."""

    def monotonic_s(self) -> float:
        return super().monotonic_s() * 300


@pytest.mark.rtsp
def test_a_camera_that_sends_no_more_key_frames_is_opened_anew(tmp_path: Path) -> None:
    need_rtsp()
    with RtspServer({"cam": make_video(tmp_path / "a.mp4", gop=100, seconds=10)}, 10) as server:
        session = Session(StreamSpec(url=server.url("cam")), 2.0, FastClock())
        seen = events(session, silence_s=5.0)
        session.close()
    assert isinstance(seen[-1], Ended)
    assert seen[-1].state is State.BAD_STREAM
    assert seen[-1].detail.startswith("no key frame for 3")
    assert sum(isinstance(event, Arrived) for event in seen) >= 5


class TurnedClock(SystemClock):
    """A wall clock that is set back by hand."""

    back_ns = 0

    def wall_ns(self) -> int:
        return super().wall_ns() - self.back_ns


def test_a_file_keeps_its_pace_when_the_wall_clock_is_set_back(tmp_path: Path) -> None:
    path, clock = make_video(tmp_path / "a.mp4", seconds=2), TurnedClock()
    session = Session(StreamSpec(url=str(path), loop=True), 2.0, clock)
    session.start()
    assert isinstance(session.get(10.0), Opened)
    clock.back_ns = 3600 * NS_PER_S
    for _ in range(5):
        event = session.get(2.0)
        assert isinstance(event, Arrived)
    assert abs(event.arrival_ns - clock.wall_ns()) < NS_PER_S
    session.close()


@pytest.mark.rtsp
def test_a_source_is_not_opened_anew_while_reads_of_it_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_rtsp()
    monkeypatch.setattr(feed_module, "LEFT_MOST", 1)
    bench = Bench(tmp_path)
    settings = CaptureSettings(stall_timeout_s=0.5, reconnect_min_s=0.05, reconnect_max_s=0.1)
    video = make_video(tmp_path / "a.mp4", seconds=4)
    with RtspServer({"cam": video}, 10) as server, Proxy(server.port) as proxy:
        spec = StreamSpec(url=server.url("cam").replace(str(server.port), str(proxy.port)))
        feed = Feed(("gate-1", "record"), spec, bench.recorder, settings, SystemClock())

        def records() -> bool:
            feed.step()
            return bench.recorder.recording

        eventually(records, within_s=20)
        proxy.stall()
        eventually(lambda: not records(), within_s=10)
        until_s = time.monotonic() + 1.5
        while time.monotonic() < until_s:
            records()
            assert reading() == 1
            time.sleep(0.02)
        assert feed.row[0] is State.STALLED
        proxy.heal()
        eventually(records, within_s=20)
        feed.close()
    eventually(lambda: reading() == 0, within_s=15)
