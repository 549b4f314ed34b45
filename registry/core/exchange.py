"""What registries tell each other through Redis: the reports that each of them got, and who leads.

An agent reports to any registry, and the leader has to hear it.  Each registry adds what it heard since its last turn
to one short stream and reads what the others added, in one round trip.  What was missed comes with the next report, a
second later; entries that lay too long say nothing of what lives now, and are skipped by Redis' own clock.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
from pydantic import Field, ValidationError

from nodeagent.contract.ids import Frozen, NodeId, UtcNs
from nodeagent.contract.ownership import LEASE_S, AgentReport
from nodeagent.infra.redis import translated
from registry.member import NodePhase

log = logging.getLogger(__name__)

#: The stream.
STREAM_KEY = "registry_exchange"
#: Entries that it keeps: of three registries that each add one a turn, several seconds.
ENTRIES_MOST = 64
#: Milliseconds after which a report says nothing of what lives now.
OLD_MS = int(LEASE_S * 1000 / 2)
#: Milliseconds that the stream outlives the last registry: nobody reads it then.
STREAM_TTL_MS = 60_000
#: Longest entry that is unpacked, bytes: some ten thousand reports.
ENTRY_MOST_BYTES = 200_000_000
_FIELD = b"e"
_FIRST = b"0-0"


class Held(Frozen):
    """The leader holds evictions: why, since when, and until when at the latest, wall clock, UTC ns."""

    reason: str
    since_ns: UtcNs
    until_ns: UtcNs


class Entry(Frozen):
    """What one registry tells in one turn.

    Attributes:
        registry_id: its name.
        life: of its process; an entry of one's own is known by it.
        leads: whether it is the leader; only then `phases` and `held` count.
        phases: of every node.
        held: none: evictions are not held.
        reports: that it got itself.
    """

    registry_id: NodeId
    life: str
    leads: bool = False
    phases: dict[NodeId, NodePhase] = Field(default_factory=dict)
    held: Held | None = None
    reports: tuple[AgentReport, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What the others told since the last turn, oldest first."""

    entries: tuple[Entry, ...] = ()


@dataclass(slots=True)
class Exchange:
    """One registry's end; for one thread."""

    client: redis.Redis
    registry_id: NodeId
    life: str
    _last: bytes = _FIRST
    #: Number of the newest own entry.
    _own: bytes = b""
    _undecodable: set[bytes] = field(default_factory=set)

    def swap(
        self,
        reports: Iterable[AgentReport],
        phases: Mapping[NodeId, NodePhase] | None = None,
        held: Held | None = None,
    ) -> Told:
        """Tell and hear, in one round trip.

        Args:
            reports: those that this registry got since the last turn.
            phases: of all nodes; none: this registry does not lead, or told it a moment ago.
            held: whether it holds evictions.

        Raises:
            Unavailable: Redis is away; what was to be told may be lost.
        """
        entry = Entry(
            registry_id=self.registry_id,
            life=self.life,
            leads=phases is not None,
            phases=dict(phases or {}),
            held=held,
            reports=tuple(reports),
        )
        client: Any = self.client
        with translated("exchange"):
            pipe = client.pipeline(transaction=False)
            pipe.time()
            pipe.xread({STREAM_KEY: self._last})
            if entry.reports or entry.leads:
                body = zlib.compress(entry.model_dump_json().encode(), 1)
                pipe.xadd(STREAM_KEY, {_FIELD: body}, maxlen=ENTRIES_MOST, approximate=False)
                pipe.pexpire(STREAM_KEY, STREAM_TTL_MS)
            answers = pipe.execute()
        seconds, micros = answers[0]
        told = self._heard(answers[1][0][1] if answers[1] else [], seconds * 1000 + micros // 1000)
        if len(answers) > 2:
            # It comes with the next turn: all reports of this one, which would be read a second time.
            self._own = answers[2]
        return told

    def _heard(self, rows: list[tuple[bytes, dict[bytes, bytes]]], now_ms: int) -> Told:
        if _ms(self._last) > now_ms + OLD_MS:
            # Another Redis answers now, whose clock is behind: its new entries have lower numbers.
            self._last = _FIRST
        entries = []
        for number, fields in rows:
            self._last = number
            if now_ms - _ms(number) > OLD_MS or number == self._own:
                continue
            entry = self._read(fields.get(_FIELD, b""))
            if entry is not None and entry.life != self.life:
                entries.append(entry)
        return Told(tuple(entries))

    def _read(self, body: bytes) -> Entry | None:
        try:
            return Entry.model_validate_json(zlib.decompressobj().decompress(body, ENTRY_MOST_BYTES))
        except (zlib.error, ValidationError) as exc:
            kind = type(exc).__name__.encode()
            if kind not in self._undecodable:
                self._undecodable.add(kind)
                log.warning("%s holds what is no entry of ours", STREAM_KEY, extra={"event": "exchange_unread"})
            return None


def _ms(number: bytes) -> int:
    """When an entry of this number was added, ms of Redis' clock."""
    return int(number.partition(b"-")[0])
