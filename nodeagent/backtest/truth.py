"""What really happened, as somebody wrote it down, and how well the episodes tell of it.

Pure.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from statistics import median

import numpy as np
from scipy.optimize import linear_sum_assignment

from nodeagent.backtest.episodes import Episode
from nodeagent.contract.errors import ConfigError, Fault
from nodeagent.contract.ids import NS_PER_S

#: Columns that a file must have, and the one that it may have.
COLUMNS = ("rule", "zone", "start", "end")
OPTIONAL = "camera"
#: Numbers from here on are seconds since 1970; smaller ones count from the first clip.
EPOCH_SECONDS_FROM = 1e9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Event:
    """Something of which the rule should tell.

    Attributes:
        line: of the file.
        zone, camera_id: empty: any.
        start_ns, end_ns: UTC ns.
    """

    line: int
    camera_id: str
    rule_id: str
    zone: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Score:
    """How well episodes tell of events.

    Attributes:
        pairs: events with the episodes that told of them.
        missed: events that nobody told of.
        false: episodes without an event.
    """

    pairs: tuple[tuple[Event, Episode], ...]
    missed: tuple[Event, ...]
    false: tuple[Episode, ...]

    @property
    def precision(self) -> float | None:
        """Share of episodes that tell of an event; None: there are none."""
        told = len(self.pairs) + len(self.false)
        return len(self.pairs) / told if told else None

    @property
    def recall(self) -> float | None:
        """Share of events that were told of; None: there are none."""
        happened = len(self.pairs) + len(self.missed)
        return len(self.pairs) / happened if happened else None

    @property
    def delays_s(self) -> list[float]:
        """Seconds from each event's start to the sample that confirmed its episode; negative: told too early."""
        return [(episode.confirmed_ns - event.start_ns) / NS_PER_S for event, episode in self.pairs]

    @property
    def delay_p50_s(self) -> float | None:
        """The median delay."""
        return median(self.delays_s) if self.pairs else None

    @property
    def delay_max_s(self) -> float | None:
        """The longest delay."""
        return max(self.delays_s, default=None)


def parse_truth(text: str, name: str, first_ns: int, zone: tzinfo) -> list[Event]:
    """Events of a CSV file with the columns `rule,zone,start,end` and maybe `camera`.

    Args:
        text: of the file.
        name: of the file, for faults.
        first_ns: where small numbers count from, UTC ns.
        zone: of times that carry no offset.

    Raises:
        ConfigError: names every fault as `FILE:LINE: column`.
    """
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    faults: list[Fault] = []
    events: list[Event] = []
    try:
        header = [column.strip() for column in next(reader, [])]
        _check_header(header, name)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                faults.append(Fault(f"{name}:{reader.line_num}", f"expected {len(header)} columns, found {len(row)}"))
                continue
            cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
            event = _event(cells, f"{name}:{reader.line_num}", reader.line_num, first_ns, zone)
            faults += [event] if isinstance(event, Fault) else []
            events += [event] if isinstance(event, Event) else []
    except csv.Error as exc:
        faults.append(Fault(f"{name}:{reader.line_num}", f"no CSV: {exc}"))
    if faults:
        raise ConfigError(faults)
    return events


def _check_header(header: Sequence[str], name: str) -> None:
    wanted = {*COLUMNS, OPTIONAL}
    if len(set(header)) == len(header) and set(COLUMNS) <= set(header) <= wanted:
        return
    message = f"expected the columns {','.join(COLUMNS)} and maybe {OPTIONAL}"
    raise ConfigError([Fault(f"{name}:1", message, repr(",".join(header)))])


def _event(cells: dict[str, str], where: str, line: int, first_ns: int, zone: tzinfo) -> Event | Fault:
    if not cells["rule"]:
        return Fault(f"{where}: rule", "expected a rule_id")
    times = []
    for column in ("start", "end"):
        time_ns = _time(cells[column], first_ns, zone)
        if time_ns is None:
            expected = "expected seconds from the first clip, seconds since 1970, or `2026-11-24T08:30:00`"
            return Fault(f"{where}: {column}", expected, repr(cells[column]))
        times.append(time_ns)
    if times[1] < times[0]:
        return Fault(f"{where}: end", "expected no time before start", repr(cells["end"]))
    return Event(line, cells.get(OPTIONAL, ""), cells["rule"], cells["zone"], times[0], times[1])


def _time(text: str, first_ns: int, zone: tzinfo) -> int | None:
    try:
        number = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    if not math.isfinite(number) or abs(number) >= EPOCH_SECONDS_FROM * 10:
        return None
    return round(number * NS_PER_S) + (0 if number >= EPOCH_SECONDS_FROM else first_ns)


def score(events: Sequence[Event], episodes: Sequence[Episode]) -> Score:
    """Pair each event with at most one episode of its rule (and zone and camera, if it names them).

    As many as possible are paired, among these so that they overlap best.
    """
    gain = np.zeros((len(events), len(episodes)))
    # Smaller together than one pair more.
    share = 1.0 / (min(gain.shape, default=0) + 1)
    for i, event in enumerate(events):
        for j, episode in enumerate(episodes):
            if _is_about(event, episode):
                common, union = _overlap(event, episode)
                gain[i, j] = 1.0 + share * common / union if common > 0 else 0.0
    rows, columns = linear_sum_assignment(gain, maximize=True)
    chosen = {int(i): int(j) for i, j in zip(rows, columns, strict=True) if gain[i, j] > 0}
    told = set(chosen.values())
    return Score(
        tuple((events[i], episodes[j]) for i, j in sorted(chosen.items())),
        tuple(event for i, event in enumerate(events) if i not in chosen),
        tuple(episode for j, episode in enumerate(episodes) if j not in told),
    )


def by_rule(events: Sequence[Event], episodes: Sequence[Episode]) -> Iterator[tuple[str, Score]]:
    """The score of each rule that has events or episodes, by its id."""
    for rule_id in sorted({event.rule_id for event in events} | {episode.rule_id for episode in episodes}):
        mine = [event for event in events if event.rule_id == rule_id]
        yield rule_id, score(mine, [episode for episode in episodes if episode.rule_id == rule_id])


def _is_about(event: Event, episode: Episode) -> bool:
    return (
        event.rule_id == episode.rule_id
        and event.zone in ("", episode.zone)
        and event.camera_id in ("", episode.camera_id)
    )


def _overlap(event: Event, episode: Episode) -> tuple[int, int]:
    """Length of what both cover and of what either does, ns; an instant is 1 ns long."""
    from_ns, to_ns = episode.started_ns, max(episode.started_ns + 1, episode.until_ns)
    end_ns = max(event.start_ns + 1, event.end_ns)
    common = min(to_ns, end_ns) - max(from_ns, event.start_ns)
    return common, max(to_ns, end_ns) - min(from_ns, event.start_ns)
