"""What the link decides, situation by situation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.ownership import RECONCILE_S, Owner
from nodeagent.infra.ownership.port import Renewal, Standing
from nodeagent.infra.wanted import Grant
from nodeagent.supervisor.link.reconcile import (
    AWAY_S,
    HAND_OVER_S,
    LIST_S,
    Action,
    Facts,
    Fetch,
    LetGo,
    Offer,
    Take,
    Word,
    moved_away,
    nobody_takes,
    owners,
    reconcile,
)

NOW = 1000.0
LONG_AGO = {"gate": NOW - HAND_OVER_S}
LIFE, OTHER_LIFE = "a" * 16, "b" * 16


def owner(epoch: int, node: str = "n1", life: str = LIFE) -> Owner:
    return Owner(node_id=node, incarnation=life, epoch=epoch)


def spec(url: str = "a.mp4") -> CameraSpec:
    return CameraSpec.model_validate({"camera_id": "gate", "record": {"url": url}})


def word(standing: Standing | None = None, who: Owner | None = None, owned: Owner | None = None) -> Word:
    """What Redis says of one camera."""
    renewals = {} if standing is None else {"gate": Renewal(standing, who)}
    return Word(renewals, {} if owned is None else {"gate": owned})


HELD = word(Standing.HELD, owner(7), owner(7))
LOST = word(Standing.UNKNOWN)
#: Redis knows of another camera of ours.
ONE_LOST = Word(LOST.renewals, {"yard": owner(9)})
#: We hold the camera with epoch 7 and version 3, the registry listed it just now, and all agree.
HOLDING = Facts("n1", LIFE, {"gate": Grant(7, 3)}, HELD, {"gate": Offer(spec(), 3, 7)}, asked_s=NOW - 1)
LEAVING = replace(HOLDING, leaving=True)
#: What was moved is not to be taken again out of an older list.
LISTED_STILL = Fetch("cameras were moved that the list has still")
#: We hold nothing, and nobody says that we should.
IDLE = Facts("n1", LIFE, {}, word(), {}, asked_s=NOW - 1)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(HOLDING, [], id="all agree"),
        pytest.param(IDLE, [], id="nothing to do"),
        # What takes a camera away.
        pytest.param(
            replace(HOLDING, word=word(Standing.TAKEN, owner(8, "n2")), moved_s=LONG_AGO),
            [LetGo("gate", "n2 owns it, epoch 8"), LISTED_STILL],
            id="another node owns it",
        ),
        pytest.param(
            replace(HOLDING, word=word(Standing.TAKEN, owner(8, life=OTHER_LIFE)), moved_s=LONG_AGO),
            [LetGo("gate", "n1 owns it, epoch 8"), LISTED_STILL],
            id="another agent with our node id owns it",
        ),
        pytest.param(
            replace(HOLDING, word=word(Standing.TAKEN, owner(7, "n2")), moved_s=LONG_AGO),
            [LetGo("gate", "n2 owns it, epoch 7"), LISTED_STILL],
            id="a copy of another node's state folder",
        ),
        pytest.param(
            replace(HOLDING, word=LOST, offers={}, named={"gate": owner(8, "n2")}, asked_s=NOW, moved_s=LONG_AGO),
            [LetGo("gate", "n2 owns it, epoch 8")],
            id="the registry names another owner and Redis knows nothing",
        ),
        pytest.param(
            replace(HOLDING, word=None, offers={}, named={"gate": None}, asked_s=NOW),
            [LetGo("gate", "it was removed")],
            id="the registry knows no such camera",
        ),
        # What does not.
        pytest.param(replace(HOLDING, word=None), [], id="Redis is away"),
        pytest.param(replace(HOLDING, word=None, asked_s=NOW - 1, offers={}), [], id="Redis is away, no list"),
        pytest.param(replace(HOLDING, word=LOST, offers={}), [], id="Redis was flushed, the list lacks it"),
        pytest.param(
            replace(HOLDING, word=word(Standing.POOLED, owner(8, "n2")), asked_s=NOW), [], id="it waits in the pool"
        ),
        pytest.param(
            replace(HOLDING, word=word(Standing.TAKEN, owner(7, life=OTHER_LIFE)), asked_s=NOW),
            [],
            id="the grant is our last life's",
        ),
        pytest.param(replace(HOLDING, word=word(Standing.TAKEN, owner(6, "n2")), asked_s=NOW), [], id="an older owner"),
        pytest.param(
            replace(HOLDING, word=word(Standing.TAKEN, owner(8, "n2"), owner(9)), offers={}),
            [Take("gate", Grant(9, 3), None)],
            id="it came back between the two questions",
        ),
        pytest.param(replace(HOLDING, named={"gate": None}), [], id="a registry with an older database"),
        pytest.param(
            replace(HOLDING, word=LOST, named={"gate": owner(9)}, offers={}, asked_s=NOW), [], id="it names ourselves"
        ),
        # What gives one.
        pytest.param(
            replace(IDLE, word=word(owned=owner(9)), offers={"gate": Offer(spec(), 3, 8)}),
            [Take("gate", Grant(9, 3), spec())],
            id="granted, and listed before",
        ),
        pytest.param(
            replace(IDLE, word=word(owned=owner(9))),
            [Fetch("gate is granted, its configuration is not known")],
            id="granted, not listed yet",
        ),
        pytest.param(
            replace(IDLE, word=word(owned=owner(9)), unfit=frozenset({"gate"})), [], id="granted, but it cannot run"
        ),
        pytest.param(
            replace(IDLE, word=LOST, offers={"gate": Offer(spec(), 3, 8)}),
            [Take("gate", Grant(8, 3), spec())],
            id="listed, and Redis knows nothing",
        ),
        pytest.param(
            replace(IDLE, word=None, offers={"gate": Offer(spec(), 3, 8)}),
            [Take("gate", Grant(8, 3), spec())],
            id="listed, and Redis is away",
        ),
        pytest.param(
            replace(IDLE, word=None, offers={"gate": Offer(spec(), 3, 8)}, asked_s=NOW - LIST_S - 0.1),
            [],
            id="listed too long ago",
        ),
        pytest.param(
            replace(IDLE, word=word(Standing.TAKEN, owner(9, "n2")), offers={"gate": Offer(spec(), 3, 8)}),
            [],
            id="listed, but moved since",
        ),
        pytest.param(replace(IDLE, word=None, offers={"gate": Offer(spec(), 3, 0)}), [], id="it may be claimed"),
        pytest.param(
            replace(IDLE, word=word(owned=owner(9)), offers={"gate": Offer(spec(), 3, 0)}, asked_s=None),
            [Take("gate", Grant(9, 3), spec()), Fetch("nothing is known yet")],
            id="claimed, as it was listed to the last life",
        ),
        pytest.param(replace(IDLE, offers={"gate": Offer(spec(), 3, 8)}), [], id="listed after Redis was asked"),
        pytest.param(
            replace(IDLE, word=word(owned=owner(9)), offers={"gate": Offer(spec(), 3, 9)}, leaving=True),
            [],
            id="a node that leaves takes nothing",
        ),
        # What changes one.
        pytest.param(
            replace(HOLDING, word=word(Standing.TAKEN, owner(9), owner(9))),
            [Take("gate", Grant(9, 3), None)],
            id="granted anew",
        ),
        pytest.param(
            replace(HOLDING, offers={"gate": Offer(spec("b.mp4"), 4, 7)}),
            [Take("gate", Grant(7, 4), spec("b.mp4"))],
            id="configured anew",
        ),
        pytest.param(
            replace(HOLDING, offers={"gate": Offer(spec("b.mp4"), 2, 7)}), [], id="an older configuration's list"
        ),
        # When to ask.
        pytest.param(replace(HOLDING, asked_s=None), [Fetch("nothing is known yet")], id="never asked"),
        pytest.param(
            replace(IDLE, asked_s=NOW - RECONCILE_S), [Fetch("Redis tells of no camera of ours")], id="Redis has none"
        ),
        pytest.param(
            replace(IDLE, word=None, asked_s=NOW - AWAY_S),
            [Fetch("Redis tells of no camera of ours")],
            id="Redis is away for long",
        ),
        pytest.param(
            replace(HOLDING, word=LOST, asked_s=NOW - RECONCILE_S), [Fetch("Redis does not know gate")], id="it is lost"
        ),
        pytest.param(
            replace(HOLDING, word=ONE_LOST, unfit=frozenset({"yard"}), asked_s=NOW - RECONCILE_S),
            [Fetch("Redis does not know gate")],
            id="it is lost, and we own others",
        ),
        pytest.param(replace(HOLDING, is_stale=True), [Fetch("a configuration changed")], id="something changed"),
    ],
)
def test_one_camera(facts: Facts, expected: list[Action]) -> None:
    assert reconcile(facts, NOW) == expected


#: Another owner is read since two seconds, and the list was asked for since.
MOVED = replace(
    HOLDING, word=word(Standing.TAKEN, owner(8, "n2")), offers={}, moved_s={"gate": NOW - 2}, asked_s=NOW - 1
)


@pytest.mark.parametrize(
    ("facts", "gone"),
    [
        pytest.param(MOVED, False, id="no registry says that it is captured there"),
        pytest.param(replace(MOVED, captured={"gate": owner(8, "n2")}), True, id="it is captured there"),
        pytest.param(replace(MOVED, captured={"gate": owner(7, "n3")}), False, id="it moved on from who captured it"),
        pytest.param(replace(MOVED, captured={"gate": owner(9, "n3")}), False, id="another one than Redis knows"),
        pytest.param(replace(MOVED, captured={"yard": owner(8, "n2")}), False, id="another camera is"),
        pytest.param(replace(MOVED, moved_s=LONG_AGO), True, id="nobody says so for long"),
    ],
)
def test_a_camera_is_let_go_once_it_is_captured_elsewhere(facts: Facts, gone: bool) -> None:
    assert moved_away(facts) == {"gate"}
    assert reconcile(facts, NOW) == ([LetGo("gate", "n2 owns it, epoch 8")] if gone else [])


def test_keys_are_renewed_with_the_epoch_that_is_held() -> None:
    offers = {"gate": Offer(spec(), 3, 9), "yard": Offer(spec(), 1, 5)}
    assert owners("n1", LIFE, {"gate": Grant(7, 3)}, offers) == {"gate": owner(7), "yard": owner(5)}


@pytest.mark.parametrize(
    ("facts", "alone", "claimed", "expected"),
    [
        pytest.param(LEAVING, True, False, True, id="no registry"),
        pytest.param(LEAVING, False, False, False, id="a registry answers"),
        pytest.param(LEAVING, True, True, False, id="others claim from the pool"),
        pytest.param(HOLDING, True, False, False, id="it stays"),
        pytest.param(replace(LEAVING, word=word(Standing.TAKEN, owner(8, "n2"))), True, False, False, id="one moved"),
    ],
)
def test_who_leaves_waits_only_for_somebody_who_may_come(
    facts: Facts, alone: bool, claimed: bool, expected: bool
) -> None:
    assert nobody_takes(facts, alone=alone, claimed=claimed) is expected
