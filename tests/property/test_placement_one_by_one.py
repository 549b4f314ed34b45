"""Placement against a loop that takes one camera after the other, and what holds whatever the input is."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nodeagent.contract.ownership import Resources
from registry.explain import explain
from registry.placement import Placement, place
from registry.placement_fill import WHYS, steps
from registry.placement_load import FULL, Scales, fills, needs_of, scores, used_of
from registry.placement_rules import ESTIMATE, Camera, Node, Spread, Why
from registry.placement_table import NONE, Cameras, Nodes, vector

#: Values from a short list make ties, which is where an order of the input could show.
amounts = st.sampled_from([0.0, 0.25, 0.3, 1.0, 1.7, 4.0])
costs = st.none() | st.builds(Resources, decode_cores=amounts, infer_per_s=amounts)
capacities = st.none() | st.builds(
    Resources,
    decode_cores=st.sampled_from([0.0, 2.0, 3.5, 8.0]),
    infer_per_s=st.sampled_from([4.0, 40.0]),
    ring_bytes=st.sampled_from([0.0, 2e8, 1e9]),
    write_bytes_s=st.just(1e7),
)
labels = st.dictionaries(st.sampled_from(["site", "rack"]), st.sampled_from(["a", "b"]))
spreads = st.builds(Spread, st.sampled_from(["door", "yard"]), st.sampled_from(["", "rack"]), st.booleans())
names = st.integers(0, 9).map(lambda number: f"n{number}")


@st.composite
def nodes(draw: st.DrawFn, least: int = 0) -> list[Node]:
    """Nodes that are not over their capacity."""
    found = []
    for node_id in draw(st.lists(names, unique=True, min_size=least, max_size=8)):
        part = draw(st.sampled_from([0.0, 0.3, 0.9]))
        capacity = draw(capacities)
        used = Resources() if capacity is None else Resources(decode_cores=capacity.decode_cores * part)
        found.append(
            Node(
                node_id=node_id,
                capacity=capacity,
                labels=draw(labels),
                cameras=draw(st.integers(0, 5)),
                used=used,
                closed=draw(st.sampled_from(["", "", "", "draining"])),
                models=draw(st.none() | st.just(frozenset({"yolo"}))),
            )
        )
    return found


def cameras(most: int = 40) -> st.SearchStrategy[list[Camera]]:
    one = st.builds(
        Camera,
        camera_id=st.integers(0, 999).map(lambda number: f"c{number}"),
        cost=costs,
        needs=st.just({}) | labels,
        model=st.sampled_from(["", "yolo", "helmet"]),
        spread=st.none() | spreads,
        avoid=st.just(frozenset()) | st.frozensets(names, max_size=3),
    )
    return st.lists(one, unique_by=lambda camera: camera.camera_id, max_size=most)


members = st.dictionaries(
    st.sampled_from(["door", "yard", "other"]), st.dictionaries(names, st.integers(0, 2), max_size=3), max_size=2
)


def may(camera: Camera, node: Node) -> bool:
    """Labels, model and an open node: what no choice and no force changes."""
    has_model = not camera.model or node.models is None or camera.model in node.models
    return not node.closed and camera.needs.items() <= node.labels.items() and has_model


class OneByOne:
    """The same rules as a loop: every camera looks at every node."""

    def __init__(self, orphans: Sequence[Camera], hosts: Sequence[Node], counted: Mapping[str, Mapping[str, int]]):
        self.hosts = sorted(hosts, key=lambda node: node.node_id)
        table = Nodes.of(self.hosts)
        self.scales, self.used = Scales.of(table), used_of(table)
        self.cameras = sorted(orphans, key=lambda camera: camera.camera_id)
        self.need = needs_of(Cameras.of(orphans).cost)
        self.size = self.scales.sizes(Cameras.of(orphans).cost)
        self.groups = [(group, node, count) for group, of in counted.items() for node, count in of.items()]
        self.may = [np.array([may(camera, node) for node in self.hosts], np.bool_) for camera in self.cameras]
        self.by_id = {node.node_id: node for node in self.hosts}
        self.found: dict[str, str | None] = {}

    def run(self, forced: bool) -> dict[str, str | None]:
        turns: dict[tuple[int, object, str], list[int]] = {}
        for row, camera in enumerate(self.cameras):
            turns.setdefault((int(self.may[row].sum()), tuple(sorted(camera.needs.items())), camera.model), []).append(
                row
            )
        for full in (FULL, np.inf) if forced else (FULL,):
            for _, rows in sorted(turns.items()):
                left = [row for row in rows if self.found.get(self.cameras[row].camera_id) is None]
                self._demand_of(np.array(sorted(left, key=lambda row: (-self.size[row], row)), np.intp), full)
        return self.found

    def _fit(self, row: int, full: float) -> np.ndarray:
        return self.may[row] & (fills(self.used + self.need[:, [row]], self.scales.per) <= full)

    def _demand_of(self, rows: np.ndarray, full: float) -> None:
        for step in steps(self.size[rows]):
            mean = np.ascontiguousarray(self.need[:, rows[step]]).mean(axis=1)
            for row in rows[step].tolist():
                self._one(row, mean, full)

    def _one(self, row: int, mean: np.ndarray, full: float) -> None:
        camera = self.cameras[row]
        score = scores(self.used, mean, self.scales.per)
        keys = []
        for at in np.flatnonzero(self._fit(row, full)).tolist():
            crowd = self._crowd(camera.spread, self.hosts[at])
            if not (camera.spread and camera.spread.hard and crowd):
                keys.append((self.hosts[at].node_id in camera.avoid, crowd, score[at], at))
        self.found[camera.camera_id] = None
        if keys:
            at = min(keys)[-1]
            self.used[:, at] += self.need[:, row]
            self.found[camera.camera_id] = self.hosts[at].node_id
            if camera.spread:
                self.groups.append((camera.spread.group, self.hosts[at].node_id, 1))

    def _crowd(self, spread: Spread | None, node: Node) -> int:
        if spread is None:
            return 0

        def place_of(host: Node) -> str | None:
            return host.labels.get(spread.over) if spread.over else host.node_id

        return sum(
            count
            for group, node_id, count in self.groups
            if group == spread.group and node_id in self.by_id and place_of(self.by_id[node_id]) == place_of(node)
        )


def found_of(placed: Placement) -> dict[str, str | None]:
    return {decision.camera_id: decision.node_id for decision in placed.decisions()}


@given(cameras(), nodes(), members, st.booleans())
def test_runs_of_cameras_go_where_one_after_the_other_would(
    orphans: list[Camera], hosts: list[Node], counted: dict[str, dict[str, int]], forced: bool
) -> None:
    placed = place(Cameras.of(orphans), Nodes.of(hosts), members=counted, forced=forced)
    assert found_of(placed) == OneByOne(orphans, hosts, counted).run(forced)


@pytest.mark.parametrize("seed", range(4))
def test_many_cameras_go_where_one_after_the_other_would(seed: int) -> None:
    """Enough nodes that only the emptiest are sorted; half full at first, full in the end for the odd seeds."""
    chance = random.Random(seed)
    hosts = [
        Node(
            node_id=f"n{number:03}",
            capacity=Resources(decode_cores=chance.choice([8, 16]), infer_per_s=500, ring_bytes=1e9, write_bytes_s=1e8),
            used=Resources(decode_cores=chance.uniform(0, 8)),
            labels={"rack": str(number % 40)},
        )
        for number in range(300)
    ]
    orphans = [
        Camera(
            camera_id=f"c{number:05}",
            cost=Resources(decode_cores=chance.lognormvariate(-1, 0.7) * (6 if seed % 2 else 1), infer_per_s=5),
            spread=Spread(f"g{number // 3}", "rack") if number < 90 else None,
        )
        for number in range(1500)
    ]
    placed = place(Cameras.of(orphans), Nodes.of(hosts))
    assert placed.is_complete is (seed % 2 == 0)
    assert found_of(placed) == OneByOne(orphans, hosts, {}).run(False)


@given(cameras(), nodes(), members, st.booleans())
def test_no_hard_rule_is_broken_and_what_is_refused_fits_nowhere(
    orphans: list[Camera], hosts: list[Node], counted: dict[str, dict[str, int]], forced: bool
) -> None:
    decisions = list(place(Cameras.of(orphans), Nodes.of(hosts), members=counted, forced=forced).decisions())
    assert [decision.camera_id for decision in decisions] == sorted(camera.camera_id for camera in orphans)
    by_camera, by_node = {c.camera_id: c for c in orphans}, {n.node_id: n for n in hosts}
    used = {node.node_id: np.array(vector(node.used)) for node in hosts}
    over = {decision.node_id for decision in decisions if decision.why is Why.FORCED}
    for decision in decisions:
        if decision.node_id is not None:
            assert may(by_camera[decision.camera_id], by_node[decision.node_id])
            used[decision.node_id] += cost_of(by_camera[decision.camera_id])
    assert all(has_room(node, used[node.node_id], FULL) for node in hosts if node.node_id not in over)
    assert not over or forced
    for decision in decisions:
        if decision.node_id is None:
            _check_refusal(decision.why, by_camera[decision.camera_id], hosts, used)
    _check_hard_groups({d.camera_id: d.node_id for d in decisions if d.node_id}, by_camera, by_node)


def cost_of(camera: Camera) -> np.ndarray:
    return np.array(vector(ESTIMATE if camera.cost is None else camera.cost))


def has_room(node: Node, used: np.ndarray, full: float = 1.0) -> bool:
    return node.capacity is None or bool((used <= np.array(vector(node.capacity)) * full).all())


def _check_refusal(why: Why, camera: Camera, hosts: Sequence[Node], used: Mapping[str, np.ndarray]) -> None:
    """A camera without an owner is told the reason that holds when all is placed."""
    could = [node for node in hosts if may(camera, node)]
    roomy = [node for node in could if has_room(node, used[node.node_id] + cost_of(camera))]
    is_open = [node for node in hosts if not node.closed]
    has_labels = [node for node in is_open if camera.needs.items() <= node.labels.items()]
    holds = {
        Why.CLOSED: not is_open,
        Why.LABELS: bool(is_open) and not has_labels,
        Why.MODEL: bool(has_labels) and not could,
        Why.ROOM: bool(could) and not roomy,
        Why.GROUP: bool(could and camera.spread and camera.spread.hard),
    }
    assert holds[why], why


def _check_hard_groups(found: Mapping[str, str], by_camera: Mapping[str, Camera], by_node: Mapping[str, Node]) -> None:
    """Of the cameras of a group that all have the same hard spread there is at most one in a place."""
    for one, other in ((a, b) for a in found for b in found if a < b):
        mine, theirs = by_camera[one].spread, by_camera[other].spread
        if mine and theirs and mine.group == theirs.group and mine.hard and theirs.hard and mine.over == theirs.over:
            places = [by_node[found[i]].labels.get(mine.over) if mine.over else found[i] for i in (one, other)]
            assert places[0] != places[1]


@given(cameras(), nodes(), members, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(
    orphans: list[Camera], hosts: list[Node], counted: dict[str, dict[str, int]], chance: random.Random
) -> None:
    before = place(Cameras.of(orphans), Nodes.of(hosts), members=counted)
    chance.shuffle(orphans)
    chance.shuffle(hosts)
    turned = {group: dict(reversed(list(of.items()))) for group, of in reversed(list(counted.items()))}
    after = place(Cameras.of(orphans), Nodes.of(hosts), members=turned)
    assert list(after.decisions()) == list(before.decisions())


@given(cameras(most=1), nodes(least=2), members, names, amounts, st.integers(0, 3))
def test_more_load_never_makes_a_node_preferred(
    orphans: list[Camera], hosts: list[Node], counted: dict[str, dict[str, int]], which: str, more: float, cams: int
) -> None:
    assume(orphans)
    before = place(Cameras.of(orphans), Nodes.of(hosts), members=counted)
    chosen = found_of(before)[orphans[0].camera_id]
    assume(chosen != which)
    fuller = [
        replace(
            node,
            cameras=node.cameras + cams,
            used=node.used.model_copy(update={"infer_per_s": node.used.infer_per_s + more}),
        )
        if node.node_id == which
        else node
        for node in hosts
    ]
    assert found_of(place(Cameras.of(orphans), Nodes.of(fuller), members=counted))[orphans[0].camera_id] == chosen


@given(cameras(most=1), nodes(), members)
def test_what_is_explained_is_what_is_done(
    orphans: list[Camera], hosts: list[Node], counted: dict[str, dict[str, int]]
) -> None:
    assume(orphans)
    told = explain(orphans[0], hosts, members=counted)
    (decision,) = place(Cameras.of(orphans), Nodes.of(hosts), members=counted).decisions()
    assert told.best == (decision.node_id or "")
    assert {one.node_id for one in told.candidates} == {node.node_id for node in hosts}
    assert all(bool(one.rank) is not bool(one.refusals) for one in told.candidates)
    if decision.node_id is not None:
        placed = place(Cameras.of(orphans), Nodes.of(hosts), members=counted)
        assert told.candidates[0].load_with == placed.load[0]


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=200), st.integers(1, 20), st.booleans())
def test_equal_nodes_differ_by_no_more_than_one_camera(costs: list[float], count: int, known: bool) -> None:
    capacity = Resources(decode_cores=1000, infer_per_s=1, ring_bytes=1, write_bytes_s=1) if known else None
    hosts = [Node(node_id=f"n{number}", capacity=capacity) for number in range(count)]
    orphans = [Camera(camera_id=f"c{n}", cost=Resources(decode_cores=cost)) for n, cost in enumerate(costs)]
    placed = place(Cameras.of(orphans), Nodes.of(hosts))
    assert placed.is_complete
    if known:
        cores = placed.nodes.used[:, 0]
        assert cores.max() - cores.min() <= max(costs) + 1e-9
    else:
        assert placed.nodes.cameras.max() - placed.nodes.cameras.min() <= 1


@given(cameras(), nodes(least=1), st.sets(names))
def test_only_orphans_of_lost_nodes_move(orphans: list[Camera], hosts: list[Node], lost: set[str]) -> None:
    before = place(Cameras.of(orphans), Nodes.of(hosts))
    rows = {before.nodes.ids[row]: row for row in range(len(before.nodes))}
    gone = [row for node_id, row in rows.items() if node_id in lost]
    left = np.flatnonzero(np.isin(before.node, gone))
    after = place(before.cameras.take(left), before.nodes.close(dict.fromkeys(lost, "dead")))
    assert len(after.node) == len(left)
    assert not np.isin(after.node, gone).any()
    got = np.zeros_like(before.nodes.used)
    np.add.at(got, after.node[after.node != NONE], after.cameras.cost[after.node != NONE])
    assert after.nodes.used == pytest.approx(before.nodes.used + got)
    assert {WHYS[code] for code in after.why} <= set(Why) - {Why.FORCED}
