"""The process that looks at a camera: real streams, each what it is, and no credential in any answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nodeagent.contract.probe import ProbeOrder, StreamAnswer
from nodeagent.contract.states import State
from nodeagent.supervisor.link.probing import run_probe
from tests.support.eventually import eventually
from tests.support.media import make_video
from tests.support.rtsp import RtspServer, need_rtsp
from tests.support.silent_rtsp import SilentCamera


def probe(**urls: str) -> tuple[StreamAnswer, ...]:
    streams = {name: {"url": url} for name, url in urls.items()}
    result = run_probe(ProbeOrder.model_validate({"probe_id": "0" * 16, "streams": streams}))
    assert result.trouble == ""
    assert "s3cret" not in result.model_dump_json()
    return result.streams


def test_whoever_asked_takes_the_look_with_him_when_he_is_killed() -> None:
    with SilentCamera() as camera:
        order = {"probe_id": "0" * 16, "streams": {"record": {"url": camera.url, "transport": "udp"}}}
        code = (
            f"from nodeagent.supervisor.link.probing import *; print(run_probe(ProbeOrder.model_validate({order!r})))"
        )
        asker = subprocess.Popen([sys.executable, "-c", code])
        try:
            eventually(lambda: "PLAY" in camera.asked, within_s=30)
            (looker,) = Path(f"/proc/{asker.pid}/task/{asker.pid}/children").read_text().split()
            assert b"probe_camera" in Path(f"/proc/{looker}/cmdline").read_bytes()
        finally:
            asker.kill()
            asker.wait()
        # Gone, or a dead entry that its new parent has not taken yet.
        eventually(lambda: not _cmdline(looker), within_s=5)


def _cmdline(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.rtsp
def test_a_camera_is_told_by_what_it_sends_or_why_it_does_not(tmp_path: Path) -> None:
    need_rtsp()
    video = make_video(tmp_path / "source.mp4", seconds=10)
    with RtspServer({"cam": video, "mute": None}, 10, "joe", "s3cret", sound="aac") as server:
        well, refused = probe(record=server.url("cam"), analyse=server.url("cam", credentials=False))
        mute, nowhere = probe(record=server.url("mute"), analyse=f"rtsp://joe:s3cret@127.0.0.1:{server.port}/none")
    assert (well.state, well.codec, well.width, well.height, well.sound) == (State.CAPTURING, "h264", 320, 240, "aac")
    assert well.fps == pytest.approx(10, rel=0.2)
    assert well.keyframe_s == pytest.approx(1.0, rel=0.2)
    assert (refused.stream, refused.state, refused.codec) == ("analyse", State.AUTH_FAILED, "")
    assert mute.state is State.NO_VIDEO
    assert (nowhere.state, "404" in nowhere.detail) == (State.SOURCE_DOWN, True)


def test_a_source_that_is_away_or_ends_is_told_so(tmp_path: Path) -> None:
    video = make_video(tmp_path / "short.mp4", seconds=1)
    away, short = probe(record="rtsp://joe:s3cret@127.0.0.1:9/x", analyse=str(video))
    assert (away.state, away.detail) == (State.SOURCE_DOWN, "Connection refused")
    # A file that is over sooner than the look is a good one all the same.
    assert (short.state, short.codec, short.keyframe_s, short.detail) == (State.CAPTURING, "h264", None, "")
    assert short.fps == pytest.approx(10, rel=0.3)
