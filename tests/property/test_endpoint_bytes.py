"""What the endpoint makes of files that are damaged and of headers that are nonsense: an answer, never a crash."""

from __future__ import annotations

import itertools
import os
import tempfile
from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.capture.endpoint.byte_ranges import slice_of
from nodeagent.capture.endpoint.fragmented import Layout, layout_of, patched
from nodeagent.contract.errors import BadMedia
from nodeagent.infra.settings.sections import PoolSettings
from nodeagent.infra.storage import Storage, init_pool
from tests.support.clip_files import cut_clips
from tests.support.media import make_video

START_NS = 1_795_494_669_000_000_000


@cache
def clip() -> bytes:
    """A clip of a second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        init_pool(folder / "pool")
        storage = Storage([PoolSettings(path=folder / "pool", reserve_gb=0)])
        video = make_video(folder / "a.mp4", width=64, height=48, seconds=1)
        (stored,) = cut_clips(storage, video, [START_NS], clip_s=1)
        return stored.path.read_bytes()


def laid_out(body: bytes) -> Layout | None:
    """The layout of a file with these bytes; None when it is refused."""
    fd = os.memfd_create("clip")
    try:
        os.write(fd, body)
        return layout_of(fd, START_NS)
    except BadMedia:
        return None
    finally:
        os.close(fd)


def test_the_clip_itself_is_taken_apart() -> None:
    layout = laid_out(clip())
    assert layout is not None
    assert len(layout.stamps) == 2
    assert clip()[layout.head + 4 : layout.head + 8] == b"moof"
    assert clip()[layout.end + 4 : layout.end + 8] == b"mfra"


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8), st.integers(0, 20_000))
def test_damage_is_refused_or_changes_nothing_but_stamps_within_the_file(
    damage: list[tuple[int, int]], length: int
) -> None:
    body = bytearray(clip())
    for at, value in damage:
        if at < len(body):
            body[at] = value
    cut = bytes(body[:length])
    layout = laid_out(cut)
    if layout is not None:
        assert 0 < layout.head <= layout.end <= len(cut)
        assert all(at >= 0 and at + len(stamp) <= len(cut) for at, stamp in layout.stamps)


@given(st.data())
def test_pieces_are_patched_as_the_whole_is(data: st.DataObject) -> None:
    body = clip()
    layout = laid_out(body)
    assert layout is not None
    whole = patched(body, 0, layout.stamps)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=12)) | {0, len(body)})
    pieces = [patched(body[a:b], a, layout.stamps) for a, b in itertools.pairwise(cuts)]
    assert b"".join(pieces) == whole != body


@given(st.text("bytes=-, 0123456789", max_size=24) | st.none(), st.integers(0, 10_000))
def test_a_range_lies_within_the_file(header: str | None, size: int) -> None:
    found = slice_of(header, size)
    assert found is None or 0 <= found.first <= found.end <= size
