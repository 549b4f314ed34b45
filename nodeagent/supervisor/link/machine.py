"""What the machine has and what processes took of it, read from the kernel."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Final

from nodeagent.contract.ownership import Resources
from nodeagent.infra.settings.registry import CapacitySettings
from nodeagent.ring.folder import rings_folder

#: Bytes of a GiB and of a MB, as the configuration counts them.
_GIB, _MB = 1024**3, 1_000_000
#: What one disk of the pool is counted with, bytes per second: a hard disk takes this of hundreds of streams at once,
#: with half of its time left for deleting and for replays.
DISK_BYTES_S: Final = 60.0 * _MB
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
#: Places of user and system time behind the process's name in /proc/<pid>/stat.
_UTIME, _STIME = 11, 12


def cpu_s(pid: int) -> float | None:
    """CPU time that a process took, seconds; None when it is gone."""
    try:
        # The name may hold blanks and brackets: what follows its last bracket does not.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS_PER_S


def ring_bytes(memory_dir: Path) -> Counter[str]:
    """Bytes of each camera's rings."""
    sizes: Counter[str] = Counter()
    try:
        with os.scandir(rings_folder(memory_dir)) as entries:
            for entry in entries:
                camera_id, mark, _ = entry.name.rpartition(".g")
                if mark and not entry.name.startswith("."):
                    sizes[camera_id] += entry.stat().st_size
    except OSError:
        return sizes
    return sizes


def capacity(
    given: CapacitySettings, memory_dir: Path, disks: int, infer_per_s: float | None, in_rings: int
) -> Resources | None:
    """What this node has; None while it is not known: how fast its inference is, or what its tmpfs has.

    Args:
        given: what the configuration says of it.
        memory_dir: folder on the tmpfs of the rings.
        disks: how many disks the pool has.
        infer_per_s: samples per second, as measured.
        in_rings: bytes of that tmpfs that rings take already.
    """
    speed, free = given.infer_per_s or infer_per_s, _free_bytes(memory_dir)
    # A capacity of 0 would say that it can take nothing.
    if speed is None or (free is None and not given.ring_gb):
        return None
    ring = given.ring_gb * _GIB if given.ring_gb else (free or 0) + in_rings
    write = given.write_mbytes_s * _MB if given.write_mbytes_s else disks * DISK_BYTES_S
    cores = given.decode_cores or len(os.sched_getaffinity(0))
    return Resources(decode_cores=cores, infer_per_s=speed, ring_bytes=ring, write_bytes_s=write)


def _free_bytes(folder: Path) -> int | None:
    try:
        info = os.statvfs(folder)
    except OSError:
        return None
    return info.f_bavail * info.f_frsize
