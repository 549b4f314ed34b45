"""The registry's unit file, as systemd itself reads it."""

from pathlib import Path

import pytest

from nodeagent.infra.exits import ExitCode
from nodeagent.infra.sd_notify import WATCHDOG_SHARE
from registry.service import END_S, LOOK_S, STUCK_S
from registry.settings import DEFAULT_PATH, RegistrySection
from tests.support.units import UnitFile, assert_little_exposed, assert_nothing_to_say

UNIT = UnitFile(Path(__file__).parent.parent.parent / "systemd" / "nodeagent-registry.service")
#: Exposure that the unit must stay below, in tenths, as `systemd-analyze security` counts: 0 is none, 100 all.
EXPOSURE_MAX = 20


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """The unit with a program that exists on this machine."""
    return UNIT.installed(tmp_path, "/opt/nodeagent/bin/registry")


def test_systemd_has_nothing_to_say_against_it_and_it_may_do_little(installed: str) -> None:
    assert_nothing_to_say(installed)
    assert_little_exposed(installed, EXPOSURE_MAX)


def test_its_times_and_paths_are_those_of_the_service() -> None:
    assert float(UNIT.option("TimeoutStopSec")) > 3 * END_S
    # Told that all is well for the last time just before it hangs, systemd waits for longer than the service does.
    assert float(UNIT.option("WatchdogSec")) > STUCK_S + LOOK_S
    assert float(UNIT.option("WatchdogSec")) * WATCHDOG_SHARE > 10 * LOOK_S
    codes = UNIT.option("RestartPreventExitStatus").split()
    assert codes == [str(int(code)) for code in (ExitCode.USAGE, ExitCode.ALREADY_RUNNING)]
    assert f"-c {DEFAULT_PATH}" in UNIT.option("ExecStart")
    assert str(RegistrySection.model_fields["state_dir"].default) == f"/var/lib/{UNIT.option('StateDirectory')}"
