"""Turns a node's report into what `status` shows.  Pure: the drawing is in `status_draw`.

Problems come first, each with since-when, cause and hint; cameras that are well are folded into one line per state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.contract.report import ChildRow, Kind, NodeReport, Phase
from nodeagent.contract.states import MEANING, State

#: Phases that are a problem by themselves, with the hint.
PHASE_HINT: dict[Phase, str] = {
    Phase.BACKOFF: "the process ended and is started again by itself: its last words are in the log",
    Phase.FATAL: "it cannot serve with this configuration: correct it, then `systemctl reload nodeagent`",
}
#: Where the messages of a kind of worker lie that it put aside.
_DEAD_QUEUES = {Kind.INFERENCE: "clips.dead", Kind.JUDGE: "detections.dead", Kind.ALARM: "alarms.dead"}
#: Counter whose growth is a kind's rate.
_RATE_COUNTER = {
    Kind.CAPTURE: "samples",
    Kind.INFERENCE: "samples",
    Kind.JUDGE: "samples",
    Kind.ALARM: "received",
    Kind.ENDPOINT: "requests",
}
#: Counters worth a glance, per kind, with the words around them.
_NOTES: dict[Kind, tuple[tuple[str, str], ...]] = {
    Kind.CAPTURE: (("clips_made", "clips"), ("clips_unconfirmed", "unannounced"), ("reconnects", "reconnects")),
    Kind.INFERENCE: (("clips", "clips"), ("from_clip", "from file"), ("unknown", "unknown"), ("refused", "refused")),
    Kind.JUDGE: (("clips", "clips"), ("alarms", "alarm messages"), ("gaps", "gaps"), ("refused", "refused")),
    Kind.ALARM: (
        ("pushed", "pushed"),
        ("waiting", "waiting"),
        ("braked", "braked"),
        ("push_failures", "failed tries"),
        ("partial", "partial"),
    ),
    Kind.ENDPOINT: (("requests", "requests"), ("refused", "refused"), ("limited", "put off"), ("failed", "failed")),
    Kind.LINK: (("cameras", "cameras"), ("given", "given"), ("taken", "taken"), ("failed", "failed reports")),
    Kind.REGISTRY: (("cameras", "cameras"), ("nodes", "nodes")),
    Kind.STORAGE: (("clips", "clips"), ("deleted", "deleted")),
    Kind.REDIS: (("keys", "keys"),),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One child that somebody should look at.

    Attributes:
        name: the child.
        state: name of the state, or of the phase when that is the problem.
        since_ns: wall clock, UTC ns, since when.
        cause: one sentence, may be empty.
        hint: what to do.
        restarts: how often the child was started again.
    """

    name: str
    state: str
    since_ns: int
    cause: str
    hint: str
    restarts: int


@dataclass(frozen=True, slots=True)
class StageLine:
    """All children of one kind.

    Attributes:
        kind: the stage.
        children: how many there are.
        well: how many of them have no problem.
        per_s: growth of the stage's rate counter per second; none where there is no such counter.
        lag_s: how far behind the slowest one is; none where not known.
        notes: counters worth a glance.
    """

    kind: Kind
    children: int
    well: int
    per_s: float | None
    lag_s: float | None
    notes: str


@dataclass(frozen=True, slots=True)
class StatusView:
    """What `status` shows.

    Attributes:
        problems: longest-standing first.
        folded: cameras that are well, one line per state.
        stages: one line per kind, in the order of the data.
        gaps: camera and seconds that were not recorded since the node's start, largest first.
    """

    problems: tuple[Problem, ...]
    folded: tuple[str, ...]
    stages: tuple[StageLine, ...]
    gaps: tuple[tuple[str, float], ...]


