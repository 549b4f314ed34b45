"""Each kind of source that is supported, from a real server into clips that decode."""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import av
import pytest

from nodeagent.capture.opening import KINDS, NO_UDP, STATE_OF, cause_of
from nodeagent.capture.sound import Heard
from nodeagent.capture.source import Arrived, Ended, Opened, Session
from nodeagent.contract.camera import SCHEMES, StreamSpec
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.gaps import GapReason
from tests.component.test_clip_client import certificate
from tests.support.capturing import Bench
from tests.support.media import count_frames, make_video
from tests.support.rtsp import RtspServer, need_rtsp
from tests.support.silent_rtsp import SilentCamera
from tests.support.streaming import HttpCamera, RtmpCamera, Sink, mux

#: What a file without sound is said to have of it.
NO_SOUND_S = -1000.0
#: Frames that are taken of each source, at ten a second.
FRAMES = 25


def test_there_is_a_row_for_each_scheme_that_a_camera_may_have() -> None:
    assert set(KINDS) == set(SCHEMES)


def video_s(path: Path) -> float:
    """Where the last frame of a file begins, seconds."""
    with av.open(str(path)) as file:
        return max(float(p.pts * p.time_base) for p in file.demux(video=0) if p.pts is not None)


def sound_s(path: Path) -> float:
    """Where its last packet of sound ends; all of it is decoded."""
    with av.open(str(path)) as file:
        if not file.streams.audio:
            return NO_SOUND_S
        return max(float(frame.pts * frame.time_base + frame.samples / frame.rate) for frame in file.decode(audio=0))


@dataclass
class Taken:
    """What came of one source."""

    bench: Bench
    codec: str = ""
    ended: Ended | None = None

    def clips(self) -> list[list[int]]:
        """Counters of the frames of its clips; raises when one does not decode."""
        return [count_frames(clip.path) for clip in self.bench.clips()]


