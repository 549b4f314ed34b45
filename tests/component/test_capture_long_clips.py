"""Sources that send no further key frame: one clip that grows and grows, and what keeps it harmless."""

from __future__ import annotations

from pathlib import Path

from nodeagent.infra.video import clip_samples
from tests.support.capturing import Bench
from tests.support.media import make_video


def test_a_clip_that_does_not_fit_into_the_ring_is_served_from_its_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path, sample_fps=30, sample_width=64, slots=450)
    # One key frame only, and more samples than a ring may have.
    bench.record(make_video(tmp_path / "a.mp4", width=64, height=48, fps=30, gop=100_000, seconds=340))
    ((task,), (clip,)) = bench.tasks(), bench.clips()
    assert task.ring is None
    assert len(task.sample_ns) == len(list(clip_samples(clip.path, task.start_ns, task.sample_ns, 64, 48))) == 10_200
