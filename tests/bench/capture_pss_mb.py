"""Memory of a capture process under the real supervisor: its own, and its share of what the fork server loaded.

`python -m tests.bench.capture_pss_mb` prints what the largest one is made of, mapping by mapping.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.capture_cpu_ratio import ENCODER, PICTURE, SUB_ENCODER, SUB_PICTURE, _ffmpeg
from tests.bench.harness import Result, result
from tests.support.eventually import eventually
from tests.support.recording import RecordingNode, camera_toml

MB = 1_000_000
RING = "ring and board"
#: Kinds of mappings, by what stands in `smaps` where a file's path would; the first that matches counts.
PARTS = (
    ("heap", r"\[heap\]"),
    ("stacks", r"\[stack"),
    (RING, r"/dev/shm/"),
    ("written pages of libraries and programs", r"/"),
    ("anonymous", r""),
)
_HEAD = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)$")


def mappings(pid: int) -> list[tuple[str, Counter[str]]]:
    """Each mapping of a process: its path, and the fields of `smaps`, bytes."""
    found: list[tuple[str, Counter[str]]] = []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if head := _HEAD.match(line):
            found.append((head[3], Counter(size=int(head[2], 16) - int(head[1], 16))))
        elif line.endswith(" kB"):
            field, value = line.removesuffix(" kB").split(":")
            found[-1][1][field] = int(value) * 1024
    return found


def own(fields: Counter[str]) -> int:
    """Bytes of a mapping that no other process has."""
    return fields["Private_Dirty"] + fields["Private_Clean"]


def part_of(path: str) -> str:
    """Which of PARTS a mapping is."""
    return next(name for name, pattern in PARTS if re.match(pattern, path))


def memory_of(pid: int) -> tuple[Counter[str], Counter[str]]:
    """A process's own bytes and its proportional share (PSS), by part."""
    mine, share = Counter[str](), Counter[str]()
    for path, fields in mappings(pid):
        mine[part_of(path)] += own(fields)
        share[part_of(path)] += fields["Pss"]
    return mine, share


def run(quick: bool) -> Iterator[Result]:
    """Some cameras at 1080p25, each with clips behind it, and the largest of their processes; then with sub-streams."""
    count, clips = (2, 1) if quick else (4, 3)
    with recording(count, clips) as pids:
        mine, share = largest(pids)
    how = f"the largest of {count} processes recording 1080p25, 640 wide samples at 5/s; without the ring"
    yield result(
        "capture_own_mb", without_ring(mine) / MB, "MB", "<= 25", f"beyond what is shared: {told(mine)}; {how}"
    )
    yield result(
        "capture_pss_mb", without_ring(share) / MB, "MB", "", f"with its share of what was loaded before; {how}"
    )
    yield result("capture_ring_mb", share[RING] / MB, "MB", "", "its ring in /dev/shm, which its readers share")
    with recording(count, clips, with_sub=True) as pids:
        mine, share = largest(pids)
    how = f"the same with a sub-stream of 640x360, which is analysed: {told(mine)}"
    yield result("two_streams_own_mb", without_ring(mine) / MB, "MB", "<= 25", how)


def largest(pids: Sequence[int]) -> tuple[Counter[str], Counter[str]]:
    """`memory_of` the process with the most that is its own."""
    return max((memory_of(pid) for pid in pids), key=lambda both: without_ring(both[0]))


def told(parts: Counter[str]) -> str:
    """The parts in words, MB."""
    return ", ".join(f"{name} {size / MB:.1f}" for name, size in parts.most_common() if name != RING)


def without_ring(parts: Counter[str]) -> int:
    """Sum of all parts but the ring, which is its readers' too, and reserved by configuration."""
    return sum(size for name, size in parts.items() if name != RING)


@contextmanager
def recording(count: int, clips: int, *, with_sub: bool = False) -> Iterator[list[int]]:
    """Captures that have recorded so many clips each; gives their pids."""
    names = [f"cam{n}" for n in range(count)]
    with tempfile.TemporaryDirectory() as folder, RecordingNode() as node:
        made = [Path(folder) / name for name in ("main.mp4", "sub.mp4")]
        for video, picture, encoder in zip(made, (PICTURE, SUB_PICTURE), (ENCODER, SUB_ENCODER), strict=True):
            _ffmpeg("-f", "lavfi", "-i", picture, "-t", "6", *encoder.split(), "-pix_fmt", "yuv420p", str(video))
        main, sub = map(str, made)
        section = {name: camera_toml(name, main, analyse=sub if with_sub else "") for name in names}
        node.configure({name: text.replace('" }', '", loop = true }') for name, text in section.items()})
        for name in names:
            node.capturing(name)
            eventually(lambda: node.counters(name)["clips_made"] >= clips, within_s=90)  # noqa: B023
        # Asked now: on a busy machine one may have been ended as hanging, and started again.
        yield [node.capturing(name) for name in names]


if __name__ == "__main__":
    with recording(4, 3) as processes:
        rows = mappings(max(processes, key=lambda pid: sum(map(own, (fields for _, fields in mappings(pid))))))
    print(f"{'own KB':>8} {'PSS KB':>8} {'size KB':>9}  mapping")
    for path, fields in sorted(rows, key=lambda row: -own(row[1])):
        if own(fields) >= 64 * 1024:
            print(f"{own(fields) >> 10:8} {fields['Pss'] >> 10:8} {fields['size'] >> 10:9}  {path or 'anonymous'}")
