"""The recorder while capture times run ahead of the wall clock, as after a clock that was set back."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.video import clip_samples
from nodeagent.ring.reader import RingReader
from tests.support.capturing import CAMERA, Bench
from tests.support.media import count_frames, make_video

AHEAD_NS = 60 * NS_PER_S


@pytest.mark.parametrize("b_frames", [0, 2])
def test_clips_stay_back_to_back_and_samples_equal_while_the_line_is_held_back(tmp_path: Path, b_frames: int) -> None:
    bench = Bench(tmp_path, sample_width=160)
    began_ns = SystemClock().wall_ns()
    bench.ledger.accounted_ns = began_ns + AHEAD_NS
    bench.record(make_video(tmp_path / "a.mp4", fps=25, gop=50, seconds=40, b_frames=b_frames))
    tasks, clips = bench.tasks(), bench.clips()
    assert tasks[0].start_ns >= began_ns + AHEAD_NS
    assert [n for clip in clips for n in count_frames(clip.path)] == list(range(1000))
    assert all(before.end_ns == after.start_ns for before, after in itertools.pairwise(tasks))
    # 40 s of video, the first ten of which showed by how much the line is ahead.
    taken_back_ns = 40 * NS_PER_S - (tasks[-1].end_ns - tasks[0].start_ns)
    assert 2 * NS_PER_S < taken_back_ns < 3 * NS_PER_S
    for task, clip in zip(tasks, clips, strict=True):
        assert task.ring is not None
        ring = RingReader.open(bench.memory_dir, CAMERA, task.ring.generation)
        found = list(clip_samples(clip.path, task.start_ns, task.sample_ns, task.sample_width, task.sample_height))
        assert len(found) == len(task.sample_ns)
        for index, picture in found:
            seen = ring.view(task.ring.first_seq + index)
            assert seen is not None
            assert seen[1] == task.sample_ns[index]
            assert np.array_equal(seen[0], picture)
        ring.close()
