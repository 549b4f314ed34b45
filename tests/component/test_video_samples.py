"""Pictures out of a clip's file: all that is wanted, nothing twice, and no more decoding than that takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra import video
from nodeagent.infra.video import I420Scaler, clip_samples, frames, opened, packet_times
from tests.support.capturing import Bench
from tests.support.corpus import encode

START = 1_700_000_000 * NS_PER_S
SIZE = (160, 120)
#: Streams of which nothing of a GOP may be missing, by x264's and x265's options.
KINDS = {
    "plain": ("libx264", "bframes=0"),
    "closed": ("libx264", "bframes=3:b-adapt=0:open-gop=0:b-pyramid=normal:ref=4"),
    "open": ("libx264", "bframes=3:b-adapt=0:open-gop=1:b-pyramid=normal:ref=4"),
    "fields": ("libx264", "tff=1:interlaced=1:bframes=2:b-adapt=0:open-gop=0"),
    "h265": ("libx265", "bframes=3:b-adapt=0:open-gop=0"),
    "h265 open": ("libx265", "bframes=3:b-adapt=0:open-gop=1"),
}


def whole(path: Path) -> dict[int, NDArray[np.uint8]]:
    """Every picture of a file by its time, with nothing left out."""
    scale = I420Scaler(*SIZE)
    with opened(path) as (container, stream):
        return {time_ns: scale(frame) for time_ns, frame in frames(container, stream, START)}


@pytest.mark.parametrize("kind", KINDS)
def test_key_frames_alone_are_the_pictures_that_decoding_everything_gives(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, params = KINDS[kind]
    path = encode(tmp_path / "a.mp4", codec=codec, params=params)
    pictures = whole(path)
    with opened(path) as (container, stream):
        keys = [time_ns for time_ns, key in packet_times(container, stream, START) if key]
    assert len(keys) == 4
    # The way that decodes everything is not there.
    monkeypatch.setattr(video, "frames", None)
    found = dict(clip_samples(path, START, keys, *SIZE))
    assert sorted(found) == [0, 1, 2, 3]
    assert all(np.array_equal(found[n], pictures[time_ns]) for n, time_ns in enumerate(keys))


@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_nothing_refers_to_are_left_out_and_the_wanted_ones_are_the_same(tmp_path: Path, kind: str) -> None:
    codec, params = KINDS[kind]
    path = encode(tmp_path / "a.mp4", codec=codec, params=params)
    pictures = whole(path)
    wanted = sorted(pictures)[3::7]
    found = dict(clip_samples(path, START, wanted, *SIZE))
    assert sorted(found) == list(range(len(wanted)))
    assert all(np.array_equal(found[n], pictures[time_ns]) for n, time_ns in enumerate(wanted))
    with opened(path) as (container, stream):
        decoded = sum(1 for _ in frames(container, stream, START, wanted))
    if "bframes=0" in params:
        assert decoded == len(pictures)
    else:
        # Half of the frames, or with two between references two in three, are of no use to others.
        assert decoded < 0.75 * len(pictures)


@pytest.mark.parametrize("kind", KINDS)
def test_live_decoding_skips_as_much_and_chooses_the_same_samples(tmp_path: Path, kind: str) -> None:
    codec, params = KINDS[kind]
    bench = Bench(tmp_path, sample_width=160)
    bench.record(encode(tmp_path / "a.mp4", codec=codec, params=params))
    frames_decoded, samples = bench.counts["frames"], bench.counts["samples"]
    assert samples == 20 or samples == 21
    assert frames_decoded == 100 if "bframes=0" in params else frames_decoded < 80
    for task, clip in zip(bench.tasks(), bench.clips(), strict=True):
        # What the file gives without skipping anything.
        times = [START + time_ns - task.start_ns for time_ns in task.sample_ns]
        pictures = whole(clip.path)
        assert set(times) <= set(pictures)
        found = dict(clip_samples(clip.path, START, times, *SIZE))
        assert all(np.array_equal(found[n], pictures[time_ns]) for n, time_ns in enumerate(times))
        assert len(found) == len(times)
