"""How many samples a second of CPU the judge's pure chain takes: message in, tracker, rules, episodes, messages out.

12 rules (6 intrusion, 6 loitering) with 4 zones each, 48 different polygons, objects that walk about in noise; a
snapshot is made after each clip, as the worker does.  Broker, Redis and disk are not in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np

from nodeagent.contract.codec import Message, decode_detections, encode_alarm, encode_detections
from nodeagent.contract.detections import DETECTION_DTYPE
from nodeagent.contract.rule import IntrusionRule, LoiteringRule, Rule
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.evidence import Author
from nodeagent.judge.snapshot import pack
from tests.bench.harness import Result, result
from tests.support.scenarios import T0_NS, S, clip_of

#: Objects per sample; the figure is asked for at 20.
OBJECTS = (10, 20, 50, 100)
FPS = 5
SAMPLES_PER_CLIP = 25
CLIPS = 60
CLIPS_QUICK = 15
ROUNDS = 3


def rules() -> tuple[Rule, ...]:
    """6 intrusion and 6 loitering rules, 4 zones each, every zone another pentagon."""
    rng = np.random.default_rng(3)
    made: list[Rule] = []
    for number in range(12):
        zones = []
        for zone in range(4):
            x, y = rng.uniform(0.15, 0.85, 2)
            angles = np.sort(rng.uniform(0, 2 * np.pi, 5))
            corners = [
                (float(np.clip(x + 0.12 * np.cos(a), 0, 1)), float(np.clip(y + 0.12 * np.sin(a), 0, 1))) for a in angles
            ]
            zones.append({"name": f"z{zone}", "polygon": corners})
        kind = (IntrusionRule, LoiteringRule)[number % 2]
        made.append(kind.model_validate({"rule_id": f"r{number}", "zones": zones}))
    return tuple(made)


def scene(objects: int, clips: int) -> list[Message]:
    """Messages of people who walk to and fro: 5 % of the boxes missed, 3 % of jitter."""
    rng = np.random.default_rng(objects)
    place, speed = rng.uniform(0.05, 0.95, (objects, 2)), rng.uniform(-0.05, 0.05, (objects, 2))
    messages = []
    for seq in range(clips):
        part = []
        for number in range(SAMPLES_PER_CLIP):
            place += speed / FPS
            speed[(place < 0.05) | (place > 0.95)] *= -1
            seen = rng.random(objects) > 0.05
            rows = np.zeros(int(seen.sum()), DETECTION_DTYPE)
            size = np.array((0.03, 0.1)) * rng.normal(1.0, 0.03, (len(rows), 2))
            feet = place[seen] + rng.normal(0.0, 0.03, (len(rows), 2)) * size
            rows["x1"], rows["x2"] = np.clip((feet[:, 0] - size[:, 0] / 2, feet[:, 0] + size[:, 0] / 2), 0, 1)
            rows["y1"], rows["y2"] = np.clip((feet[:, 1] - size[:, 1], feet[:, 1]), 0, 1)
            rows["score"] = rng.uniform(0.3, 0.95, len(rows))
            part.append((T0_NS + (seq * SAMPLES_PER_CLIP + number) * S // FPS, rows))
        messages.append(encode_detections(clip_of(part, seq, 5 * S)))
    return messages


def judged(messages: list[Message], of: tuple[Rule, ...]) -> tuple[float, int]:
    """CPU seconds for all messages, and alarm messages made."""
    judge = CameraJudge(Author("node", "cam", 15.0, 15.0), of, FPS)
    alarms = 0
    begin = time.process_time()
    for message in messages:
        clip = decode_detections(message)
        judge.ledger.arrive(clip.header)
        for alarm in judge.judge(clip):
            encode_alarm(alarm)
            alarms += 1
        pack(judge)
    return time.process_time() - begin, alarms


def _figures(quick: bool) -> Iterator[Result]:
    of, clips = rules(), CLIPS_QUICK if quick else CLIPS
    for objects in OBJECTS:
        messages = scene(objects, clips)
        rounds = [judged(messages, of) for _ in range(1 if quick else ROUNDS)]
        best_s, alarms = min(rounds)
        samples = clips * SAMPLES_PER_CLIP
        name = "judge_fps" if objects == 20 else f"judge_fps_{objects}"
        detail = (
            f"{objects} objects, 12 rules x 4 zones, {samples} samples, {alarms} alarm messages, best of {len(rounds)};"
            " CPU time of one thread"
        )
        yield result(name, round(samples / best_s, 1), "samples/s", "", detail)


def run(quick: bool) -> Iterable[Result]:
    """The figures."""
    return _figures(quick)
