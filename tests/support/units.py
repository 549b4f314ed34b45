"""A unit file of systemd's, and what systemd says of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.missing import not_tested


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `systemd-analyze` says."""
    program = shutil.which("systemd-analyze")
    if program is None:
        not_tested("no systemd-analyze: apt-get install systemd")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


@dataclass(frozen=True)
class UnitFile:
    """One of `systemd/`."""

    path: Path

    def option(self, name: str) -> str:
        """Its last value of an option."""
        lines = self.path.read_text().splitlines()
        return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")][-1]

    def installed(self, folder: Path, program: str) -> str:
        """Path of a copy whose `program` exists on this machine."""
        copy = folder / self.path.name
        copy.write_text(self.path.read_text().replace(program, "/bin/true"))
        return str(copy)


def assert_nothing_to_say(installed: str) -> None:
    """Unknown keys and bad values are warnings with exit code 0."""
    done = analyze("verify", installed)
    assert (done.returncode, done.stderr) == (0, "")


def assert_little_exposed(installed: str, most: int) -> None:
    """`most`: points of exposure as systemd counts them."""
    done = analyze("security", "--offline=true", f"--threshold={most}", "--json=short", installed)
    assert done.returncode == 0, done.stdout
    checks = {check["json_field"]: check["set"] for check in json.loads(done.stdout)}
    assert checks["NoNewPrivileges"] is True
