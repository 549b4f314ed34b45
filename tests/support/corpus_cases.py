"""The corpus of broken and odd streams, with what a camera that sends them must show.

Files are of some seconds at 25 frames/s, 160x120, unless they are about that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av

from nodeagent.contract.states import State
from tests.support.corpus import (
    TS_TICKS,
    TS_WRAP,
    access_units,
    change_units,
    elementary,
    encode,
    first_unit,
    flip_bits,
    noise,
    remux,
    restamp,
    shifted,
    sound,
)

Make = Callable[[Path], Path]
#: Frames of a file that is about more than one GOP of four.
LONG = 150
#: Frames of a file that is so long that what does not come is missed.
LONGER = 300
CLOSED_B = "bframes=2:b-adapt=0:open-gop=0"
PYRAMID = "bframes=3:b-adapt=0:b-pyramid=normal:ref=4:open-gop="


@dataclass(frozen=True)
class Case:
    """One stream.

    Attributes:
        make: writes it into a folder.
        state: how its source ends; None where chance decides between the file's end and a broken stream.
        seconds: how much of it is recorded; None where chance decides.
        problem: the state that is shown although its source delivers.
        whole: whether its clips decode without an error; else they can be read, and broken frames stay broken.
    """

    make: Make
    state: State | None = State.SOURCE_ENDED
    seconds: float | None = 4.0
    problem: State | None = None
    whole: bool = True


def _ts(folder: Path, **how: object) -> Path:
    return encode(folder / "a.ts", container="mpegts", **how)  # type: ignore[arg-type]


def _mp4(folder: Path, **how: object) -> Path:
    return encode(folder / "a.mp4", **how)  # type: ignore[arg-type]


def _bare(folder: Path, **how: object) -> Path:
    return elementary(folder / "a.h264", _mp4(folder, **how))


def _mkv(folder: Path) -> Path:
    return encode(folder / "a.mkv")


def _written(make: Make, change: Callable[[bytes], bytes], folder: Path) -> Path:
    path = make(folder)
    path.write_bytes(change(path.read_bytes()))
    return path


def _cut(make: Make) -> Make:
    return partial(_written, make, lambda body: body[: len(body) * 6 // 10])


def _bits(make: Make, rate: float) -> Make:
    return partial(_written, make, lambda body: flip_bits(body, rate))


def _then_noise(make: Make) -> Make:
    return partial(_written, make, lambda body: body + noise(100_000))


def _only(body: bytes, folder: Path) -> Path:
    path = folder / "a.mp4"
    path.write_bytes(body)
    return path


def _stamped(new: Callable[[int, int, int], tuple[int | None, int | None]], folder: Path) -> Path:
    return restamp(_ts(folder, frames=LONG, params=CLOSED_B), new)


def _keyless_ts(folder: Path) -> Path:
    return remux(_ts(folder, frames=LONGER), folder / "b.ts", lambda _, key: not key, "mpegts")


def _keyless_bare(folder: Path) -> Path:
    def change(body: bytes) -> bytes:
        return b"".join(unit for n, unit in enumerate(access_units(body)) if n % 25)

    return _written(partial(_bare, frames=LONGER), change, folder)


def _other_size(folder: Path) -> Path:
    other = first_unit(encode(folder / "other.mp4", size=(320, 240), frames=1), 7)
    return change_units(_bare(folder), {7}, lambda _: other)


def _garbage_sets(folder: Path) -> Path:
    return change_units(_bare(folder), {7, 8}, lambda unit: unit[:1] + noise(len(unit) - 2) + b"\x00")


def _no_sets(folder: Path) -> Path:
    return change_units(_bare(folder), {7, 8}, lambda _: b"")


def _garbage_header(folder: Path) -> Path:
    def change(body: bytes) -> bytes:
        at = body.index(b"avcC")
        end = at - 4 + int.from_bytes(body[at - 4 : at], "big")
        return body[: at + 14] + noise(end - at - 14) + body[end:]

    return _written(partial(_mp4, frames=LONGER), change, folder)


def _sizes(folder: Path) -> Path:
    sizes = ((160, 120), (320, 240), (64, 48))
    parts = [encode(folder / f"{w}.ts", size=(w, h), frames=50, container="mpegts") for w, h in sizes]
    (folder / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    return folder / "a.ts"


def _codecs(first: str, second: str, folder: Path) -> Path:
    # More of the first than waits between reading and recording.
    parts = [
        encode(folder / f"{codec}.ts", codec=codec, frames=frames, size=(64, 48), container="mpegts")
        for codec, frames in ((first, 850), (second, 50))
    ]
    (folder / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    return folder / "a.ts"


def _header_in_the_middle(folder: Path) -> Path:
    """FLV with a tag of the kind that carries H.264's header, and noise in it."""

    def change(body: bytes) -> bytes:
        at = 13
        for _ in range(40):
            at += 15 + int.from_bytes(body[at + 1 : at + 4], "big")
        data = b"\x17\x00\x00\x00\x00" + noise(40)
        tag = b"\x09" + len(data).to_bytes(3, "big") + body[at + 4 : at + 8] + bytes(3) + data
        return body[:at] + tag + len(tag).to_bytes(4, "big") + body[at:]

    return _written(lambda folder: encode(folder / "a.flv"), change, folder)


