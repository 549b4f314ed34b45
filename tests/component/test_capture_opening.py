"""Cameras are opened without a look at their stream, and recorded from the first key frame on as if there had been."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import av
import pytest

from nodeagent.capture.brief import untold
from nodeagent.capture.feed import Feed
from nodeagent.capture.opening import open_source
from nodeagent.capture.probe_camera import look
from nodeagent.capture.source import Arrived, Ended, Opened, Session
from nodeagent.contract.camera import StreamSpec
from nodeagent.contract.states import State
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.settings.sections import CaptureSettings
from tests.component.test_capture_kinds import NO_SOUND_S, Taken, sound_s, take
from tests.support.capturing import Bench
from tests.support.eventually import eventually
from tests.support.media import count_frames, make_video
from tests.support.rtsp_relay import RtspRelay

#: Frames that are taken of each, at ten a second; a key frame comes each second, the file is of two.
FRAMES, GOP, FILE_FRAMES = 28, 10, 20
#: As FFmpeg would wait for a track that sends nothing, seconds.
SILENT_S = 5.0
_SETS = re.compile(r"sprop-parameter-sets=[^;\r\n]+")


def without_sets(told: str) -> str:
    """A session description of a camera that has its parameter sets in the stream only."""
    return re.sub(r"(;\s*)?sprop-[a-z-]+=[^;\r\n]+", "", told)


def as_it_is(told: str) -> str:
    """All is told."""
    return told


def with_silent_sound(told: str) -> str:
    """A track of sound is told that never sends."""
    return f"{told}m=audio 0 RTP/AVP 8\r\na=control:streamid=1\r\n"


@dataclass(frozen=True)
class Case:
    """A camera, and what is recorded of it."""

    video: dict[str, str | int]
    describe: Callable[[str], str] = as_it_is
    in_band: bool = True
    transport: str = "tcp"
    looked_at: str = ""
    dropped: str = ""
    keys: tuple[int, int] = (0, GOP)
    ending: str = "mp4"


H265 = {"codec": "libx265"}
CASES = {
    "h264": Case({}),
    "h264-udp": Case({"sound": "aac"}, transport="udp"),
    "h264-sets-told-only": Case({"sound": "aac"}, in_band=False),
    "h264-sets-in-band-only": Case({"sound": "aac"}, without_sets),
    "h264-b-frames": Case({"b_frames": 2}),
    "h264-b-frames-in-band-only": Case({"b_frames": 2}, without_sets),
    "h264-g711": Case({"sound": "pcm_alaw"}, ending="mov", dropped="pcm_alaw does not fit into a clip"),
    "h264-silent-sound": Case({}, with_silent_sound, dropped="pcm_alaw does not fit into a clip"),
    "h265-aac": Case({**H265, "sound": "aac"}),
    "h265-sets-told-only": Case(H265, in_band=False),
    "h265-sets-in-band-only": Case(H265, without_sets),
    "h265-b-frames": Case({**H265, "b_frames": 2}),
    "mpeg4": Case({"codec": "mpeg4"}, in_band=False, looked_at="no size of its picture", keys=(0, 12)),
}


def video(folder: Path, name: str) -> Path:
    """The file that a camera sends."""
    case = CASES[name]
    return make_video(folder / f"{name}.{case.ending}", seconds=FILE_FRAMES / 10, gop=GOP, **case.video)  # type: ignore[arg-type]


def record(taken: Taken, case: Case, url: str, opened: list[tuple[float, str]]) -> None:
    """Record it, and note when it was open and whether it had been looked at."""
    began_s = time.monotonic()
    begin = taken.bench.recorder.begin_session

    def noted(stream: av.VideoStream, sound: av.AudioStream | None = None) -> None:
        opened.append((time.monotonic() - began_s, stream.codec_context.name))
        begin(stream, sound)

    taken.bench.recorder.begin_session = noted  # type: ignore[method-assign]
    take(taken, StreamSpec.model_validate({"url": url, "transport": case.transport}), frames=FRAMES)


def test_each_camera_is_recorded_from_its_first_key_frame_on_without_a_look_at_it(tmp_path: Path) -> None:
    taken = {name: Taken(Bench(tmp_path / name, sample_width=160)) for name in CASES}
    opened: dict[str, list[tuple[float, str]]] = {name: [] for name in CASES}
    with ExitStack() as stack:
        threads = []
        for name, case in CASES.items():
            path = video(tmp_path, name)
            url = stack.enter_context(RtspRelay(path, case.describe, in_band=case.in_band)).url
            threads.append(threading.Thread(target=record, args=(taken[name], case, url, opened[name])))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    for name, one in taken.items():
        assert one.ended is None, (name, one.ended)
        assert opened[name][0][0] < SILENT_S - 1, name
        numbers = list(itertools.chain(*one.clips()))
        assert numbers[0] in CASES[name].keys, (name, numbers)
        assert FRAMES - max(CASES[name].keys) <= len(numbers) <= FRAMES, (name, numbers)
        # The last ones taken may be shown before others that were not taken any more.
        whole = numbers[:-2] if "b_frames" in CASES[name].video else numbers
        assert all((b - a) % FILE_FRAMES == 1 for a, b in itertools.pairwise(whole)), (name, str(numbers))
        assert one.bench.counts["decode_errors"] == 0, name
        assert one.bench.recorder.sound.dropped == CASES[name].dropped, name
        for clip, task in zip(one.bench.clips(), one.bench.tasks(), strict=True):
            with av.open(str(clip.path)) as file:
                assert (file.streams.video[0].width, file.streams.video[0].height) == (320, 240), name
            assert (task.sample_width, task.sample_height) == (160, 120), name
            assert task.ring is not None, name
            assert (sound_s(clip.path) > NO_SOUND_S) is ("sound" in CASES[name].video and not CASES[name].dropped), name


def look_of(spec: StreamSpec) -> str:
    """Why a source is not opened briefly."""
    session = Session(spec, 4.0, SystemClock())
    session.start()
    event = session.get(20.0)
    session.close()
    assert isinstance(event, Opened), event
    return event.looked_at


@pytest.mark.parametrize("name", ["h264", "h264-g711", "mpeg4"])
def test_a_camera_is_looked_at_where_neither_its_session_description_nor_a_key_frame_tells_all(
    tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    with RtspRelay(video(tmp_path, name), in_band=case.in_band) as camera:
        assert look_of(StreamSpec(url=camera.url)) == case.looked_at


TRACKS = {
    "a=x:0\r\n": "",
    "m=audio 0 RTP/AVP 8\r\na=control:streamid=1\r\n": "",
    "m=audio 0 RTP/AVP 14\r\na=control:streamid=1\r\n": "no rate of its sound",
    "m=video 0 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\na=control:streamid=1\r\n": "2 tracks of video",
}


@pytest.mark.parametrize(("track", "what"), TRACKS.items(), ids=["none", "g711", "mpeg", "video"])
def test_what_a_second_track_leaves_open(tmp_path: Path, track: str, what: str) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=1)
    with RtspRelay(path, lambda told: told + track) as camera:
        source = open_source(StreamSpec(url=camera.url), 4.0, brief=True)
        assert source.brief
        assert untold(source.container, sound=True) == what
        assert untold(source.container, sound=False) == (what if "video" in what else "")
        source.container.close()


def test_a_camera_that_is_probed_tells_its_size_though_it_was_told_in_band_only(tmp_path: Path) -> None:
    with RtspRelay(video(tmp_path, "h265-sets-in-band-only"), without_sets) as camera:
        answer = look("record", StreamSpec(url=camera.url), SystemClock())
    assert (answer.codec, answer.width, answer.height) == ("hevc", 320, 240)


def test_wrong_sets_in_a_session_description_cost_no_frame(tmp_path: Path) -> None:
    large = make_video(tmp_path / "large.mp4", seconds=2, width=640, height=360)
    small = make_video(tmp_path / "small.mp4", seconds=2)
    with RtspRelay(large) as other:
        wrong = _SETS.search(other.told)
    assert wrong is not None
    taken = Taken(Bench(tmp_path / "bench", sample_width=640))
    with RtspRelay(small, lambda told: _SETS.sub(wrong[0], told)) as camera:
        take(taken, StreamSpec(url=camera.url), frames=FRAMES)
    assert taken.ended is None
    assert {(task.sample_width, task.sample_height) for task in taken.bench.tasks()} == {(320, 240)}
    assert FRAMES - GOP <= len(list(itertools.chain(*taken.clips()))) <= FRAMES
    assert taken.bench.counts["decode_errors"] == 0


def test_pictures_out_of_order_that_nobody_told_are_noticed_and_the_camera_is_looked_at_from_then_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = video(tmp_path, "h265-b-frames")
    bench = Bench(tmp_path / "bench", sample_width=160)
    settings = CaptureSettings(reconnect_min_s=0.05, reconnect_max_s=0.1)
    with RtspRelay(path, without_sets) as camera:
        feed = Feed(("gate-1", "record"), StreamSpec(url=camera.url), bench.recorder, settings, SystemClock())

        def recorded() -> bool:
            feed.step()
            return bench.counts["samples"] >= 15

        eventually(recorded, within_s=20)
        feed.close()
    bench.settle()
    told = [record for record in caplog.records if getattr(record, "event", "") in ("source_opened", "source_lost")]
    assert [record.event for record in told] == ["source_opened", "source_lost", "source_opened"]  # type: ignore[attr-defined]
    assert "out of order" in told[1].getMessage()
    assert told[2].getMessage().endswith("how far)")
    # Of the clip before the look nothing is lost; of the one after, each picture has its own time.
    last = count_frames(bench.clips()[-1].path)[:-2]
    assert all((b - a) % FILE_FRAMES == 1 for a, b in itertools.pairwise(last)), str(last)


def test_a_camera_whose_sets_come_nowhere_is_a_bad_stream_that_says_so(tmp_path: Path) -> None:
    path = video(tmp_path, "h264")
    with RtspRelay(path, without_sets, in_band=False) as camera:
        session = Session(StreamSpec(url=camera.url), 4.0, SystemClock())
        session.start()
        seen = []
        while (event := session.get(10.0)) is not None and not isinstance(event, Ended):
            seen.append(event)
        session.close()
    assert isinstance(event, Ended)
    assert (event.state, event.look) == (State.BAD_STREAM, True)
    assert "neither its session description nor its first key frame" in event.detail
    assert any(isinstance(one, Arrived) for one in seen) or isinstance(seen[0], Opened)
