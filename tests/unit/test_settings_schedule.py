"""Faults of schedules and calendars: each once, with its path and what was expected."""

import pytest

from tests.unit.test_settings_faults import CAMERA, faults_in

RULE = """[[cameras.rules]]
rule_id = "r"
kind = "intrusion"
zones = [{ name = "z", polygon = [[0, 0], [1, 0], [0, 1]] }]
"""


@pytest.mark.parametrize(
    ("schedule", "path", "message"),
    [
        ('weekly = ["mon 22:00-06:00"]', ".time_zone", "required, but missing"),
        ('time_zone = "Asia/Peking"\nweekly = ["mon 22:00-06:00"]', ".time_zone", "expected an IANA time zone"),
        ('time_zone = "../etc/passwd"\nweekly = ["mon 22:00-06:00"]', ".time_zone", "expected an IANA time zone"),
        ('time_zone = "UTC"\nweekly = []', ".weekly", "expected at least 1 items"),
        ('time_zone = "UTC"\nweekly = ["mon 08:00-09:00", "Mon 22-06"]', ".weekly[1]", "expected days and times"),
        ('time_zone = "UTC"\nweekly = ["mon-off 22:00-06:00"]', ".weekly[0]", "expected days and times"),
        ('time_zone = "UTC"\nweekly = ["mon 24:00-06:00"]', ".weekly[0]", "from 00:00 to 24:00"),
        ('time_zone = "UTC"\nweekly = ["mon 06:00-24:01"]', ".weekly[0]", "from 00:00 to 24:00"),
        ('time_zone = "UTC"\nweekly = ["mon 06:00-06:00"]', ".weekly[0]", "a whole day is 00:00-24:00"),
        (
            'time_zone = "UTC"\nweekly = ["off 00:00-24:00"]\ncalendar = "plnat"',
            ".calendar",
            "or in a file the name of one under [[calendars]]",
        ),
    ],
)
def test_a_fault_of_a_schedule_is_named_where_it_stands(schedule: str, path: str, message: str) -> None:
    text = CAMERA % "a.mp4" + f"{RULE}[cameras.rules.schedule]\n{schedule}\n[[calendars]]\nname = 'plant'\n"
    faults = faults_in(text)
    assert list(faults) == [f"cameras[0].rules[0].schedule{path}"]
    assert message in faults[f"cameras[0].rules[0].schedule{path}"].message


def test_a_faulty_calendar_is_named_once_and_not_by_its_users() -> None:
    schedule = '[cameras.rules.schedule]\ntime_zone = "UTC"\nweekly = ["off 00:00-24:00"]\ncalendar = "plant"\n'
    text = CAMERA % "a.mp4" + RULE + schedule + "[[calendars]]\nname = 'plant'\ndays_off = ['soon']\n"
    assert list(faults_in(text)) == ["calendars[0].days_off[0]"]