def _two_tracks(folder: Path) -> Path:
    sources = [av.open(str(encode(folder / f"{w}.mp4", size=(w, h)))) for w, h in ((160, 120), (64, 48))]
    with av.open(str(folder / "a.mp4"), "w") as out:
        tracks = [out.add_stream_from_template(source.streams.video[0]) for source in sources]
        for pair in zip(*(source.demux(video=0) for source in sources), strict=True):
            for packet, track in zip(pair, tracks, strict=True):
                if packet.size:
                    packet.stream = track
                    out.mux(packet)
    for source in sources:
        source.close()
    return folder / "a.mp4"


def _again_after_noise(folder: Path) -> Path:
    return _written(_ts, lambda body: body + noise(20_000) + body, folder)


_BAD = State.BAD_STREAM
CASES: dict[str, Case] = {
    "empty file": Case(partial(_only, b""), _BAD, 0),
    "text in an mp4": Case(partial(_only, b"no video at all\n" * 100), _BAD, 0),
    "noise": Case(partial(_only, noise(100_000)), _BAD, 0),
    "sound only": Case(lambda folder: sound(folder / "a.mp4"), State.NO_VIDEO, 0),
    "truncated mp4": Case(_cut(_mp4), _BAD, 0),
    "truncated ts": Case(_cut(_ts), seconds=2.4),
    "truncated mkv": Case(_cut(_mkv), seconds=2.36),
    "truncated bare": Case(_cut(_bare), seconds=2.44),
    "noise after ts": Case(_then_noise(_ts)),
    "noise after bare": Case(_then_noise(_bare)),
    "noise between": Case(_again_after_noise, seconds=8.0),
    "bit errors 1e-6": Case(_bits(_ts, 1e-6), seconds=None, whole=False),
    "bit errors 1e-5": Case(_bits(_ts, 1e-5), seconds=None, whole=False),
    # Broken tables announce tracks that are none: which bytes are hit depends on how long each encoding comes out.
    "bit errors 1e-4": Case(_bits(_ts, 1e-4), None, None, whole=False),
    "bit errors 1e-3": Case(_bits(_ts, 1e-3), None, None, whole=False),
    "bit errors 1e-2": Case(_bits(_ts, 1e-2), seconds=None, whole=False),
    "bit errors 1e-4, bare": Case(_bits(_bare, 1e-4), seconds=None, whole=False),
    "bit errors 1e-3, bare": Case(_bits(_bare, 1e-3), seconds=None, whole=False),
    "bit errors 1e-4, mkv": Case(_bits(_mkv, 1e-4), seconds=None, whole=False),
    "no key frame": Case(partial(_keyless_ts), seconds=0, problem=_BAD),
    "no key frame, bare": Case(_keyless_bare, seconds=0, problem=_BAD),
    "one key frame": Case(partial(_ts, frames=300, gop=10_000), seconds=12.0),
    "size of another stream": Case(_other_size, whole=False),
    "garbage parameter sets": Case(_garbage_sets, seconds=0, problem=_BAD),
    "no parameter sets": Case(_no_sets, seconds=0, problem=_BAD),
    "garbage in the header": Case(_garbage_header, seconds=0, problem=_BAD),
    "noise for a header in the middle": Case(_header_in_the_middle),
    "b frames": Case(partial(_ts, params=CLOSED_B)),
    "pyramid": Case(partial(_ts, params=PYRAMID + "0")),
    "open gop": Case(partial(_ts, frames=LONG, params=PYRAMID + "1"), seconds=6.0),
    "h265": Case(partial(_ts, codec="libx265", params="bframes=3:open-gop=0", frames=60), seconds=2.4),
    "h265 open gop": Case(partial(_ts, codec="libx265", params="bframes=3:open-gop=1", frames=LONG), seconds=6.0),
    "negative stamps": Case(partial(_stamped, shifted(lambda _: -5 * TS_TICKS)), seconds=6.0),
    "jump forward": Case(partial(_stamped, shifted(lambda n: 3600 * TS_TICKS * (n >= 80))), seconds=6.0),
    "jump back": Case(partial(_stamped, shifted(lambda n: -20 * TS_TICKS * (n >= 80))), seconds=6.0),
    "jump back an hour": Case(partial(_stamped, shifted(lambda n: TS_TICKS * (7200 - 3600 * (n >= 80)))), seconds=6.0),
    "wrap": Case(partial(_stamped, shifted(lambda _: TS_WRAP - 4 * TS_TICKS)), seconds=6.0),
    "stamps that stand": Case(partial(_stamped, lambda *_: (900_000, 900_000)), seconds=6.0),
    "no stamps": Case(partial(_stamped, lambda *_: (None, None)), seconds=6.0),
    "a third of the stamps": Case(partial(_stamped, lambda n, p, d: (None, None) if n % 3 else (p, d)), seconds=6.0),
    "no decoding stamps": Case(partial(_stamped, lambda _, pts, __: (pts, None)), seconds=6.0),
    "random stamps": Case(
        partial(_stamped, lambda n, p, d: (p * 7919 * n % TS_WRAP, d * 7919 * n % TS_WRAP)), seconds=6.0, whole=False
    ),
    # The last picture counts as long as the shortest pause.
    "0.1 frames/s": Case(partial(_mp4, fps=Fraction(1, 10), frames=5, gop=1), seconds=42.0),
    "2000 frames/s": Case(partial(_mp4, fps=2000, frames=2000, size=(64, 48), gop=500), seconds=1.0),
    "16x16": Case(partial(_mp4, size=(16, 16))),
    "8K": Case(partial(_mp4, size=(7680, 4320), frames=2, gop=1), seconds=0.08),
    "641x479": Case(partial(_mp4, size=(641, 479), pix_fmt="yuv444p", frames=50), seconds=2.0),
    "cropped": Case(partial(_mp4, size=(642, 478), frames=50), seconds=2.0),
    "other sizes": Case(_sizes, seconds=6.0),
    # Opened anew: a camera goes on with the new one, a file with its beginning.
    "another codec": Case(partial(_codecs, "libx264", "libx265"), _BAD, 34.0),
    "another codec back": Case(partial(_codecs, "libx265", "libx264"), _BAD, 34.0),
    "two tracks": Case(_two_tracks),
    "mjpeg": Case(lambda folder: encode(folder / "a.avi", codec="mjpeg", pix_fmt="yuvj420p", size=(161, 121))),
    "4:2:2": Case(partial(_mp4, pix_fmt="yuv422p")),
    "4:2:2 10 bit": Case(partial(_mp4, pix_fmt="yuv422p10le")),
    "4:4:4": Case(partial(_mp4, pix_fmt="yuv444p")),
    "10 bit": Case(partial(_mp4, pix_fmt="yuv420p10le")),
    "gray": Case(partial(_mp4, pix_fmt="gray")),
    "fields": Case(partial(_mp4, params="tff=1:interlaced=1")),
    "full range": Case(partial(_mp4, colour_range=2)),
    "raw pictures": Case(lambda folder: encode(folder / "a.avi", codec="rawvideo", frames=10), seconds=0, problem=_BAD),
}
