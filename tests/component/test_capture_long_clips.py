"""Sources that send no further key frame: one clip that grows and grows, and what keeps it harmless."""

from __future__ import annotations

import re
from pathlib import Path

from nodeagent.capture.recovery import LeftPart, salvage
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.video import clip_samples
from tests.support.capturing import CAMERA, Bench
from tests.support.media import make_video


def test_a_clip_that_does_not_fit_into_the_ring_is_served_from_its_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path, sample_fps=30, sample_width=64, slots=450)
    # One key frame only, and more samples than a ring may have.
    bench.record(make_video(tmp_path / "a.mp4", width=64, height=48, fps=30, gop=100_000, seconds=340))
    ((task,), (clip,)) = bench.tasks(), bench.clips()
    assert task.ring is None
    assert len(task.sample_ns) == len(list(clip_samples(clip.path, task.start_ns, task.sample_ns, 64, 48))) == 10_200


def test_a_stream_without_key_frames_is_told_and_its_part_is_repaired_without_decoding_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, sample_fps=5, sample_width=64)
    bench.record(make_video(tmp_path / "a.mp4", width=64, height=48, gop=100_000, seconds=59), close=False)
    assert bench.recorder.stream_trouble == ""
    bench.recorder.close()
    bench.record(make_video(tmp_path / "b.mp4", width=64, height=48, gop=100_000, seconds=70), close=False)
    assert bench.recorder.stream_trouble == "no key frame for 69 s"
    ((clip, part),) = bench.storage.parts(CAMERA)
    # Pictures that no decoder can read: who decodes them finds nothing, who counts packets finds all.
    body = bytearray(part.read_bytes())
    for found in re.finditer(b"mdat", bytes(body)):
        body[found.end() + 4 : found.end() + 100] = bytes(96)
    part.write_bytes(body)
    assert salvage(LeftPart(part, clip, "record", announced=True), bench.plan, bench.closer, 5)
    closed = bench.closed()[-1]
    assert closed.task.duration_ns >= 69 * NS_PER_S
    live = bench.samples.end_clip()
    assert closed.task.sample_ns == live.sample_ns[: len(closed.task.sample_ns)]
