"""What several messages about one episode add up to.

Pure.  `amend` is commutative, associative and idempotent, so that messages may come in any order, more than once and
from two owners: the row is the same in the end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from nodeagent.contract.alarm import AlarmMessage
from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.rule import SEVERITIES, STORM_MAX, Severity

#: What the columns hold: characters of a zone's name and of a rule's kind, a count, a time.
ZONE_MAX = 64
RULE_KIND_MAX = 64
SUBJECTS_MAX = 2**31 - 1
BIGINT_MAX = 2**63 - 1
#: Longest cooldown that a rule may have, seconds.
COOLDOWN_MAX_S = 86_400.0
#: Longest window: far over the ten minutes of the settings, short enough that its clips can be listed, seconds.
WINDOW_MAX_S = 3_600.0


@dataclass(frozen=True, slots=True, order=True)
class Confirmation:
    """What is told by the sample that confirmed the alarm; of several the least one counts, compared field by field.

    All of it is replaced together: a replay window of one message with the boxes of another would show nothing.
    """

    confirmed_ns: int
    sample_ns: int
    replay_from_ns: int
    replay_to_ns: int
    node_id: str
    epoch: int
    rule_kind: str
    #: JSON with sorted keys.
    evidence: str
    timings: str


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one episode.

    Attributes:
        last_ns: latest capture time at which any message tells that the episode still lasted.
        ended_ns: none while no message told of an end.
    """

    first: Confirmation
    started_ns: int
    last_ns: int
    ended_ns: int | None
    severity: Severity
    subjects: int


def known_from(message: AlarmMessage) -> Known:
    """What one message tells."""
    first = Confirmation(
        confirmed_ns=message.confirmed_ns,
        sample_ns=message.evidence.sample_ns,
        replay_from_ns=message.replay_from_ns,
        replay_to_ns=max(message.replay_to_ns, message.replay_from_ns),
        node_id=message.node_id,
        epoch=message.epoch,
        rule_kind=message.rule_kind,
        evidence=json.dumps(message.evidence.model_dump(mode="json"), sort_keys=True),
        timings=json.dumps(message.timings, sort_keys=True),
    )
    # A message that tells of the end is made when the end is found, which may be minutes later: nobody was there then.
    seen_ns = message.evidence.sample_ns if message.ended_ns is None else message.ended_ns
    times = (message.episode_started_ns, message.confirmed_ns, seen_ns)
    return Known(
        first=first,
        started_ns=message.episode_started_ns,
        last_ns=max(times),
        ended_ns=message.ended_ns,
        severity=message.severity,
        subjects=message.evidence.subjects,
    )


def amend(one: Known, other: Known) -> Known:
    """Both together: earliest start, latest end, highest severity, most subjects, the first confirmation."""
    ends = [end for end in (one.ended_ns, other.ended_ns) if end is not None]
    return Known(
        first=min(one.first, other.first),
        started_ns=min(one.started_ns, other.started_ns),
        last_ns=max(one.last_ns, other.last_ns),
        ended_ns=max(ends, default=None),
        severity=max(one.severity, other.severity, key=SEVERITIES.index),
        subjects=max(one.subjects, other.subjects),
    )


def reach_ns(message: AlarmMessage) -> tuple[int, int]:
    """The times between which an alarm of the same slot must have been seen for the message to be about it."""
    known = known_from(message)
    cooldown_ns = round(message.cooldown_s * NS_PER_S)
    return max(0, known.started_ns - cooldown_ns), min(BIGINT_MAX, known.last_ns + cooldown_ns)


def check(message: AlarmMessage) -> None:
    """Refuse what no judge sends and no row can hold: the contract's plain texts and numbers have no bounds.

    Raises:
        DecodeError: names the field.
    """
    window_s = (message.replay_to_ns - message.replay_from_ns) / NS_PER_S
    faults = {
        "zone": not 0 < len(message.zone) <= ZONE_MAX,
        "rule_kind": not 0 < len(message.rule_kind) <= RULE_KIND_MAX,
        "cooldown_s": not 0 <= message.cooldown_s <= COOLDOWN_MAX_S,
        "evidence.subjects": message.evidence.subjects > SUBJECTS_MAX,
        "storm_per_hour": message.storm_per_hour > STORM_MAX,
        "replay_to_ns": window_s > WINDOW_MAX_S,
        "timings": any(not 0 <= at <= BIGINT_MAX for at in message.timings.values()),
    }
    wrong = [name for name, is_wrong in faults.items() if is_wrong]
    if wrong:
        raise DecodeError(f"alarm: beyond all bounds: {', '.join(wrong)}")
