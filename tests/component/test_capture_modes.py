"""Key frames alone, and a decoder in hardware that is not there."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from nodeagent.capture.decoder import Decoder
from nodeagent.capture.recovery import LeftPart, salvage
from nodeagent.capture.segmenter import Segmenter
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.video import clip_samples
from nodeagent.ring.reader import RingReader
from tests.support.capturing import CAMERA, Bench
from tests.support.media import make_video, read_counter


@pytest.mark.parametrize("b_frames", [0, 2])
def test_key_frames_alone_are_decoded_and_are_the_same_from_ring_and_file(tmp_path: Path, b_frames: int) -> None:
    bench = Bench(tmp_path, sample_mode="keyframes", sample_width=320)
    bench.record(make_video(tmp_path / "a.mp4", seconds=12, b_frames=b_frames))
    assert bench.counts["frames"] == bench.counts["samples"] == 12
    assert bench.counts["decode_errors"] == 0
    numbers = []
    for task in bench.tasks():
        stored = bench.storage.find(task.clip_id)
        assert stored is not None
        assert task.ring is not None
        reader = RingReader.open(bench.memory_dir, CAMERA, task.ring.generation)
        out = np.empty((task.sample_height * 3 // 2, task.sample_width), np.uint8)
        found = dict(clip_samples(stored.path, task.start_ns, task.sample_ns, task.sample_width, task.sample_height))
        for index, time_ns in enumerate(task.sample_ns):
            assert reader.read_into(task.ring.first_seq + index, out) == time_ns
            assert np.array_equal(found[index], out)
            numbers.append(read_counter(out[: task.sample_height]))
        reader.close()
    assert numbers == list(range(0, 120, 10))


def test_key_frames_that_come_faster_than_samples_are_wanted_are_thinned_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path, sample_mode="keyframes", sample_fps=2)
    bench.record(make_video(tmp_path / "a.mp4", gop=1, seconds=6))
    assert bench.counts["frames"] == 60
    assert bench.counts["samples"] in (12, 13)


def test_a_repaired_clip_has_the_key_frames_that_were_taken_live(tmp_path: Path) -> None:
    bench = Bench(tmp_path, sample_mode="keyframes")
    # One clip, wherever the grid of UTC lies.
    bench.recorder._segmenter = Segmenter(3600 * NS_PER_S)
    bench.record(make_video(tmp_path / "a.mp4", seconds=4), close=False)
    ((clip, part),) = bench.storage.parts(CAMERA)
    live = bench.samples.end_clip().sample_ns
    assert salvage(LeftPart(part, clip, "record", announced=True), bench.plan, bench.closer, 5)
    (task,) = bench.tasks()
    assert len(task.sample_ns) >= 3
    assert task.sample_ns == live[: len(task.sample_ns)]
    assert task.luma is None


@pytest.mark.parametrize("device", ["cuda", "qsv", "drm"])
def test_hardware_that_is_not_there_is_told_and_software_decodes(tmp_path: Path, device: str) -> None:
    with av.open(str(make_video(tmp_path / "a.mp4", seconds=2))) as container:
        stream = container.streams.video[0]
        decoder = Decoder(stream.codec_context, device)
        if not decoder.software_because:
            pytest.skip(f"this machine has a decoder of type {device}")
        assert device in decoder.software_because
        frames = [frame for packet in container.demux(stream) if packet.size for frame in decoder.decode(packet)]
        assert len(frames + decoder.decode(None)) == 20
