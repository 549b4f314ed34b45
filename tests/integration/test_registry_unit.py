"""The registry's unit file, as systemd itself reads it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from nodeagent.infra.exits import ExitCode
from nodeagent.infra.sd_notify import WATCHDOG_SHARE
from registry.service import END_S, LOOK_S, STUCK_S
from registry.settings import DEFAULT_PATH, RegistrySection
from tests.support.missing import not_tested

UNIT = Path(__file__).parent.parent.parent / "systemd" / "nodeagent-registry.service"
#: Exposure that the unit must stay below, in tenths, as `systemd-analyze security` counts: 0 is none, 100 all.
EXPOSURE_MAX = 20


def option(name: str) -> str:
    values = [line.partition("=")[2] for line in UNIT.read_text().splitlines() if line.startswith(f"{name}=")]
    return values[-1]


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """The unit with a program that exists on this machine."""
    path = tmp_path / "nodeagent-registry.service"
    path.write_text(UNIT.read_text().replace("/opt/nodeagent/bin/registry", "/bin/true"))
    return str(path)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        not_tested("no systemd-analyze: apt-get install systemd")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_systemd_has_nothing_to_say_against_it_and_it_may_do_little(installed: str) -> None:
    done = analyze("verify", installed)
    assert (done.returncode, done.stderr) == (0, "")
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--json=short", installed)
    assert done.returncode == 0, done.stdout
    checks = {check["json_field"]: check["set"] for check in json.loads(done.stdout)}
    assert checks["NoNewPrivileges"] is True


def test_its_times_and_paths_are_those_of_the_service() -> None:
    assert float(option("TimeoutStopSec")) > 3 * END_S
    # Told that all is well for the last time just before it hangs, systemd waits for longer than the service does.
    assert float(option("WatchdogSec")) > STUCK_S + LOOK_S
    assert float(option("WatchdogSec")) * WATCHDOG_SHARE > 10 * LOOK_S
    codes = option("RestartPreventExitStatus").split()
    assert codes == [str(int(code)) for code in (ExitCode.USAGE, ExitCode.ALREADY_RUNNING)]
    assert f"-c {DEFAULT_PATH}" in option("ExecStart")
    assert str(RegistrySection.model_fields["state_dir"].default) == f"/var/lib/{option('StateDirectory')}"
