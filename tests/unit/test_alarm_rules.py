"""The alarm's pure parts: states, what messages add up to, delays, the push's JSON."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from nodeagent.alarm.hand import Trouble, retry_after_s
from nodeagent.alarm.merge import amend, check, known_from, reach_ns
from nodeagent.alarm.payload import payload, signature, stamp
from nodeagent.alarm.snapshot import printable
from nodeagent.alarm.states import FINAL, NEXT, Event, sources
from nodeagent.alarm.store import Cutting
from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.alarm_records import AlarmState, PushRow
from tests.support.alarms import T0, alarm_row, message

S = NS_PER_S


def test_every_state_stands_in_the_table_and_final_ones_have_no_way_out() -> None:
    assert set(NEXT) == set(AlarmState)
    assert {AlarmState.PUSHED, AlarmState.RECORDED, AlarmState.QUARANTINED} == FINAL
    assert AlarmState.PUSHED not in {s for event in Event for s in sources(event)}


def test_every_state_is_reached_from_received() -> None:
    reached, edge = {AlarmState.RECEIVED}, {AlarmState.RECEIVED}
    while edge:
        edge = {to for state in edge for to in NEXT[state].values()} - reached
        reached |= edge
    assert reached == set(AlarmState)


def test_amending_takes_the_widest_interval_the_worst_severity_and_the_first_confirmation() -> None:
    first = known_from(message(confirmed_ns=T0 + 20 * S, severity="critical", ended_ns=T0 + 40 * S))
    other = known_from(message(confirmed_ns=T0 + 10 * S, ended_ns=T0 + 30 * S))
    both = amend(first, other)
    assert both == amend(other, first)
    assert (both.started_ns, both.ended_ns, both.severity) == (T0 + 9 * S, T0 + 40 * S, "critical")
    assert both.first == other.first


def test_reach_is_the_interval_widened_by_the_cooldown() -> None:
    assert reach_ns(message(ended_ns=T0 + 50 * S)) == (T0 + (14 - 30) * S, T0 + (50 + 30) * S)


def test_an_end_that_is_found_late_does_not_lengthen_the_episode() -> None:
    found = message().evidence.model_copy(update={"sample_ns": T0 + 900 * S})
    known = known_from(message(stage="ended", ended_ns=T0 + 20 * S, evidence=found))
    assert (known.last_ns, known.ended_ns) == (T0 + 20 * S, T0 + 20 * S)
    assert known_from(message(stage="updated", evidence=found)).last_ns == T0 + 900 * S


@pytest.mark.parametrize(("failed", "delay"), [(1, 1), (2, 5), (3, 30), (4, 300), (40, 300)])
def test_delays_of_a_failing_push_grow(failed: int, delay: int) -> None:
    pushes = tuple(PushRow("a", T0, 5, 500, False, "HTTP 500") for _ in range(failed))
    assert retry_after_s(alarm_row(pushes=(*pushes, PushRow("b", T0, 5, 200, True, ""))), 1) == delay
    # Left out without an attempt of its own: its message counts.
    assert retry_after_s(alarm_row(), failed) == delay


def test_the_worst_trouble_is_shown() -> None:
    trouble = Trouble()
    assert trouble.state(connected=True, busy=False) == (State.IDLE, "")
    trouble.targets = {"crm": "HTTP 500"}
    assert trouble.state(connected=True, busy=True) == (State.PUSH_FAILING, "crm: HTTP 500")
    assert trouble.state(connected=False, busy=True)[0] is State.BUS_DOWN
    trouble.database = "database: ping: OperationalError 2003"
    assert trouble.state(connected=False, busy=True) == (State.DATABASE_DOWN, trouble.database)


def test_payload_says_times_in_utc_and_in_the_sites_zone() -> None:
    doc = payload(alarm_row(), Cutting("/r.mp4", "ab", T0, 31 * S), "厂区", ZoneInfo("Asia/Shanghai"), "北门一号")
    assert doc["time"]["confirmed"] == "2023-11-14T22:13:21.000Z"
    assert doc["local_time"]["confirmed"] == "2023-11-15T06:13:21.000+08:00"
    assert doc["time"]["ended"] is None
    assert (doc["site"], doc["camera"]) == ("厂区", {"id": "gate-1", "name": "北门一号"})
    assert doc["replay"] == {
        "path": "/r.mp4", "sha256": "ab", "start": "2023-11-14T22:13:20.000Z", "seconds": 31.0, "wanted_seconds": 30.0,
        "partial": False, "reason": "", "missing_seconds": 0.0,
    }  # fmt: skip


def test_payload_says_when_the_replay_is_partial() -> None:
    doc = payload(alarm_row(), replace(Cutting(), partial_reason="no video", missing_ns=S), "s", ZoneInfo("UTC"), "")
    assert doc["replay"]["partial"] and doc["replay"]["path"] is None
    assert (doc["replay"]["reason"], doc["replay"]["missing_seconds"]) == ("no video", 1.0)
    assert doc["camera"]["name"] == "gate-1"


def test_stamp_is_exact_to_the_millisecond() -> None:
    assert stamp(T0 + 999_999_999) == "2023-11-14T22:13:20.999Z"


def test_signature_is_hmac_sha256() -> None:
    # RFC 4231, test case 2.
    assert signature(b"what do ya want for nothing?", "Jefe") == (
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


def test_text_without_a_font_for_it_stays_readable() -> None:
    assert printable("北门 gate", has_cjk=False) == "?? gate"
    assert printable("北门 gate", has_cjk=True) == "北门 gate"


@pytest.mark.parametrize(
    ("field", "value"),
    [("zone", "z" * 65), ("zone", ""), ("rule_kind", "k" * 65), ("cooldown_s", float("nan")), ("cooldown_s", -1.0),
     ("replay_to_ns", 2**63 - 1), ("timings", {"judged": -1})],
)  # fmt: skip
def test_what_no_row_can_hold_is_refused_by_name(field: str, value: object) -> None:
    check(message())
    with pytest.raises(DecodeError, match=field):
        check(message(**{field: value}))
