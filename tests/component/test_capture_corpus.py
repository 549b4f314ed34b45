"""Each stream of the corpus of broken and odd ones: a named state, an account that closes, clips that can be played."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import MEANING
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.gaps import GapReason, read_gaps
from nodeagent.infra.video import clip_samples
from tests.support.capturing import CAMERA, Bench
from tests.support.corpus import decodes, demuxes
from tests.support.corpus_cases import CASES

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
    assert bench.record(source, close=False).state is case.state
    # What the work loop does each second.
    bench.recorder.tick()
    problem = bench.recorder.problem
    bench.recorder.end_session(GapReason(case.state.value), "")
    bench.recorder.close()
    recorded_s = sum(task.duration_ns for task in bench.tasks()) / NS_PER_S
    if case.seconds is not None:
        assert recorded_s == pytest.approx(case.seconds, abs=0.2)
    assert (problem and problem[0]) is case.problem
    assert problem is None or MEANING[problem[0]].hint
    ended_ns = max([SystemClock().wall_ns(), *(task.end_ns for task in bench.tasks())]) + NS_PER_S
    bench.ledger.close(ended_ns)
    assert_account_closes(bench, began_ns, ended_ns)
    assert read_gaps(bench.state_dir, CAMERA, 0, 2**62)[-1].reason is GapReason(case.state.value)
    clips = bench.clips()
    assert len(clips) == len(bench.tasks()) > 0 or case.seconds == 0
    assert bench.files() == [clip.path.name for clip in clips]
    for task, clip in zip(bench.tasks(), clips, strict=True):
        assert demuxes(clip.path)
        if case.whole:
            decodes(clip.path)
            size = (task.sample_width, task.sample_height)
            assert len(dict(clip_samples(clip.path, task.start_ns, task.sample_ns, *size))) == len(task.sample_ns)
