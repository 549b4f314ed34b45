"""Memory of a capture process under the real supervisor: its own, and its share of what the fork server loaded.

`python -m tests.bench.capture_pss_mb` prints what the largest one is made of, mapping by mapping.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.capture_cpu_ratio import ENCODER, PICTURE, _ffmpeg
from tests.bench.harness import Result, result
from tests.support.eventually import eventually
from tests.support.recording import RecordingNode, camera_toml

MB = 1_000_000
#: Kinds of mappings, by what stands in `smaps` where a file's path would; the first that matches counts.
PARTS = (
    ("heap", r"\[heap\]"),
    ("stacks", r"\[stack"),
    ("ring and board", r"/dev/shm/"),
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
    """Some cameras at 1080p25, each with clips behind it, and the largest of their processes."""
    count, clips = (2, 1) if quick else (4, 3)
    with recording(count, clips) as pids:
        found = [memory_of(pid) for pid in pids]
    mine, share = max(found, key=lambda both: without_ring(both[0]))
    how = f"the largest of {count} processes recording 1080p25, 640 wide samples at 5/s; without the ring"
    parts = ", ".join(f"{name} {size / MB:.1f}" for name, size in mine.most_common() if part_is_own(name))
    yield result("capture_own_mb", without_ring(mine) / MB, "MB", "<= 25", f"beyond what is shared: {parts}; {how}")
    yield result(
        "capture_pss_mb", without_ring(share) / MB, "MB", "", f"with its share of what was loaded before; {how}"
    )
    yield result(
        "capture_ring_mb", share["ring and board"] / MB, "MB", "", "its ring in /dev/shm, which its readers share"
    )


def without_ring(parts: Counter[str]) -> int:
    """Sum of the parts that are the process's own affair."""
    return sum(size for name, size in parts.items() if part_is_own(name))


def part_is_own(name: str) -> bool:
    """Whether a part is the process's own affair: the ring is its readers' too, and reserved by configuration."""
    return name != "ring and board"


@contextmanager
def recording(count: int, clips: int) -> Iterator[list[int]]:
    """Captures that have recorded so many clips each; gives their pids."""
    names = [f"cam{n}" for n in range(count)]
    with tempfile.TemporaryDirectory() as folder, RecordingNode() as node:
        video = Path(folder) / "camera.mp4"
        _ffmpeg("-f", "lavfi", "-i", PICTURE, "-t", "6", *ENCODER.split(), "-pix_fmt", "yuv420p", str(video))
        section = {name: camera_toml(name, str(video)) for name in names}
        node.configure({name: text.replace('" }', '", loop = true }', 1) for name, text in section.items()})
        pids = [node.capturing(name) for name in names]
        for name in names:
            eventually(lambda: node.counters(name)["clips_made"] >= clips, within_s=90)  # noqa: B023
        yield pids


if __name__ == "__main__":
    with recording(4, 3) as processes:
        rows = mappings(max(processes, key=lambda pid: sum(map(own, (fields for _, fields in mappings(pid))))))
    print(f"{'own KB':>8} {'PSS KB':>8} {'size KB':>9}  mapping")
    for path, fields in sorted(rows, key=lambda row: -own(row[1])):
        if own(fields) >= 64 * 1024:
            print(f"{own(fields) >> 10:8} {fields['Pss'] >> 10:8} {fields['size'] >> 10:9}  {path or 'anonymous'}")
