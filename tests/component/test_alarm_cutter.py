"""Replays out of real clips: length, exact time, every frame, damaged and changing input."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import pytest

from nodeagent.alarm.cutter import BadClip, Joined, Source, join, stream_format
from nodeagent.alarm.plan import Window, choose
from nodeagent.alarm.replay import piece_of
from nodeagent.alarm.verify import verify
from nodeagent.contract.clip import ClipId
from nodeagent.contract.errors import BadMedia, StorageUnavailable
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.infra.settings.sections import PoolSettings
from nodeagent.infra.storage import Storage, init_pool
from tests.support.alarms import T0, add_clip, add_clips
from tests.support.media import count_frames

S = NS_PER_S


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    pool = tmp_path / "pool"
    pool.mkdir()
    init_pool(pool)
    return Storage([PoolSettings(path=pool, reserve_gb=0)])


def sources(storage: Storage, from_s: float = 0.0, to_s: float = 60.0) -> list[Source]:
    window = Window(T0 + round(from_s * S), T0 + round(to_s * S), T0)
    found = {c.clip: c for c in storage.clips("gate-1", T0, T0 + 60 * S)}
    return [Source(p.clip, p.start_ns, found[p.clip].path) for p in choose(map(piece_of, found.values()), window)]


def cut(storage: Storage, from_s: float, to_s: float, target: Path) -> Joined:
    return join(sources(storage, from_s, to_s), T0 + round(from_s * S), T0 + round(to_s * S), target)


def times(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        assert stream.time_base == Fraction(1, 90_000)
        return [(p.dts, p.pts) for p in source.demux(stream) if p.size and p.dts is not None and p.pts is not None]


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(("from_s", "to_s"), [(5.0, 35.0), (6.3, 29.9), (9.95, 10.05), (0.0, 40.0), (12.34, 27.7)])
def test_covers_the_window_and_is_at_most_a_gop_and_a_second_longer(
    storage: Storage, tmp_path: Path, from_s: float, to_s: float, b_frames: int
) -> None:
    add_clips(storage, tmp_path, gop=10, b_frames=b_frames)
    target = tmp_path / "r.mp4"
    joined = cut(storage, from_s, to_s, target)
    assert joined.start_ns <= T0 + from_s * S
    assert joined.start_ns + joined.length_ns >= T0 + to_s * S
    assert joined.length_ns <= (to_s - from_s + 1 + 1) * S
    numbers = count_frames(target)
    first = int(from_s) * 10
    assert numbers[: round((to_s - int(from_s)) * 10)] == list(range(first, first + round((to_s - int(from_s)) * 10)))
    verified = verify(target, 0)
    assert (verified.frames, verified.broken) == (joined.packets, 0)
    assert abs(verified.length_ns - joined.length_ns) <= NS_PER_MS


@pytest.mark.parametrize("b_frames", [0, 2])
def test_time_is_exact_and_grows(storage: Storage, tmp_path: Path, b_frames: int) -> None:
    add_clips(storage, tmp_path, count=6, gop=20, b_frames=b_frames)
    target = tmp_path / "r.mp4"
    cut(storage, 3.0, 28.0, target)
    stamps = times(target)
    assert [dts for dts, _ in stamps] == sorted({dts for dts, _ in stamps})
    assert all(pts >= dts for dts, pts in stamps)
    shown = sorted(pts for _, pts in stamps)
    complete = shown[: round(26.0 * 10)]
    assert {b - a for a, b in itertools.pairwise(complete)} == {9000}


def test_the_index_comes_first(storage: Storage, tmp_path: Path) -> None:
    add_clips(storage, tmp_path, count=2)
    cut(storage, 1.0, 9.0, tmp_path / "r.mp4")
    body = (tmp_path / "r.mp4").read_bytes()
    assert 0 < body.index(b"moov") < body.index(b"mdat")


def test_a_hole_keeps_its_length_and_is_reported(storage: Storage, tmp_path: Path) -> None:
    for path in add_clips(storage, tmp_path, count=6)[2:3]:
        path.unlink()
    joined = cut(storage, 5.0, 25.0, tmp_path / "r.mp4")
    assert joined.spans == [(T0 + 5 * S, T0 + 10 * S), (T0 + 15 * S, T0 + 25 * S)]
    assert verify(tmp_path / "r.mp4", 0).length_ns >= 20 * S - NS_PER_MS


def test_an_overlapping_recording_of_another_owner_gives_no_frame_twice(storage: Storage, tmp_path: Path) -> None:
    add_clip(storage, tmp_path, T0, 5.0, first_number=0)
    add_clip(storage, tmp_path, T0 + 3 * S, 7.0, epoch=2, first_number=30)
    joined = cut(storage, 1.0, 9.0, tmp_path / "r.mp4")
    assert count_frames(tmp_path / "r.mp4") == list(range(10, 90))
    assert joined.spans == [(T0 + 1 * S, T0 + 9 * S)]


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("overlap_ms", [10, 40, 50])
def test_clips_that_overlap_by_a_frame_or_less_are_joined_with_all_their_frames(
    storage: Storage, tmp_path: Path, overlap_ms: int, b_frames: int
) -> None:
    for number, start_ns in enumerate((0, 4 * S - overlap_ms * NS_PER_MS, 8 * S - overlap_ms * NS_PER_MS)):
        epoch = min(number + 1, 2)
        add_clip(
            storage, tmp_path, T0 + start_ns, 4.0, epoch=epoch, first_number=number * 100, fps=25, b_frames=b_frames
        )
    target = tmp_path / "r.mp4"
    joined = cut(storage, 0.0, 12.0 - overlap_ms / 1000, target)
    verified = verify(target, 0)
    assert (verified.frames, verified.broken, joined.packets) == (300, 0, 300)
    assert count_frames(target) == list(range(300))
    assert len(joined.spans) == 1 and abs(verified.length_ns - joined.length_ns) <= 50 * NS_PER_MS


def test_a_torn_clip_gives_what_is_in_it(storage: Storage, tmp_path: Path) -> None:
    paths = add_clips(storage, tmp_path, count=3)
    paths[1].write_bytes(paths[1].read_bytes()[: paths[1].stat().st_size // 2])
    joined = cut(storage, 0.0, 15.0, tmp_path / "r.mp4")
    assert joined.spans[0][0] == T0 and joined.spans[-1][1] == T0 + 15 * S
    assert len(joined.spans) == 2
    assert verify(tmp_path / "r.mp4", 0).frames > 100


def test_a_clip_that_is_none_is_named(storage: Storage, tmp_path: Path) -> None:
    paths = add_clips(storage, tmp_path, count=2)
    paths[1].write_bytes(b"nothing of the kind")
    bad = sources(storage)[1]
    with pytest.raises(BadClip) as caught:
        stream_format(bad)
    assert caught.value.clip == ClipId(camera_id="gate-1", epoch=1, start_ns=T0 + 5 * S)
    with pytest.raises(BadClip):
        cut(storage, 1.0, 9.0, tmp_path / "r.mp4")


def test_a_disk_that_refuses_is_no_fault_of_the_media(storage: Storage, tmp_path: Path) -> None:
    add_clips(storage, tmp_path, count=1)
    with pytest.raises(StorageUnavailable):
        cut(storage, 1.0, 4.0, Path("/dev/full"))


def test_verify_refuses_what_does_not_decode(tmp_path: Path) -> None:
    (tmp_path / "r.mp4").write_bytes(b"nothing of the kind")
    with pytest.raises(BadMedia):
        verify(tmp_path / "r.mp4", 0)


def test_the_picture_is_the_frame_nearest_to_the_sample(storage: Storage, tmp_path: Path) -> None:
    add_clips(storage, tmp_path, count=3)
    joined = cut(storage, 2.5, 12.5, tmp_path / "r.mp4")
    sample_ns = T0 + 7 * S + 30 * NS_PER_MS
    picture = verify(tmp_path / "r.mp4", sample_ns - joined.start_ns).picture
    assert picture is not None and picture.pts == 5 * 90_000
    assert verify(tmp_path / "r.mp4", 60 * S).picture is None
