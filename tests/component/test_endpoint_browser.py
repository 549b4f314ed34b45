"""A link of the clip endpoint in a real browser: Chromium's own HLS player, over a gap, and with a jump."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser import need_chromium, play_stream
from tests.support.clip_files import cut_clips
from tests.support.media import make_video
from tests.support.serving import T, free_port, serving, settings_in

S = 1_000_000_000


@pytest.mark.browser
def test_chromium_plays_and_seeks_a_link(tmp_path: Path) -> None:
    need_chromium()
    with serving(tmp_path / "n", settings_in(tmp_path / "n", free_port())) as node, node.client() as http:
        video = make_video(tmp_path / "source.mp4", seconds=9)
        cut_clips(node.storage, video, [T, T + 3 * S, T + 36 * S])
        span = {"from": str(T), "to": str(T + 60 * S)}
        link = http.post("/cameras/gate/links", params=span).json()
        played = play_stream(node.origin + link["playlist"])
    assert played.error == ""
    assert 8.9 < played.duration_s < 9.2
    assert played.frames >= 90
    assert 4.7 < played.at_s < 6
