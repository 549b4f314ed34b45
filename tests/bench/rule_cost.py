"""What one more rule costs the judge per sample, by kind, at 50 objects.

One rule of every kind with 4 zones each against two of every kind, and against one of every kind and four more of one
kind; A and B one after the other in each round, CPU time, the best of each.  A rule more is 4 columns more in tables
that are there already, so the first rule of a kind costs more than the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from pydantic import TypeAdapter

from nodeagent.contract.rule import Rule
from nodeagent.judge.rules import KINDS
from tests.bench.harness import Result, result
from tests.bench.judge_fps import SAMPLES_PER_CLIP, judged, scene
from tests.support.scenarios import GROUND

OBJECTS = 50
CLIPS = 20
ROUNDS = 5
#: Rules more of one kind.
MORE = 4
#: Parameters of each kind; limits that nobody in the scene reaches, so that alarms are not what is measured.
FIELDS: dict[str, dict[str, object]] = {
    "intrusion": {"enter_s": 600.0},
    "loitering": {"dwell_s": 600.0},
    "line_crossing": {"min_distance": 1.0},
    "wrong_direction": {"heading": ((0.1, 0.5), (0.9, 0.5)), "min_distance": 1.0},
    "crowd": {"min_count": 1000},
    "absence": {"absent_s": 6000.0},
    "presence": {"labels": ("person",), "hold_s": 6000.0},
    "queue": {"max_length": 1000},
    "speed": {**GROUND, "limit_kmh": 500.0},
    "missing_ppe": {"labels": ("person",), "items": ("helmet",), "missing_s": 6000.0},
    "fall": {"still_s": 6000.0},
    "abandoned": {"labels": ("bag",), "left_s": 6000.0},
}
_RULE: TypeAdapter[Rule] = TypeAdapter(Rule)


def rule_of(kind: str, number: int) -> Rule:
    """The rule `number` of a kind, with 4 places of its own."""
    rng = np.random.default_rng((number, *kind.encode()))
    places = []
    for place in range(4):
        x, y = rng.uniform(0.15, 0.85, 2)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 2 if kind == "line_crossing" else 5))
        corners = [(float(x + 0.12 * np.cos(angle)), float(y + 0.12 * np.sin(angle))) for angle in angles]
        places.append({"name": f"p{place}", "line" if kind == "line_crossing" else "polygon": corners})
    where = "lines" if kind == "line_crossing" else "zones"
    doc = {"kind": kind, "rule_id": f"{kind}-{number}", where: places, **FIELDS[kind]}
    return _RULE.validate_python(doc)


def _figures(quick: bool) -> Iterator[Result]:
    clips, rounds = (5, 2) if quick else (CLIPS, ROUNDS)
    messages = scene(OBJECTS, clips)
    samples = clips * SAMPLES_PER_CLIP
    one = tuple(rule_of(kind, 0) for kind in KINDS)
    sets = {"": one, "all": (*one, *(rule_of(kind, 1) for kind in KINDS))}
    sets |= {kind: (*one, *(rule_of(kind, number) for number in range(1, 1 + MORE))) for kind in KINDS}
    best = dict.fromkeys(sets, float("inf"))
    for _ in range(rounds):
        for name, rules in sets.items():
            best[name] = min(best[name], judged(messages, rules)[0])
    detail = f"{OBJECTS} objects, 4 zones a rule, {samples} samples, best of {rounds}; CPU time of one thread"
    yield result("judge_fps_kinds", round(samples / best[""], 1), "samples/s", "", f"one rule of each kind; {detail}")
    cost_us = (best["all"] - best[""]) / len(KINDS) / samples * 1e6
    yield result("rule_cost_us", round(cost_us, 2), "us", "<= 5", f"a rule more, mean of all kinds; {detail}")
    for kind in KINDS:
        cost_us = (best[kind] - best[""]) / MORE / samples * 1e6
        yield result(f"rule_cost_us_{kind}", round(cost_us, 2), "us", "<= 5", f"a rule more, of {MORE}; {detail}")


def run(quick: bool) -> Iterable[Result]:
    """The figures."""
    return _figures(quick)
