"""From the judge's messages to the episodes that an operator would have had.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nodeagent.contract.alarm import AlarmMessage


@dataclass(frozen=True, slots=True)
class Episode:
    """One alarm.

    Attributes:
        key: the same for every message about it.
        started_ns, confirmed_ns: capture times, UTC ns.
        ended_ns: None when the clips end before it does.
        until_ns: where it ends; where the clips do when it does not.
        subjects: distinct tracks that broke the rule.
        values: figures of the rule's own, the largest that were told.
    """

    key: str
    camera_id: str
    rule_id: str
    zone: str
    kind: str
    started_ns: int
    confirmed_ns: int
    ended_ns: int | None
    until_ns: int
    subjects: int
    values: dict[str, float]
    shadow: bool


def episodes_of(messages: Iterable[AlarmMessage], last_ns: int) -> list[Episode]:
    """Messages in the order in which the judge wrote them as episodes, by their start; `last_ns`: where clips end."""
    found: dict[str, Episode] = {}
    for message in messages:
        old = found.get(message.dedup_key)
        values = dict(old.values) if old else {}
        for name, value in message.evidence.values.items():
            values[name] = max(value, values.get(name, value))
        found[message.dedup_key] = Episode(
            key=message.dedup_key,
            camera_id=message.camera_id,
            rule_id=message.rule_id,
            zone=message.zone,
            kind=message.rule_kind,
            started_ns=message.episode_started_ns,
            confirmed_ns=old.confirmed_ns if old else message.confirmed_ns,
            ended_ns=message.ended_ns,
            until_ns=max(message.episode_started_ns, last_ns if message.ended_ns is None else message.ended_ns),
            subjects=max(message.evidence.subjects, old.subjects if old else 0),
            values=values,
            shadow=message.shadow,
        )
    return sorted(found.values(), key=lambda episode: (episode.started_ns, episode.camera_id, episode.key))
