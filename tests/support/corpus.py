"""Tools to make broken and odd streams, by PyAV and by surgery on bytes: small, quick and the same every time.

Nothing is fetched.  `tests.support.corpus_cases` lists what is made with them.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.support.media import annex_b, picture

#: Bytes of one packet of MPEG-TS.
TS_PACKET = 188
#: Ticks per second of MPEG-TS's stamps, and where their 33 bits wrap.
TS_TICKS = 90_000
TS_WRAP = 1 << 33

#: New presentation and decoding stamps of access unit `n`, ticks; None leaves one out.
Restamp = Callable[[int, int, int], tuple["int | None", "int | None"]]


def encode(
    path: Path,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (160, 120),
    fps: Fraction | int = 25,
    gop: int = 25,
    frames: int = 100,
    pix_fmt: str = "yuv420p",
    params: str = "",
    container: str | None = None,
    colour_range: int = 0,
) -> Path:
    """Encode moving pictures; `params` are x264's or x265's own options, colon between."""
    options = {"preset": "ultrafast"}
    if codec in {"libx264", "libx265"}:
        shared = f"keyint={gop}:min-keyint={gop}:scenecut=0:log-level=0"
        own = "threads=1:sliced-threads=0" if codec == "libx264" else "pools=none:frame-threads=1"
        options[f"{codec[3:]}-params"] = ":".join(part for part in (shared, own, params) if part)
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if colour_range:
            stream.codec_context.color_range = colour_range
        # Very large pictures are made of small ones, which is quicker.
        even = (max(16, size[0] + size[0] % 2), size[1] + size[1] % 2) if size[0] < 4000 else (640, 360)
        for number in range(frames):
            frame = picture(number, *even).reformat(*size, format=pix_fmt)
            frame.pts, frame.time_base = number, 1 / Fraction(fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def remux(
    source: Path, target: Path, keep: Callable[[int, bool], bool] = lambda *_: True, container: str | None = None
) -> Path:
    """Copy the packets that `keep`, told number and whether it is a key frame, wants."""
    with av.open(str(source)) as read, av.open(str(target), "w", format=container) as out:
        stream = read.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for number, packet in enumerate(read.demux(stream)):
            if packet.size and keep(number, packet.is_keyframe):
                packet.stream = copy
                out.mux(packet)
    return target


def _stamp(mark: int, ticks: int) -> bytes:
    """Five bytes of a PES header: 33 bits of a time stamp, with marker bits between."""
    ticks %= TS_WRAP
    return bytes(
        (
            mark << 4 | ticks >> 29 & 0x0E | 1,
            ticks >> 22 & 0xFF,
            ticks >> 14 & 0xFE | 1,
            ticks >> 7 & 0xFF,
            ticks << 1 & 0xFE | 1,
        )
    )


def _ticks(body: bytes) -> int:
    return (body[0] & 0x0E) << 29 | body[1] << 22 | (body[2] & 0xFE) << 14 | body[3] << 7 | body[4] >> 1


def _pes_headers(body: bytearray) -> Iterator[int]:
    """Offsets of the video's PES headers in MPEG-TS."""
    for start in range(0, len(body) - TS_PACKET + 1, TS_PACKET):
        at = start + 4
        if body[start + 3] & 0x20:
            at += 1 + body[at]
        if body[start + 1] & 0x40 and bytes(body[at : at + 3]) == b"\x00\x00\x01" and body[at + 3] >> 4 == 0x0E:
            yield at


def restamp(path: Path, new: Restamp) -> Path:
    """Change the time stamps of an MPEG-TS file in place; the clock of its packets (PCR) is left as it is."""
    body = bytearray(path.read_bytes())
    for number, at in enumerate(_pes_headers(body)):
        flags, fields = body[at + 7] >> 6, at + 9
        old_pts = _ticks(body[fields : fields + 5])
        pts, dts = new(number, old_pts, _ticks(body[fields + 5 : fields + 10]) if flags == 3 else old_pts)
        room = body[at + 8]
        stamps = b"" if pts is None else _stamp(3 if flags == 3 and dts is not None else 2, pts)
        if flags == 3 and pts is not None and dts is not None:
            stamps += _stamp(1, dts)
        body[at + 7] = body[at + 7] & 0x3F | (0, 0x80, 0xC0)[len(stamps) // 5]
        body[fields : fields + room] = stamps + b"\xff" * (room - len(stamps))
    path.write_bytes(body)
    return path


def shifted(by: Callable[[int], int]) -> Restamp:
    """Stamps moved by so many ticks, by number of the access unit."""
    return lambda n, pts, dts: (pts + by(n), dts + by(n))


def flip_bits(body: bytes, rate: float, seed: int = 1, spare: int = 0) -> bytes:
    """The body with each bit after the first `spare` bytes turned with this chance."""
    chance = np.random.default_rng(seed)
    broken = np.frombuffer(body, np.uint8).copy()
    bits = (len(body) - spare) * 8
    for bit in chance.integers(0, bits, round(bits * rate)) if bits > 0 else ():
        broken[spare + bit // 8] ^= 1 << (bit % 8)
    return broken.tobytes()


def noise(size: int, seed: int = 3) -> bytes:
    """Bytes that are nothing."""
    return random.Random(seed).randbytes(size)


def sound(path: Path, seconds: float = 2.0) -> Path:
    """A file with a sound track and no video."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        for number in range(round(seconds * 8000 / 1024)):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 8000, number * 1024
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def elementary(path: Path, source: Path) -> Path:
    """The source's bare H.264 in Annex B form, which has no time stamps."""
    path.write_bytes(annex_b(source))
    return path


def access_units(body: bytes) -> list[bytes]:
    """Annex B cut at its access unit delimiters."""
    cuts = [found.start() for found in re.finditer(rb"\x00\x00\x00\x01\x09", body)] + [len(body)]
    return [body[start:end] for start, end in itertools.pairwise(cuts)]


def change_units(path: Path, types: set[int], change: Callable[[bytes], bytes]) -> Path:
    """Change, or with an empty result leave out, the H.264 units of these types in an Annex B file."""
    body = bytearray()
    for unit in re.split(rb"\x00\x00\x01", path.read_bytes())[1:]:
        new = change(unit) if unit and unit[0] & 0x1F in types else unit
        body += b"\x00\x00\x01" + new if new else b""
    path.write_bytes(b"\x00" + body)
    return path


def first_unit(path: Path, kind: int) -> bytes:
    """The first H.264 unit of this type in any file."""
    return next(unit for unit in re.split(rb"\x00\x00\x01", annex_b(path)) if unit and unit[0] & 0x1F == kind)


def decodes(path: Path) -> int:
    """Frames of a file, which decodes from its first frame on without an error; raises otherwise."""
    with av.open(str(path), options={"err_detect": "explode"}) as source:
        stream = source.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = [frame.pts for frame in source.decode(stream)]
    assert frames[0] == 0, "the first picture is not the clip's first"
    return len(frames)


def demuxes(path: Path) -> int:
    """Packets of a file, which begins with a key frame and whose stamps grow; raises otherwise."""
    with av.open(str(path)) as source:
        packets = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
    assert packets[0].is_keyframe
    assert all(b.dts > a.dts for a, b in itertools.pairwise(packets) if a.dts is not None and b.dts is not None)
    assert all(packet.pts is not None and packet.dts is not None and packet.pts >= packet.dts for packet in packets)
    return len(packets)