def status_view(report: NodeReport, now_ns: int, earlier: NodeReport | None = None, over_s: float = 0.0) -> StatusView:
    """What to show of a report; rates are over `over_s` since `earlier`, or since the node's start without one."""
    rows = report.rows
    found = [*(p for p in map(problem_of, rows) if p), *_dead_letters(rows)]
    problems = sorted(found, key=lambda p: (p.since_ns, p.name))
    troubled = {problem.name for problem in problems}
    well = Counter(str(row.state) for row in rows if row.kind is Kind.CAPTURE and row.name not in troubled)
    elapsed_s = over_s if earlier else (now_ns - report.started_ns) / NS_PER_S
    before = {row.name: row for row in earlier.rows} if earlier else {}
    gaps = [(row.name.partition(":")[2], row.counters.get("gap_ms", 0) / 1000) for row in rows]
    return StatusView(
        problems=tuple(problems),
        folded=tuple(f"{n} camera{'s' if n != 1 else ''} {state}" for state, n in sorted(well.items())),
        stages=tuple(_stages(rows, before, troubled, elapsed_s, now_ns)),
        gaps=tuple(sorted((gap for gap in gaps if gap[1] > 0), key=lambda gap: (-gap[1], gap[0]))),
    )


def problem_of(row: ChildRow) -> Problem | None:
    """The row's problem, if it has one.  A state that names the cause goes before the phase that follows from it."""
    meaning = MEANING[row.state]
    if meaning.problem and row.phase not in (Phase.STOPPING, Phase.EXITED):
        return Problem(row.name, row.state, row.state_since_ns, row.detail, meaning.hint, row.restarts)
    if row.phase in PHASE_HINT:
        return Problem(row.name, row.phase, row.state_since_ns, row.detail, PHASE_HINT[row.phase], row.restarts)
    return None


def _dead_letters(rows: Iterable[ChildRow]) -> Iterable[Problem]:
    """A problem for each dead-letter queue that holds something, as its workers last saw it."""
    for kind, queue in _DEAD_QUEUES.items():
        seen = [row.counters for row in rows if row.kind is kind and row.counters.get("put_aside")]
        if seen:
            count = max(counters["put_aside"] for counters in seen)
            since_ns = min(counters["put_aside_ns"] for counters in seen)
            cause = f"{count} message{'s' if count != 1 else ''} that could not be used, with the reason in each"
            yield Problem(queue, "put_aside", since_ns, cause, "look into them, then purge the queue: docs/bus.md", 0)


def behind_s(row: ChildRow, now_ns: int) -> float | None:
    """How old the newest finished work of a child is, seconds; for alarms how long the newest took; None: not known."""
    newest_ns = row.counters.get("last_sample_ns") or row.counters.get("last_clip_ns")
    if newest_ns:
        return max(0.0, (now_ns - newest_ns) / NS_PER_S)
    lag_ms = row.counters.get("lag_ms")
    return lag_ms * NS_PER_MS / NS_PER_S if lag_ms else None


def _stages(
    rows: Sequence[ChildRow], before: dict[str, ChildRow], troubled: set[str], elapsed_s: float, now_ns: int
) -> Iterable[StageLine]:
    capturing = any(row.state is State.CAPTURING for row in rows)
    for kind in Kind:
        mine = [row for row in rows if row.kind is kind]
        if mine:
            yield StageLine(
                kind=kind,
                children=len(mine),
                well=sum(row.name not in troubled for row in mine),
                per_s=_rate(kind, mine, before, elapsed_s),
                lag_s=_lag(kind, mine, now_ns) if capturing or kind is Kind.ALARM else None,
                notes=", ".join(f"{total} {word}" for word, total in _notes(kind, mine)),
            )


def _rate(kind: Kind, rows: list[ChildRow], before: dict[str, ChildRow], elapsed_s: float) -> float | None:
    counter = _RATE_COUNTER.get(kind)
    if counter is None or elapsed_s <= 0:
        return None
    old = {name: row.counters.get(counter, 0) for name, row in before.items()}
    # Counters start at 0 with each node start: a smaller value than before is a new node, not work undone.
    return sum(max(0, row.counters.get(counter, 0) - old.get(row.name, 0)) for row in rows) / elapsed_s


def _lag(kind: Kind, rows: list[ChildRow], now_ns: int) -> float | None:
    if kind is Kind.CAPTURE:
        rows = [row for row in rows if row.state is State.CAPTURING]
    ages = [age for row in rows if (age := behind_s(row, now_ns)) is not None]
    # Inference workers share a queue: the stage is as far as the one that is furthest.
    return (min if kind is Kind.INFERENCE else max)(ages, default=None)


def _notes(kind: Kind, rows: list[ChildRow]) -> Iterable[tuple[str, int]]:
    for i, (counter, word) in enumerate(_NOTES[kind]):
        total = sum(row.counters.get(counter, 0) for row in rows)
        if total or i == 0:
            yield word, total
