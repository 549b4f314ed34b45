"""Missing protective equipment: a person without a helmet, a vest, or whatever else the model knows.

Pure.  An item belongs to the one person whose head or torso holds most of it, so a helmet in somebody else's hand, on a
shelf or on the person behind helps nobody.  Who is too small, cut off by the picture's edge or hidden by somebody
nearer is unknown, and unknown neither adds nor takes anything: the clock runs forward while the item is seen missing
and backward while it is seen, and the rule is broken at `missing_s`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, cast

import numpy as np

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.rule import MissingPpeRule
from nodeagent.judge.association import Flags, Floats, Indices, any_row
from nodeagent.judge.memory import NO_MEMORY
from nodeagent.judge.rules.classes import of_classes
from nodeagent.judge.rules.clock import CLOCK
from nodeagent.judge.rules.port import Place, Reason, Verdict, View, limits_ns

#: Where in a person's box each region lies: upper and lower edge, in box heights from the top.
REGIONS: Final = {"head": (-0.05, 0.3), "torso": (0.15, 0.7)}
#: Least share of an item's area that lies in the region.
COVER_MIN: Final = 0.5
#: Share of a region that may be hidden by somebody nearer.
HIDDEN_MAX: Final = 0.4
#: A region that ends closer to the picture's edge is cut off, fraction of the picture.
EDGE: Final = 0.004
#: A clock runs no further than this many times `missing_s`, so that an item that is put on ends the episode soon.
CLOCK_MAX: Final = 2


def shares(areas: Floats, others: Floats) -> Floats:
    """(n, m): share of each of `areas`, (n, 4) left, top, right, bottom, that lies in each of `others`, (m, 4)."""
    width = np.minimum(areas[:, 2][:, None], others[:, 2]) - np.maximum(areas[:, 0][:, None], others[:, 0])
    height = np.minimum(areas[:, 3][:, None], others[:, 3]) - np.maximum(areas[:, 1][:, None], others[:, 1])
    size = (areas[:, 2] - areas[:, 0]) * (areas[:, 3] - areas[:, 1])
    found: Floats = np.maximum(width, 0.0) * np.maximum(height, 0.0) / np.maximum(size, 1e-12)[:, None]
    return found


class MissingPpe:
    """All rules of this kind of one camera."""

    TRACK_MEMORY: ClassVar = CLOCK
    PLACE_MEMORY: ClassVar = NO_MEMORY

    def __init__(self, places: Sequence[Place]) -> None:
        rules = [cast(MissingPpeRule, place.rule) for place in places]
        self._rules = list(dict.fromkeys(rules))
        self._rule_of = np.array([self._rules.index(rule) for rule in rules])
        self._missing_ns = limits_ns([rule.missing_s for rule in rules])

    def judge(self, view: View) -> Verdict:
        """Who has been seen without for long enough."""
        has = np.zeros((len(view.sure), len(self._rules)), np.bool_)
        lacks = has.copy()
        for column, rule in enumerate(self._rules):
            self._look(view, rule, has[:, column], lacks[:, column])
        memory = view.memory.tracks
        on_ns, since_ns = memory["on_ns"], memory["since_ns"]
        lacking, wearing = lacks[:, self._rule_of] & view.inside, has[:, self._rule_of]
        since_ns += view.sample_ns * (lacking & (since_ns == 0))
        on_ns += view.step_ns * (lacking & (since_ns != view.sample_ns)) - view.step_ns * wearing
        np.clip(on_ns, 0, CLOCK_MAX * self._missing_ns, out=on_ns)
        on_ns *= view.inside
        since_ns *= view.inside & ((on_ns > 0) | lacking)
        long = view.inside & view.sure[:, None] & (on_ns >= self._missing_ns)
        return Verdict(breaks=long & lacking, holds=any_row(long))

    def _look(self, view: View, rule: MissingPpeRule, has: Flags, lacks: Flags) -> None:
        """Set who of this sample has an item of `rule`, and who is seen without one, (tracks,) each."""
        persons: Indices = (of_classes(view, rule.labels) & view.seen).nonzero()[0]
        if not persons.size:
            return
        body = corners(view.boxes[persons])
        region = body.copy()
        height = body[:, 3] - body[:, 1]
        top, bottom = REGIONS[rule.region]
        region[:, 1], region[:, 3] = body[:, 1] + top * height, body[:, 1] + bottom * height
        wears = self._holders(view, rule.items, region)
        unknown = (height < rule.min_person_height) | self._cut_off(body, region) | self._hidden(body, region)
        bare = ~wears & ~unknown
        if rule.without:
            bare &= self._holders(view, rule.without, region)
        has[persons], lacks[persons] = wears, bare

    @staticmethod
    def _holders(view: View, names: Sequence[str], region: Floats) -> Flags:
        """(persons,) bool: to whom an item of these classes belongs."""
        holds = np.zeros(len(region), np.bool_)
        items = corners(view.boxes[of_classes(view, names) & view.seen])
        if len(items):
            share = shares(items, region)
            # Of two who hold it all, the one whose middle is nearer.
            away = np.hypot(
                *((items[:, k] + items[:, k + 2])[:, None] - (region[:, k] + region[:, k + 2]) for k in (0, 1))
            )
            owner = (share - 1e-3 * away).argmax(axis=1)
            holds[owner[share[np.arange(len(items)), owner] >= COVER_MIN]] = True
        return holds

    @staticmethod
    def _cut_off(body: Floats, region: Floats) -> Flags:
        cut: Flags = (body[:, 1] <= EDGE) | (region[:, 3] >= 1.0 - EDGE)
        cut |= (body[:, 0] <= EDGE) | (body[:, 2] >= 1.0 - EDGE)
        return cut

    @staticmethod
    def _hidden(body: Floats, region: Floats) -> Flags:
        """Whether somebody nearer, whose feet are lower in the picture, stands before the region."""
        covered = shares(region, body) * (body[:, 3] > body[:, 3][:, None])
        hidden: Flags = covered.max(axis=1) > HIDDEN_MAX
        return hidden

    def reason(self, view: View, place: int, subjects: Flags) -> Reason:
        """It began with the first sample that showed one of the subjects without."""
        memory = view.memory.tracks[subjects, place]
        return Reason(int(memory["since_ns"].min()), {"missing_s": int(memory["on_ns"].max()) / NS_PER_S})


def corners(boxes: Floats) -> Floats:
    """(n, 4) left, top, right, bottom from centre x, centre y, width, height."""
    half = 0.5 * boxes[:, 2:4]
    return np.concatenate((boxes[:, 0:2] - half, boxes[:, 0:2] + half), axis=1)
