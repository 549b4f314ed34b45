"""What holds of the link's decisions whatever is read, lost, late or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.ownership import Owner
from nodeagent.infra.ownership.port import Renewal, Standing
from nodeagent.infra.wanted import Grant
from nodeagent.supervisor.link.reconcile import Facts, LetGo, Offer, Take, Word, reconcile

NOW = 1000.0
LIFE = "a" * 16
NAMES = ("gate", "yard", "dock")
SPECS = {name: CameraSpec.model_validate({"camera_id": name, "record": {"url": "a.mp4"}}) for name in NAMES}

names = st.sampled_from(NAMES)
numbers = st.integers(1, 4)
owners = st.builds(
    Owner, node_id=st.sampled_from(["n1", "n2"]), incarnation=st.sampled_from([LIFE, "b" * 16]), epoch=numbers
)
ours = st.builds(Owner, node_id=st.just("n1"), incarnation=st.just(LIFE), epoch=numbers)
grants = st.builds(Grant, epoch=numbers, version=numbers)
renewals = st.builds(Renewal, standing=st.sampled_from(Standing), owner=st.none() | owners)
words = st.builds(Word, renewals=st.dictionaries(names, renewals), owned=st.dictionaries(names, ours))


@st.composite
def offers(draw: st.DrawFn) -> Mapping[str, Offer]:
    return {name: Offer(SPECS[name], draw(numbers), draw(numbers)) for name in draw(st.sets(names))}


facts = st.builds(
    Facts,
    node_id=st.just("n1"),
    incarnation=st.just(LIFE),
    held=st.dictionaries(names, grants),
    word=st.none() | words,
    offers=offers(),
    asked_s=st.none() | st.floats(NOW - 10, NOW),
    is_stale=st.booleans(),
    named=st.dictionaries(names, st.none() | owners),
    moved_s=st.dictionaries(names, st.floats(NOW - 20, NOW)),
    leaving=st.booleans(),
    # Whom the registry names, it names for what its list lacks.
).map(lambda seen: replace(seen, named={k: v for k, v in seen.named.items() if k not in seen.offers}))


@given(facts)
def test_a_camera_is_let_go_only_for_a_word_that_was_read(seen: Facts) -> None:
    for action in reconcile(seen, NOW):
        if isinstance(action, LetGo):
            renewal = seen.word.renewals.get(action.camera_id) if seen.word else None
            read = renewal is not None and renewal.standing is Standing.TAKEN
            assert read or action.camera_id in seen.named
            assert seen.word is None or action.camera_id not in seen.word.owned


@given(facts)
def test_no_answer_stops_nothing(seen: Facts) -> None:
    silent = replace(seen, word=None, named={})
    assert not any(isinstance(action, LetGo) for action in reconcile(silent, NOW))


@given(facts)
def test_epochs_and_versions_never_go_back(seen: Facts) -> None:
    for action in reconcile(seen, NOW):
        if isinstance(action, Take) and action.camera_id in seen.held:
            before = seen.held[action.camera_id]
            assert action.grant != before
            assert (action.grant.epoch, action.grant.version) >= (before.epoch, before.version)
            assert action.grant.version >= before.version


@given(facts)
def test_the_same_facts_ask_for_nothing_more_once_they_are_acted_on(seen: Facts) -> None:
    held = dict(seen.held)
    for action in reconcile(seen, NOW):
        if isinstance(action, Take):
            held[action.camera_id] = action.grant
        elif isinstance(action, LetGo):
            del held[action.camera_id]
    again = reconcile(replace(seen, held=held), NOW)
    assert not [action for action in again if isinstance(action, Take | LetGo)]


@given(facts)
def test_what_redis_says_is_ours_is_served_when_it_is_known_how(seen: Facts) -> None:
    held = dict(seen.held)
    for action in reconcile(seen, NOW):
        if isinstance(action, Take):
            held[action.camera_id] = action.grant
    for camera_id, owner in (seen.word.owned if seen.word else {}).items():
        if camera_id in seen.held or (camera_id in seen.offers and not seen.leaving):
            assert held[camera_id].epoch >= owner.epoch