def take(taken: Taken, spec: StreamSpec, frames: int = FRAMES, stall_s: float = 4.0) -> None:
    """Record so many frames."""
    session = Session(spec, stall_s, SystemClock(), pace=not spec.is_file)
    session.start()
    while frames:
        match event := session.get(20.0):
            case Opened(stream, sound):
                taken.codec = stream.codec_context.name
                taken.bench.recorder.begin_session(stream, sound)
            case Heard():
                taken.bench.recorder.hear(event)
            case Arrived():
                taken.bench.recorder.feed(event)
                frames -= 1
            case Ended():
                taken.ended = event
                break
            case None:
                taken.ended = Ended(State.STALLED, "nothing came")
                break
    taken.bench.recorder.end_session(GapReason.SOURCE_DOWN, "")
    taken.bench.settle()
    session.close()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three seconds in each codec."""
    folder = tmp_path_factory.mktemp("videos")
    return {
        "h264": make_video(folder / "h264.mp4", seconds=3, sound="aac"),
        "hevc": make_video(folder / "hevc.mp4", seconds=3, codec="libx265", sound="aac"),
        "mjpeg": make_video(folder / "mjpeg.mov", seconds=3, codec="mjpeg"),
    }


@pytest.fixture
def camera(videos: dict[str, Path]) -> Iterator[HttpCamera]:
    """All that comes over HTTP."""
    with HttpCamera("admin", "p@ss") as camera:
        for codec, form in itertools.product(("h264", "hevc"), ("flv", "mpegts", "mp4")):
            camera.files[f"{codec}.{form}"] = videos[codec], form
        camera.files["mjpeg"] = videos["mjpeg"], "mjpeg"
        camera.add_hls("live.m3u8", videos["h264"])
        # Only what comes tells that it is a playlist.
        camera.add_hls("stream", videos["h264"])
        yield camera


@pytest.mark.rtsp
def test_every_kind_of_source_is_recorded(tmp_path: Path, videos: dict[str, Path], camera: HttpCamera) -> None:
    need_rtsp()
    with ExitStack() as stack:
        rtsp = stack.enter_context(RtspServer(dict(videos.items()), 10, sound="aac"))
        sources = {f"rtsp-{name}-{way}": (rtsp.url(name), way) for name in videos for way in ("tcp", "udp")}
        opus = stack.enter_context(RtspServer({"cam": videos["h264"]}, 10, sound="opus"))
        sources["rtsp-opus"] = opus.url("cam"), "tcp"
        sources["rtmp-h264"] = stack.enter_context(RtmpCamera(videos["h264"])).url, "tcp"
        sources |= {f"http-{name}": (camera.url(name), "tcp") for name in (*camera.files, *camera.playlists)}
        taken = {name: Taken(Bench(tmp_path / name, sample_width=160)) for name in sources}
        threads = [
            threading.Thread(target=take, args=(taken[name], StreamSpec.model_validate({"url": url, "transport": way})))
            for name, (url, way) in sources.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    for name, one in taken.items():
        assert one.ended is None, (name, one.ended)
        assert one.codec in (*videos, ""), name
        numbers = list(itertools.chain(*one.clips()))
        # Nothing was lost on the way.  Who comes to RTSP second comes in the middle of a GOP.
        assert FRAMES - 10 * name.startswith("rtsp") <= len(numbers) <= FRAMES, name
        assert all((b - a) % 30 == 1 for a, b in itertools.pairwise(numbers)), (name, numbers)
        tasks = one.bench.tasks()
        times = [time_ns for task in tasks for time_ns in task.sample_ns]
        assert len(times) >= len(numbers) // 2 - 2, name
        # The times of MJPEG over HTTP are those of its arrival: a busy machine is late.
        least_s, most_s = (0.0, 1.5) if name == "http-mjpeg" else (0.05, 0.6)
        steps_s = [(b - a) / NS_PER_S for a, b in itertools.pairwise(times)]
        assert all(least_s < step_s < most_s for step_s in steps_s), (name, steps_s)
        assert abs(sum(task.duration_ns for task in tasks) / NS_PER_S - len(numbers) / 10) < 0.7, name
        assert one.bench.counts["decode_errors"] == 0, name
        # The picture's sound, where the source has some, from the first clip on.
        assert one.bench.recorder.sound.dropped == "", name
        for clip in one.bench.clips():
            gap_s = sound_s(clip.path) - video_s(clip.path)
            assert (name == "http-mjpeg") if gap_s < -1 else -0.8 < gap_s < 0.1, (name, gap_s)


def transport_stream(path: Path) -> bytes:
    """A file as MPEG-TS."""
    whole = io.BytesIO()
    mux(path, "mpegts", Sink(whole.write), pace=False, rounds=1)
    return whole.getvalue()


CASES = [
    ("a password that is refused", (401, [], b""), State.AUTH_FAILED, "401"),
    ("a user without rights", (403, [], b""), State.AUTH_FAILED, "403"),
    ("a path that is none", (404, [], b""), State.SOURCE_DOWN, "404"),
    ("a server that fails", (503, [], b""), State.SOURCE_DOWN, "5XX"),
    ("a web page", (200, [], b"<html>hello</html>" * 500), State.BAD_STREAM, "Invalid data"),
    ("a redirect to a file", (302, [("Location", "file://{file}")], b""), State.BAD_STREAM, "not opened"),
    ("a script that names a file", (200, [], b"ffconcat version 1.0\nfile {file}\n"), State.BAD_STREAM, "not opened"),
    (
        "a playlist that names a file",
        (200, [], b"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\nfile://{file}\n"),
        State.BAD_STREAM,
        "Invalid data",
    ),
]


@pytest.mark.parametrize(("what", "answer", "state", "detail"), CASES, ids=[what for what, *_ in CASES])
def test_what_a_source_over_http_answers_is_a_state(
    videos: dict[str, Path],
    tmp_path: Path,
    what: str,
    answer: tuple[int, list[tuple[str, str]], bytes],
    state: State,
    detail: str,
) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(transport_stream(videos["h264"]))
    status, headers, body = answer
    with HttpCamera() as camera:
        headers = [(key, value.replace("{file}", str(secret))) for key, value in headers]
        camera.answers["live"] = status, headers, body.replace(b"{file}", str(secret).encode())
        camera.user = "admin:hunter2"
        taken = Taken(Bench(tmp_path / "bench"))
        take(taken, StreamSpec.model_validate({"url": camera.url("live", password="hunter2")}))
    assert taken.ended is not None
    assert taken.ended.state is state, taken.ended
    assert detail in taken.ended.detail
    assert "hunter2" not in taken.ended.detail
    assert not taken.bench.files()


def test_a_camera_that_signed_its_certificate_itself_is_recorded_over_tls(
    tmp_path: Path, videos: dict[str, Path]
) -> None:
    with HttpCamera("admin", "p@ss", certificate(tmp_path)) as camera:
        camera.files["live.flv"] = videos["h264"], "flv"
        taken = Taken(Bench(tmp_path / "bench"))
        take(taken, StreamSpec.model_validate({"url": camera.url("live.flv")}), frames=5)
        assert camera.url("live.flv").startswith("https://")
    assert taken.ended is None
    assert taken.clips() == [list(range(5))]


@pytest.mark.parametrize("name", ["video.mp4", "ended.m3u8"])
def test_a_recording_over_http_is_no_live_source(tmp_path: Path, videos: dict[str, Path], name: str) -> None:
    with HttpCamera() as camera:
        camera.answers["video.mp4"] = 200, [], videos["h264"].read_bytes()
        playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nvideo.ts\n#EXT-X-ENDLIST\n"
        camera.answers["ended.m3u8"] = 200, [], playlist
        camera.answers["video.ts"] = 200, [], transport_stream(videos["h264"])
        taken = Taken(Bench(tmp_path))
        take(taken, StreamSpec.model_validate({"url": camera.url(name)}))
    assert taken.ended is not None
    assert taken.ended.state is State.SOURCE_DOWN
    assert "not a live stream" in taken.ended.detail


def flv(path: Path) -> bytes:
    """A file as a stream of FLV."""
    whole = io.BytesIO()
    mux(path, "flv", Sink(whole.write), pace=False, rounds=1)
    return whole.getvalue()


def test_a_new_header_inside_a_stream_begins_a_clip_of_its_size(tmp_path: Path) -> None:
    # With sound, as FFmpeg waits seconds for it before it opens a stream of FLV that has none.
    small = make_video(tmp_path / "small.mp4", seconds=2, sound="aac")
    large = make_video(tmp_path / "large.mp4", seconds=2, width=640, height=360, sound="aac")
    bench = Bench(tmp_path / "bench", sample_width=640)
    with HttpCamera() as camera:
        # The second without the file's header of nine bytes, and the size of no tag before it.
        camera.answers["changing.flv"] = 200, [], flv(small), flv(large)[13:]
        take(Taken(bench), StreamSpec.model_validate({"url": camera.url("changing.flv")}), frames=40)
    shapes, numbers = [], []
    for stored, task in zip(bench.clips(), bench.tasks(), strict=True):
        with av.open(str(stored.path)) as clip:
            shapes.append((clip.streams.video[0].width, clip.streams.video[0].height, task.sample_width))
        numbers += count_frames(stored.path)
    assert shapes == [(320, 240, 320), (640, 360, 640)]
    # The very last frame of a connection may be torn, so it is left out.
    assert numbers == [*range(20), *range(19)]


def test_a_size_that_changes_in_hls_begins_a_clip(tmp_path: Path, videos: dict[str, Path]) -> None:
    large = make_video(tmp_path / "large.mp4", seconds=2, width=640, height=360, sound="aac")
    small = make_video(tmp_path / "small.mp4", seconds=2, sound="aac")
    with HttpCamera() as camera:
        camera.add_hls("live.m3u8", small, large)
        taken = Taken(Bench(tmp_path / "bench", sample_width=640))
        take(taken, StreamSpec.model_validate({"url": camera.url("live.m3u8")}), frames=35)
    assert taken.ended is None
    widths = [task.sample_width for task in taken.bench.tasks()]
    assert {320, 640} <= set(widths)
    assert sum(map(len, taken.clips())) == 35


def test_a_camera_whose_packets_a_firewall_drops_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodeagent.capture.opening.OPEN_TIMEOUT_S", 0.7)
    with SilentCamera() as camera:
        taken = Taken(Bench(tmp_path))
        take(taken, StreamSpec.model_validate({"url": camera.url, "transport": "udp"}), stall_s=0.7)
    assert "PLAY" in camera.asked
    assert taken.ended == Ended(State.STALLED, f"no packet for 0.7 s; {NO_UDP}")


@pytest.mark.rtsp
def test_pictures_with_holes_where_a_network_lost_packets_are_counted(tmp_path: Path) -> None:
    need_rtsp()
    video = make_video(tmp_path / "a.mp4", seconds=2, bit_rate=800_000)
    taken = Taken(Bench(tmp_path / "bench"))
    with RtspServer({"cam": video}, 20, loss=0.02) as server:
        take(taken, StreamSpec.model_validate({"url": server.url("cam"), "transport": "udp"}), frames=40)
    assert taken.ended is None
    assert taken.bench.counts["decode_errors"] > 0
    assert taken.bench.counts["frames"] > 10


@pytest.mark.parametrize(("kind", "state", "sentence"), STATE_OF, ids=[kind.__name__ for kind, *_ in STATE_OF])
def test_each_error_of_ffmpeg_has_a_state_and_a_sentence_without_the_url(
    kind: type[Exception], state: State, sentence: str
) -> None:
    # Over RTSP what is no data of its kind is no answer at all: `NO_ANSWER` has its own test.
    scheme = "http" if kind is av.InvalidDataError else "rtsp"
    spec = StreamSpec.model_validate({"url": f"{scheme}://u:hunter2@h/x", "transport": "udp"})
    error = (
        kind(5, "what FFmpeg says", "rtsp://u:hunter2@h/x") if issubclass(kind, av.FFmpegError) else kind("u:hunter2@h")
    )
    found, detail = cause_of(error, spec)
    assert found is state
    assert detail.startswith(sentence or ("what FFmpeg says" if issubclass(kind, av.FFmpegError) else kind.__name__))
    assert ("over UDP" in detail) is (kind is av.ExitError)
    assert "hunter2" not in detail
