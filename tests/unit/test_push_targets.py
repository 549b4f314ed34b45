"""Which push targets may be asked, and by whom, while one of them keeps everybody waiting."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from nodeagent.alarm.targets import PROBE_S, SLOW_MS, Targets
from nodeagent.infra.alarm_records import PushRow
from nodeagent.infra.settings.sections import PushSettings
from tests.support.alarms import alarm_row
from tests.support.fake_processes import TurnedClock

CRM = PushSettings(name="crm", url=SecretStr("http://crm/"), timeout_s=10.0)
SMS = PushSettings(name="sms", url=SecretStr("http://sms/"), timeout_s=10.0)


def attempt(status: int | None = None, duration_ms: int = 10, target: str = "crm") -> PushRow:
    accepted = status == 200
    return PushRow(target, 0, duration_ms, status, accepted, "" if accepted else "no")


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def targets(clock: TurnedClock) -> Targets:
    return Targets((CRM, SMS), clock)


def test_a_silent_target_is_asked_by_the_alarm_that_found_it_silent_and_after_a_while_by_one_other(
    targets: Targets, clock: TurnedClock
) -> None:
    assert targets.reserve(CRM, "1") and targets.reserve(CRM, "2")
    targets.note(attempt(), "1")
    targets.note(attempt(), "2")
    assert targets.may_ask(CRM, "1") and not targets.may_ask(CRM, "2") and targets.may_ask(SMS, "2")
    clock.now_s += PROBE_S
    assert targets.may_ask(CRM, "3") and targets.reserve(CRM, "2")
    assert not targets.reserve(CRM, "3") and not targets.may_ask(CRM, "1")
    targets.note(attempt(200), "2")
    assert targets.may_ask(CRM, "3") and targets.failing == {}


def test_silent_targets_are_asked_last_and_those_that_accepted_not_at_all(targets: Targets) -> None:
    assert [t.name for t in targets.owed(alarm_row())] == ["crm", "sms"]
    targets.note(attempt(), "1")
    assert [t.name for t in targets.owed(alarm_row())] == ["sms", "crm"]
    assert [t.name for t in targets.owed(alarm_row(pushes=(attempt(200, target="sms"),)))] == ["crm"]


@pytest.mark.parametrize(
    ("status", "duration_ms", "silent"), [(400, 20, False), (503, 20, False), (504, SLOW_MS, True), (None, 20, True)]
)
def test_a_quick_refusal_fails_that_alarm_only(targets: Targets, status: int, duration_ms: int, silent: bool) -> None:
    targets.note(attempt(status, duration_ms), "1")
    assert targets.may_ask(CRM, "2") is not silent
    assert targets.failing == {"crm": "no"}
