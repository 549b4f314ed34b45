"""The unit file, as systemd itself reads it, and the configuration for hosts without systemd."""

import configparser
from pathlib import Path

import pytest

from nodeagent.infra.sd_notify import WATCHDOG_SHARE
from nodeagent.infra.settings.sections import NodeSettings
from nodeagent.supervisor.daemon import EXIT_ALREADY_RUNNING
from nodeagent.supervisor.loop import READY_PATIENCE_S, TURN_S
from tests.support.units import UnitFile, analyze, assert_little_exposed, assert_nothing_to_say

ROOT = Path(__file__).parent.parent.parent
UNIT = UnitFile(ROOT / "systemd" / "nodeagent.service")
#: Exposure that the unit must stay below, in tenths, as `systemd-analyze security` counts: 0 is none, 100 all.
EXPOSURE_MAX = 25
#: Calls that the supervisor makes and that no filter may take away.
NEEDED_CALLS = {"pidfd_open", "pidfd_send_signal", "flock", "prctl", "setrlimit", "fallocate", "memfd_create"}


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """The unit with a program that exists on this machine."""
    return UNIT.installed(tmp_path, "/opt/nodeagent/bin/nodeagent")


def test_systemd_has_nothing_to_say_against_it(installed: str) -> None:
    assert_nothing_to_say(installed)


def test_it_may_do_little_more_than_it_needs(installed: str) -> None:
    assert_little_exposed(installed, EXPOSURE_MAX)


def test_the_calls_that_the_supervisor_makes_are_allowed() -> None:
    done = analyze("syscall-filter", "@system-service")
    assert done.returncode == 0, done.stderr
    allowed, seen = set(), {"@system-service"}
    queue = [done.stdout]
    while queue:
        for word in queue.pop().split():
            if word.startswith("@") and word not in seen:
                seen.add(word)
                queue.append(analyze("syscall-filter", word).stdout)
            allowed.add(word)
    refused = set(analyze("syscall-filter", "@privileged", "@obsolete").stdout.split())
    assert allowed >= NEEDED_CALLS
    assert not refused & NEEDED_CALLS


def test_its_times_fit_those_of_the_agent() -> None:
    assert float(UNIT.option("TimeoutStartSec")) > READY_PATIENCE_S
    assert float(UNIT.option("TimeoutStopSec")) > NodeSettings().stop_timeout_s
    assert float(UNIT.option("WatchdogSec")) * WATCHDOG_SHARE > 10 * TURN_S
    assert str(EXIT_ALREADY_RUNNING) in UNIT.option("RestartPreventExitStatus").split()


def test_both_give_it_as_many_open_files() -> None:
    conf = configparser.ConfigParser(interpolation=None)
    conf.read(ROOT / "etc" / "supervisord.conf")
    assert conf["supervisord"]["minfds"] == UNIT.option("LimitNOFILE")


def test_supervisord_stops_and_restarts_it_as_the_unit_does() -> None:
    conf = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=None)
    conf.read(ROOT / "etc" / "supervisord.conf")
    program = conf["program:nodeagent"]
    assert program.getfloat("stopwaitsecs") > NodeSettings().stop_timeout_s
    assert not program.getboolean("stopasgroup")
    assert program.getboolean("killasgroup")
    assert str(EXIT_ALREADY_RUNNING) in program["exitcodes"].split(",")
