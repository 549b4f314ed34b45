"""Whatever the scene: the same input gives the same alarms, however it is cut, restored, doubled or shuffled."""

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.evidence import Author
from nodeagent.judge.ledger import Arrival
from nodeagent.judge.reorder import Reorder
from nodeagent.judge.snapshot import order_of, pack, unpack
from tests.support.scenarios import GROUND, MIDDLE, Person, S, Scene, crossing, cut, intrusion, loitering, rule

AUTHOR = Author("node", "cam", 15.0, 15.0)
RULES = [
    intrusion(cooldown_s=3.0, exit_s=0.6),
    intrusion(MIDDLE, rule_id="middle", enter_s=0.0, exit_s=0.0, grace_s=0.0, cooldown_s=0.0),
    loitering(dwell_s=3.0, cooldown_s=2.0),
    crossing(cooldown_s=1.0, exit_s=0.5, min_distance=0.0, min_samples=1),
    rule("wrong_direction", heading=((0.0, 0.5), (1.0, 0.5)), min_distance=0.05, cooldown_s=0.0, exit_s=0.0),
    rule("crowd", min_count=2, hold_s=0.4, cooldown_s=1.0),
    rule("absence", absent_s=2.0, cooldown_s=0.0, exit_s=0.4),
    rule("presence", labels=("car",), hold_s=0.5, cooldown_s=2.0, exit_s=0.0),
    rule("queue", max_length=2, hold_s=1.0, max_wait_s=2.0, cooldown_s=1.0),
    rule("missing_ppe", labels=("person",), items=("car",), missing_s=1.0, cooldown_s=1.0),
    rule("fall", still_s=0.5, cooldown_s=0.0, exit_s=0.0, min_ratio=0.8, max_height=1.0),
    rule("abandoned", labels=("car",), still_s=0.5, left_s=1.0, max_move=0.1, cooldown_s=0.0),
    rule("speed", **GROUND, limit_kmh=2.0, over_s=0.4, cooldown_s=0.0, exit_s=1.0),
]
#: Rules that are broken by nobody in particular.
NOBODY = {"absence"}
SLOW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

_place = st.floats(0.05, 0.95)


@st.composite
def people(draw) -> Person:
    start = draw(st.floats(0.0, 15.0))
    count = draw(st.integers(2, 4))
    times = sorted({round(start + draw(st.floats(0.5, 20.0)), 2) for _ in range(count)} | {round(start, 2)})
    hidden = draw(st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 2.0)), max_size=3))
    return Person(
        tuple((time, draw(_place), draw(st.floats(0.3, 0.95))) for time in times),
        hidden=tuple((begin, begin + length) for begin, length in hidden),
        label=draw(st.integers(0, 1)),
    )


scenes = st.builds(
    Scene,
    people=st.lists(people(), max_size=5).map(tuple),
    seconds=st.just(30.0),
    fps=st.sampled_from([2.0, 5.0, 7.0]),
    jitter=st.sampled_from([0.0, 0.05, 0.2]),
    seed=st.integers(0, 100),
    gone=st.lists(st.floats(1.0, 25.0).map(lambda t: (t, t + 3.0)), max_size=1).map(tuple),
)


def run(clips, judge=None, missing=None):
    judge = judge or CameraJudge(AUTHOR, RULES, 5.0)
    messages = []
    for clip in clips:
        if judge.ledger.arrive(clip.header) is Arrival.NEW:
            messages += judge.judge(clip)
    return messages


@SLOW
@given(scenes)
def test_the_same_input_twice_gives_the_same_alarms(scene):
    assert run(scene.clips()) == run(scene.clips())


@SLOW
@given(scenes, st.lists(st.floats(0.3, 29.5), max_size=12))
def test_how_the_input_is_cut_does_not_matter(scene, starts):
    assert run(cut(scene.samples(), scene.seconds, starts, scene)) == run(scene.clips())


@SLOW
@given(scenes, st.sets(st.integers(0, 5)))
def test_kill_and_restore_after_any_clip_gives_the_same_alarms(scene, kills):
    clips = scene.clips()
    judge, messages = CameraJudge(AUTHOR, RULES, 5.0), []
    for number, clip in enumerate(clips):
        messages += run([clip], judge)
        if number in kills:
            body = pack(judge, number)
            assert order_of(body) == (*judge.ledger.watermark, number)
            judge = unpack(body, AUTHOR, 5.0)
            assert pack(judge, number) == body
    assert messages == run(clips)


@SLOW
@given(scenes, st.randoms(use_true_random=False))
def test_shuffled_and_doubled_clips_are_judged_once_and_in_order(scene, rng: random.Random):
    clips = scene.clips()
    feed = clips + [clip for clip in clips if rng.random() < 0.5]
    rng.shuffle(feed)
    judge, messages = CameraJudge(AUTHOR, RULES, 5.0), []
    judge.ledger.epoch = 0
    # A state exists, so that the first number is known to be 0.
    judge.ledger.epochs = {}
    reorder: Reorder[int] = Reorder(wait_s=25.0)
    settled = []
    for token, clip in enumerate(feed):
        if judge.ledger.arrive(clip.header) is not Arrival.NEW:
            settled.append(token)
            continue
        reorder.add(clip, token, 0.0)
        for ready in reorder.ready(judge.ledger.epochs, 0.0):
            messages += judge.judge(ready.clip, ready.missing)
            settled += ready.tokens
    assert sorted(settled) == list(range(len(feed)))
    assert messages == run(clips)
    assert judge.ledger.counters.clips_judged == len(clips)
    assert judge.ledger.counters.gaps == 0


@SLOW
@given(scenes)
def test_no_two_alarms_of_a_place_lie_within_its_cooldown_and_every_end_has_a_start(scene):
    cooldown = {rule.rule_id: rule.cooldown_s * S for rule in RULES}
    open_key, ended = {}, {}
    for message in run(scene.clips()):
        place = message.rule_id
        if message.stage == "started":
            assert place not in open_key
            if place in ended:
                assert message.episode_started_ns - ended[place] > cooldown[place]
            open_key[place] = message.dedup_key
        elif message.stage == "updated":
            open_key.setdefault(place, message.dedup_key)
        assert open_key[place] == message.dedup_key
        assert message.episode_started_ns <= message.confirmed_ns <= message.evidence.sample_ns
        assert message.evidence.subjects >= (message.rule_id not in NOBODY)
        if message.stage == "ended":
            assert message.ended_ns >= message.confirmed_ns
            ended[place] = message.ended_ns
            del open_key[place]
