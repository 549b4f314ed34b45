"""Sound is carried as it is where MP4 takes it, and costs no picture where it does not."""

from __future__ import annotations

import logging
from pathlib import Path

import av
import pytest

from nodeagent.capture.fragments import truncate_to, wholeness
from nodeagent.capture.sound import Heard, Sound
from nodeagent.contract.camera import StreamSpec
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.storage import init_pool
from tests.component.test_capture_kinds import NO_SOUND_S, Taken, sound_s, take, video_s
from tests.support.capturing import Bench, CaptureProcess
from tests.support.eventually import eventually
from tests.support.media import count_frames, make_video

#: Of three seconds, ten frames each.
FRAMES = 30


def recorded(tmp_path: Path, source: Path, *, audio: bool = True) -> Taken:
    """What a file of three seconds gives."""
    taken = Taken(Bench(tmp_path / "bench"))
    take(taken, StreamSpec.model_validate({"url": str(source), "audio": audio}), frames=FRAMES)
    assert sorted(number for clip in taken.clips() for number in clip) == list(range(FRAMES))
    return taken


@pytest.mark.parametrize(
    ("encoder", "ending", "carried"),
    [("libmp3lame", "mp4", True), ("libopus", "mkv", True), ("pcm_alaw", "mov", False), ("ac3", "mkv", False)],
)
def test_sound_that_mp4_takes_is_carried_and_other_sound_is_dropped_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, encoder: str, ending: str, carried: bool
) -> None:
    source = make_video(tmp_path / f"a.{ending}", seconds=3, sound=encoder)
    taken = recorded(tmp_path, source)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    if carried:
        assert not told
        assert all(abs(sound_s(clip.path) - video_s(clip.path)) < 0.3 for clip in taken.bench.clips())
    else:
        assert taken.bench.recorder.sound.dropped == f"{encoder} does not fit into a clip"
        assert told == [f"camera gate-1: sound is not recorded: {encoder} does not fit into a clip"]
        assert {sound_s(clip.path) for clip in taken.bench.clips()} == {NO_SOUND_S}


def test_sound_that_ffmpeg_does_not_know_is_dropped_and_told(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mov", seconds=3, sound="pcm_alaw")
    source.write_bytes(source.read_bytes().replace(b"alaw", b"zzz1"))
    taken = recorded(tmp_path, source)
    assert taken.bench.recorder.sound.dropped == "FFmpeg does not know its codec"


def test_a_track_that_brings_no_sound_is_left_out_of_later_clips(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", seconds=1, sound="aac")
    sound = Sound("gate-1")
    with av.open(str(source)) as file:
        sound.begin_session(file.streams.audio[0])
        assert sound.track(0) is not None
        assert sound.track(5 * NS_PER_S) is not None
        assert sound.track(15 * NS_PER_S) is None
        # It comes after all.
        sound.picture_at(0, 15 * NS_PER_S, 0)
        assert sound.take(Heard(next(file.demux(audio=0)), 0)) is not None
        assert sound.track(20 * NS_PER_S) is not None
        sound.end_session()
        assert sound.track(20 * NS_PER_S) is None


def test_where_sound_may_not_be_recorded_there_is_none(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", seconds=3, sound="aac")
    taken = recorded(tmp_path, source, audio=False)
    assert {sound_s(clip.path) for clip in taken.bench.clips()} == {NO_SOUND_S}
    assert taken.bench.recorder.sound.dropped == ""


def test_a_clip_with_sound_that_is_cut_off_anywhere_is_repaired(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", seconds=3, sound="aac")
    (stored,) = recorded(tmp_path, source).bench.clips()[:1]
    body = stored.path.read_bytes()
    cut = tmp_path / "cut.mp4"
    seen = set()
    for length in range(len(body), 2000, -len(body) // 23):
        cut.write_bytes(body[:length])
        truncate_to(cut, wholeness(cut).length)
        if not cut.stat().st_size:
            continue
        numbers = count_frames(cut)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        # Both tracks end within a fragment of each other.
        assert abs(sound_s(cut) - video_s(cut)) < 0.7
        seen.add(len(numbers))
    assert len(seen) >= 3


def test_broken_sound_is_dropped_and_the_clip_goes_on(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", seconds=3, sound="aac")
    taken = Taken(Bench(tmp_path / "bench"))
    recorder = taken.bench.recorder
    with av.open(str(source)) as file:
        sound = [packet for packet in file.demux(audio=0) if packet.size]
    # Packets without any stamp, of no length, and with stamps that stand still or run backwards.
    sound[0].pts = sound[0].dts = None
    for packet in sound:
        recorder.hear(Heard(packet, 0))
    take(taken, StreamSpec.model_validate({"url": str(source)}), frames=FRAMES)
    for packet in reversed(sound):
        recorder.hear(Heard(packet, 0))
    assert sorted(number for clip in taken.clips() for number in clip) == list(range(FRAMES))


@pytest.mark.services
def test_a_camera_whose_sound_is_left_out_is_told_while_all_is_well(tmp_path: Path, redis_url: str) -> None:
    source = make_video(tmp_path / "a.mov", seconds=4, sound="pcm_alaw")
    init_pool(tmp_path / "pool")
    with CaptureProcess(tmp_path, str(source), redis_url, pool=tmp_path / "pool", loop=True) as capture:
        eventually(lambda: "pcm_alaw" in capture.detail, within_s=15)
        assert capture.state is State.CAPTURING
        assert capture.detail == "sound is not recorded: pcm_alaw does not fit into a clip"
        assert "sound_dropped" in capture.log() or "sound is not recorded" in capture.log()
