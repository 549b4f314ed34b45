"""Each stream of the corpus of broken and odd ones: a named state, an account that closes, clips that can be played."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from pathlib import Path

import pytest

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import MEANING, State
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.gaps import GapReason, read_gaps
from nodeagent.infra.video import clip_samples
from nodeagent.infra.worker import EXIT_OK
from tests.support.accounting import account
from tests.support.capturing import CAMERA, Bench, CaptureProcess
from tests.support.corpus import decodes, demuxes
from tests.support.corpus_cases import CASES
from tests.support.corpus_live import RawCameras
from tests.support.eventually import eventually

#: Holes of less than this are the spacing of frames, ns.
HOLE_NS = NS_PER_S // 10


def assert_account_closes(bench: Bench, began_ns: int, ended_ns: int) -> None:
    """Every instant between is in one clip or one gap."""
    spans = sorted(
        [(task.start_ns, task.end_ns) for task in bench.tasks()]
        + [(gap.from_ns, gap.to_ns) for gap in read_gaps(bench.state_dir, CAMERA, 0, 2**62)]
    )
    edges = [began_ns, *itertools.chain.from_iterable(spans), ended_ns]
    for end, start in zip(edges[::2], edges[1::2], strict=True):
        assert abs(start - end) <= HOLE_NS, f"{(start - end) / NS_PER_S:.3f} s"


@pytest.mark.parametrize("name", CASES)
def test_a_stream_of_the_corpus(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    source = case.make(tmp_path)
    bench = Bench(tmp_path, sample_width=64)
    began_ns = bench.ledger.accounted_ns
    end = bench.record(source, close=False).state
    assert end in ((case.state,) if case.state else (State.SOURCE_ENDED, State.BAD_STREAM))
    # What the work loop does each second.
    bench.recorder.tick()
    problem = bench.recorder.problem
    bench.recorder.end_session(GapReason(end.value), "")
    bench.recorder.close()
    recorded_s = sum(task.duration_ns for task in bench.tasks()) / NS_PER_S
    if case.seconds is not None:
        assert recorded_s == pytest.approx(case.seconds, abs=0.2)
    assert (problem and problem[0]) is case.problem
    assert problem is None or MEANING[problem[0]].hint
    ended_ns = max([SystemClock().wall_ns(), *(task.end_ns for task in bench.tasks())]) + NS_PER_S
    bench.ledger.close(ended_ns)
    assert_account_closes(bench, began_ns, ended_ns)
    assert read_gaps(bench.state_dir, CAMERA, 0, 2**62)[-1].reason is GapReason(end.value)
    clips = bench.clips()
    assert len(clips) == len(bench.tasks()) > 0 or case.seconds == 0
    assert bench.files() == [clip.path.name for clip in clips]
    for task, clip in zip(bench.tasks(), clips, strict=True):
        assert demuxes(clip.path)
        if case.whole:
            decodes(clip.path)
            size = (task.sample_width, task.sample_height)
            assert len(dict(clip_samples(clip.path, task.start_ns, task.sample_ns, *size))) == len(task.sample_ns)


#: Of the corpus, sent live in a loop: how many seconds of video each is, and whether its clips decode.
LIVE = {
    "bits": ("bit errors 1e-4", 4.0),
    "random": ("random stamps", 6.0),
    "wrap": ("wrap", 6.0),
    "sizes": ("other sizes", 6.0),
    "third": ("a third of the stamps", 6.0),
}


@pytest.mark.services
def test_broken_live_streams_end_no_process_and_a_good_camera_beside_them_runs_on(
    tmp_path: Path, redis_url: str
) -> None:
    files = {}
    for name, (case, seconds) in {**LIVE, "good": ("b frames", 4.0)}.items():
        (tmp_path / name).mkdir()
        files[name] = (CASES[case].make(tmp_path / name), seconds)
    with contextlib.ExitStack() as stack:
        cameras = stack.enter_context(RawCameras(files))
        captures = {
            name: stack.enter_context(
                CaptureProcess(tmp_path / name, cameras.url(name), redis_url, loop=False, clip_s=1.0)
            )
            for name in files
        }
        eventually(lambda: all(capture.count("clips_made") >= 3 for capture in captures.values()), within_s=40)
        for capture in captures.values():
            os.kill(capture.pid, signal.SIGTERM)
        # A process that FFmpeg has crashed leaves with the number of a signal.
        assert {name: capture.stop() for name, capture in captures.items()} == dict.fromkeys(captures, EXIT_OK)
        for name, capture in captures.items():
            total = account(capture.clips(), capture.gaps(), seam_s=HOLE_NS / NS_PER_S)
            assert total.holes == (), name
            assert total.twice_s < 0.05, name
            assert total.recorded_s + total.told_s == pytest.approx(total.wall_s, abs=0.5)
            whole = name != "bits" and name != "random"
            assert all(decodes(clip.path) if whole else demuxes(clip.path) for clip in capture.clips()), name
            assert capture.storage.parts(CAMERA) == []
            assert "Traceback" not in capture.log()
        assert captures["good"].count("reconnects") == 0
        assert {gap.reason for gap in captures["good"].gaps()} <= {GapReason.START}
        # A broken table of tracks is the only one of these that costs a session.
        assert [name for name, capture in captures.items() if capture.count("reconnects")] in ([], ["bits"])
