"""What changes within a session: the frame rate begins a clip and a ring; key frames far apart make long clips."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import pytest

from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.video import clip_samples
from tests.support.capturing import Bench
from tests.support.corpus import decodes, encode


def one_after_the_other(folder: Path, *rates: int) -> Path:
    """A file whose frame rate changes; eight seconds of each, a key frame each second."""
    parts = [
        encode(folder / f"{n}.ts", fps=rate, gop=rate, frames=8 * rate, container="mpegts")
        for n, rate in enumerate(rates)
    ]
    path = folder / "rates.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def rate_of(path: Path) -> set[int]:
    """Frames per second that a clip's frames lie apart by."""

    with av.open(str(path)) as clip:
        stamps = [packet.pts for packet in clip.demux(video=0) if packet.pts is not None]
    return {round(90_000 / (b - a)) for a, b in itertools.pairwise(stamps)}


@pytest.mark.parametrize("rates", [(25, 12), (10, 25)])
def test_another_frame_rate_begins_a_clip_and_a_ring(tmp_path: Path, rates: tuple[int, int]) -> None:
    bench = Bench(tmp_path, sample_width=64)
    bench.record(one_after_the_other(tmp_path, *rates))
    tasks, clips = bench.tasks(), bench.clips()
    assert sum(decodes(clip.path) for clip in clips) == 8 * sum(rates)
    generations = [task.ring.generation for task in tasks if task.ring is not None]
    assert len(set(generations)) == 2
    # The change is seen at the second key frame after it, or the third, and nothing of the old rate comes after that.
    first = next(n for n, task in enumerate(tasks) if task.ring and task.ring.generation == generations[-1])
    assert {rate for clip in clips[first:] for rate in rate_of(clip.path)} == {rates[1]}
    assert 9 * NS_PER_S <= tasks[first].start_ns - tasks[0].start_ns <= 12 * NS_PER_S
    assert all(before.end_ns == after.start_ns for before, after in itertools.pairwise(tasks))


def test_one_rate_keeps_its_ring(tmp_path: Path) -> None:
    bench = Bench(tmp_path, sample_width=64)
    bench.record(one_after_the_other(tmp_path, 25, 25))
    assert len({task.ring.generation for task in bench.tasks() if task.ring}) == 1


def test_clips_are_as_long_as_a_smart_codec_s_gops_and_their_samples_come_from_the_file(tmp_path: Path) -> None:
    # The ring of the default, 15 s of five samples each.
    bench = Bench(tmp_path, sample_width=64, slots=75)
    bench.record(encode(tmp_path / "a.ts", size=(64, 48), gop=24 * 25, frames=60 * 25, container="mpegts"), close=False)
    assert bench.recorder.sparse_keys == "key frames every 24 s: clips are that long"
    assert bench.recorder.stream_trouble == ""
    bench.recorder.close()
    assert bench.recorder.sparse_keys == ""
    tasks, clips = bench.tasks(), bench.clips()
    assert [round(task.duration_ns / NS_PER_S) for task in tasks] == [24, 24, 12]
    assert [task.ring is None for task in tasks] == [True, True, False]
    for task, clip in zip(tasks, clips, strict=True):
        found = dict(clip_samples(clip.path, task.start_ns, task.sample_ns, 64, 48))
        assert len(found) == len(task.sample_ns) == pytest.approx(5 * task.duration_ns / NS_PER_S, abs=1)
