"""Codecs as they come: recorded unchanged, cut where they may be, and followed when the camera changes its picture."""

from __future__ import annotations

import io
from pathlib import Path

import av
import pytest

from nodeagent.contract.camera import StreamSpec
from nodeagent.contract.ids import NS_PER_S
from tests.component.test_capture_kinds import Taken, take
from tests.support.capturing import Bench
from tests.support.media import annex_b, codec_of, count_frames, make_video
from tests.support.streaming import HttpCamera, Sink, mux


def shapes(bench: Bench) -> list[tuple[int, int, int]]:
    """Width and height of each clip, and of its samples the width."""
    found = []
    for stored, task in zip(bench.clips(), bench.tasks(), strict=True):
        with av.open(str(stored.path)) as clip:
            found.append((clip.streams.video[0].width, clip.streams.video[0].height, task.sample_width))
    return found


@pytest.mark.parametrize(("encoder", "ending"), [("libx265", "mp4"), ("mjpeg", "mov"), ("libsvtav1", "mkv")])
def test_each_codec_is_recorded_as_it_is_and_cut_at_the_grid(tmp_path: Path, encoder: str, ending: str) -> None:
    source = make_video(tmp_path / f"a.{ending}", seconds=12, codec=encoder, width=160, height=120)
    bench = Bench(tmp_path / "bench")
    bench.record(source)
    assert [number for clip in bench.clips() for number in count_frames(clip.path)] == list(range(120))
    assert {codec_of(clip.path) for clip in bench.clips()} == {codec_of(source)}
    # A key frame comes once a second at least: each cut is half a second from a line of the grid at most.
    cuts = [task.start_ns for task in bench.tasks()[1:]]
    assert 1 <= len(cuts) <= 3
    assert all(abs((cut + 5 * NS_PER_S // 2) % (5 * NS_PER_S) - 5 * NS_PER_S // 2) <= 0.51 * NS_PER_S for cut in cuts)
    assert bench.counts["decode_errors"] == 0


@pytest.mark.parametrize("encoder", ["libx264", "libx265"])
def test_new_parameter_sets_in_a_transport_stream_begin_a_clip_of_their_size(tmp_path: Path, encoder: str) -> None:
    whole = io.BytesIO()
    for width in (320, 640):
        part = make_video(tmp_path / f"{width}.mp4", seconds=2, width=width, height=width * 9 // 16, codec=encoder)
        mux(part, "mpegts", Sink(whole.write), pace=False, rounds=1)
    path = tmp_path / "changing.ts"
    path.write_bytes(whole.getvalue())
    bench = Bench(tmp_path / "bench", sample_width=640)
    bench.record(path)
    assert {(320, 180, 320), (640, 360, 640)} == set(shapes(bench))
    assert [number for clip in bench.clips() for number in count_frames(clip.path)] == [*range(20), *range(20)]
    rings = {task.sample_width: task.ring.generation for task in bench.tasks() if task.ring is not None}
    assert len(set(rings.values())) == 2


def test_pictures_of_another_size_in_a_stream_of_mjpeg_begin_a_clip(tmp_path: Path) -> None:
    body = b""
    for width in (320, 640):
        part = make_video(tmp_path / f"{width}.mov", seconds=1, width=width, height=width * 9 // 16, codec="mjpeg")
        for picture in annex_b(part).split(b"\xff\xd8\xff")[1:]:
            jpeg = b"\xff\xd8\xff" + picture
            body += b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg)
    bench = Bench(tmp_path / "bench", sample_width=640)
    with HttpCamera() as camera:
        camera.answers["live"] = 200, [("Content-Type", "multipart/x-mixed-replace; boundary=x")], body
        take(Taken(bench), StreamSpec.model_validate({"url": camera.url("live")}), frames=20)
    assert shapes(bench) == [(320, 180, 320), (640, 360, 640)]
    assert [len(count_frames(clip.path)) for clip in bench.clips()] == [10, 9]
